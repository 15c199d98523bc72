"""What is plugged in: serial ports and cameras, by the names that survive re-plugging."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

DEV: Final = Path("/dev")
_SERIAL: Final = ("ttyUSB*", "ttyACM*", "ttyAMA*", "ttySC*", "serial[0-9]")


class Place(NamedTuple):
    """``name``: what to write into the config; ``device``: what it is now."""

    name: str
    device: str


def serial_ports(dev: Path = DEV) -> list[Place]:
    """Every serial port that may have a line on it; steady names where there are any."""
    return _places(dev, "serial/by-id", _SERIAL)


def cameras(dev: Path = DEV) -> list[Place]:
    """Every V4L2 camera; of several nodes of one camera the first, which gives the pictures."""
    found = _places(dev, "v4l/by-id", ("video[0-9]*",))
    named = [place for place in found if "-index" in place.name]
    return [place for place in named if place.name.endswith("-index0")] or found


def _places(dev: Path, folder: str, patterns: tuple[str, ...]) -> list[Place]:
    steady = {str(link.resolve()): str(link) for link in sorted((dev / folder).glob("*"))}
    devices = sorted({str(path.resolve()) for pattern in patterns for path in dev.glob(pattern)})
    return [Place(steady.get(device, device), device) for device in devices]
