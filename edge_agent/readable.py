"""Numbers for people: a value with a handy prefix, a span of time, an amount of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PREFIXED: Final = ("W", "Wh", "var", "varh", "VA", "VAh")
# What a line engineer looks at first; of each row, whatever there is.
_TELLING: Final = (
    ("voltage_l1", "voltage", "voltage_l1_l2"),
    ("frequency",),
    ("active_power", "active_power_l1"),
    ("current_l1", "current"),
    ("energy_import", "energy_total"),
    ("temperature",),
    ("relative_humidity",),
    ("pressure",),
)


def value(number: float, unit: str) -> str:
    """``4.2 kW``, ``231.2 V``, ``50.01 Hz``."""
    if unit == "Pa":
        return f"{number / 100:.1f} hPa"
    if unit not in _PREFIXED:
        text = f"{number:.2f}" if unit in {"Hz", ""} else f"{number:.1f}"
        return f"{text} {unit}".rstrip()
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= factor:
            return f"{number / factor:.1f} {prefix}{unit}"
    return f"{number:.0f} {unit}"


def telling(values: Mapping[str, float], units: Mapping[str, str], most: int = 3) -> str:
    """The few values that show at a glance whether a device reads the right thing."""
    found = (next((name for name in row if name in values), None) for row in _TELLING)
    names = [name for name in found if name is not None]
    names = (names or list(values))[:most]
    return "  ".join(value(values[name], units.get(name, "")) for name in names)


def span(seconds: float) -> str:
    """``3 h 12 min``, ``9.4 days``, ``42 s``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min"
    days = seconds / 86400
    return f"{days:.1f} days" if days < 100 else f"{days:.0f} days"


def size(count: float) -> str:
    """``1.9 GiB``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"
