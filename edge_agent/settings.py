"""How a setting is declared: once, beside its use, with its unit, bounds, default and sentence.

``check``, the example file and the reference in the README are rendered from these declarations.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from edge_agent.vocabulary import UNITS


class Section(BaseModel):
    """A section of config.yaml. Unknown keys are errors; values do not change after load."""

    # What a section that no config has would need to be checked is never made: half a megabyte.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), validate_default=False, defer_build=True
    )


_NUMBER = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([^\d\s].*)?\s*$")
_DURATIONS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def split_unit(text: str) -> tuple[float, str]:
    """``"45 kW"`` → ``(45.0, "kW")``; raises ValueError when it does not begin with a number."""
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit")
    number = float(match[1])
    if not isfinite(number):
        raise ValueError(f"{text!r} is larger than any number here")
    return number, (match[2] or "").strip()


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


def _written(table: dict[str, Any], between: str = "") -> PlainSerializer:
    """As JSON a value is what a person would write, and reads back as exactly the same value."""
    units = sorted(table.items(), key=lambda item: -item[1])

    def write(value: float) -> str:
        for unit, factor in units:
            count = round(value / factor)
            if count and count * factor == value:
                return f"{count}{between}{unit}"
        smallest = next(unit for unit, factor in units if factor == 1)
        return f"{value!r}{between}{smallest}" if value else f"0{between}{smallest}"

    return PlainSerializer(write, return_type=str, when_used="json-unless-none")


def _pixels(pattern: str, example: str) -> BeforeValidator:
    def parse(value: object) -> tuple[int, ...]:
        match = re.fullmatch(pattern, value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{value!r} must look like {example}")
        return tuple(int(number) for number in match.groups())

    return BeforeValidator(parse, json_schema_input_type=str)


Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=str), _written(_DURATIONS)]
"""Seconds, written with a unit: ``200ms``, ``10s``, ``15min``."""
Size = Annotated[
    int,
    BeforeValidator(_size, json_schema_input_type=str),
    _written({unit: factor for unit, factor in _SIZES.items() if unit in ("B", "KiB", "MiB", "GiB")}),
]
"""Bytes, written with a unit: ``64MiB``."""
Resolution = Annotated[
    tuple[int, int],
    _pixels(r"(\d{1,5})x(\d{1,5})", "1280x720"),
    PlainSerializer(lambda size: f"{size[0]}x{size[1]}", return_type=str, when_used="json-unless-none"),
]
"""Width and height in pixels: ``1280x720``."""
Region = Annotated[
    tuple[int, int, int, int],
    _pixels(r"(\d{1,5})x(\d{1,5})\+(\d{1,5})\+(\d{1,5})", "640x480+100+50 (width x height + left + top)"),
    PlainSerializer(lambda part: "{}x{}+{}+{}".format(*part), return_type=str, when_used="json-unless-none"),
]
"""Width, height, left and top in pixels: ``640x480+100+50``."""
Watts = Annotated[float, _of("W", "180 kW"), _written({"W": 1.0, "kW": 1e3}, " ")]
"""Watts, written with a unit: ``180 kW``."""
Volts = Annotated[float, _of("V", "230 V"), _written({"V": 1.0}, " ")]
"""Volts, written with a unit: ``230 V``."""


class BusSection(Section):
    """What every bus has."""

    kind: str = Field(description="What kind of wire it is.")


class DeviceSection(Section):
    """What every device has; the bus kind adds its own."""

    bus: str = Field(description="The bus that the device is on, by its name under `buses`.")
    profile: str = Field(description="A meter or sensor profile by name, or the path of a file of your own.")
    every: Duration = Field(default=1.0, gt=0, description="How often it is read.")
    sanity: bool = Field(
        default=True, description="Whether jumps, spikes, frozen values and condensation are told as events."
    )


class ModelSection(Section):
    """A model that decides: a bundle that is installed or comes with the product."""

    bundle: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = Field(
        description="The bundle, by its name."
    )
    devices: tuple[str, ...] = Field(
        default=(), description="Whose readings it judges, by their names under `devices`; without any: pictures."
    )
    deadline: Duration = Field(
        default=2.0, gt=0, le=60, description="A judgement of readings that takes longer is left to the next in turn."
    )
    report_every: Duration = Field(
        default=60.0, gt=0, description="How often a verdict about readings is recorded while nothing changes."
    )
    trial: int = Field(
        default=300,
        ge=1,
        le=100_000,
        description="For how many judgements a newly installed release only stands beside the one that decides.",
    )
