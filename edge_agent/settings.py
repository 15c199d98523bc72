"""How a setting is declared: once, beside its use, with its unit, bounds, default and sentence.

``check``, the example file and the reference in the README are rendered from these declarations.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edge_agent.vocabulary import UNITS


class Section(BaseModel):
    """A section of config.yaml. Unknown keys are errors; values do not change after load."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=False)


_NUMBER = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([^\d\s].*)?\s*$")
_DURATIONS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def split_unit(text: str) -> tuple[float, str]:
    """``"45 kW"`` → ``(45.0, "kW")``; raises ValueError when it does not begin with a number."""
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit")
    return float(match[1]), (match[2] or "").strip()


def _measure(table: dict[str, Any], example: str) -> Any:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, str):
            raise ValueError(f"{value!r} needs its unit, like {example}")
        number, unit = split_unit(value)
        if unit not in table:
            raise ValueError(f"{value!r} needs a unit of {', '.join(table)}, like {example}")
        return number * float(table[unit])

    return parse


def _duration(value: object) -> float:
    return float(_measure(_DURATIONS, "500ms, 2s or 15min")(value))


def _size(value: object) -> int:
    return int(_measure(_SIZES, "64MiB or 2GiB")(value))


def _of(base: str, example: str) -> Any:
    table = {unit: factor for unit, (to, factor) in UNITS.items() if to == base}
    return BeforeValidator(_measure(table, example), json_schema_input_type=str)


Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=str)]
"""Seconds, written with a unit: ``200ms``, ``10s``, ``15min``."""
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=str)]
"""Bytes, written with a unit: ``64MiB``."""
Watts = Annotated[float, _of("W", "180 kW")]
"""Watts, written with a unit: ``180 kW``."""


class BusSection(Section):
    """What every bus has."""

    kind: str = Field(description="What kind of wire it is.")


class DeviceSection(Section):
    """What every device has; the bus kind adds its own."""

    bus: str = Field(description="The bus that the device is on, by its name under `buses`.")
    profile: str = Field(description="A meter or sensor profile by name, or the path of a file of your own.")
    every: Duration = Field(default=1.0, gt=0, description="How often it is read.")
