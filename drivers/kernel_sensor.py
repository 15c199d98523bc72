"""Sensors that a kernel driver reads: files of hwmon and IIO under /sys. No device access is needed.

The kernel checks the checksum, keeps the pause between two measurements and lets others read too.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from edge_agent.clock import Clock
from edge_agent.errors import DeviceError, ProfileError
from edge_agent.psychrometrics import DERIVED, derive
from edge_agent.settings import BusSection, DeviceSection, Duration
from edge_agent.vocabulary import (
    NOT_A_NUMBER,
    NOTHING_THERE,
    OUT_OF_RANGE,
    PERMISSION,
    QUANTITIES,
    SENTINEL,
    TIMEOUT,
    WRONG_REPLY,
    Quantity,
    Sample,
    nearest,
)

SYS: Final = Path("/sys")
# Where all chips of an interface are, and where those of one device are.
_FOLDERS: Final = {
    "hwmon": ("class/hwmon/hwmon*", "hwmon/hwmon*"),
    "iio": ("bus/iio/devices/iio:device*", "iio:device*"),
}
# What a file stands for and the factor to the base unit: the kernel counts in thousandths, pressure in kPa.
_FILES: Final = {
    "hwmon": {"temperature": ("temp1", 1e-3), "relative_humidity": ("humidity1", 1e-3)},
    "iio": {
        "temperature": ("in_temp", 1e-3),
        "relative_humidity": ("in_humidityrelative", 1e-3),
        "pressure": ("in_pressure", 1e3),
    },
}
_REASONS: Final = {
    errno.ENOENT: NOTHING_THERE,
    errno.ENODEV: NOTHING_THERE,
    errno.ENXIO: NOTHING_THERE,
    errno.EREMOTEIO: NOTHING_THERE,
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.ETIMEDOUT: TIMEOUT,
    errno.EAGAIN: SENTINEL,
    errno.ENODATA: SENTINEL,
}


class KernelSection(BusSection):
    """The sensors that the kernel reads."""


class KernelDevice(DeviceSection):
    """A sensor that has a kernel driver; `profile` is `hwmon` or `iio`."""

    every: Duration = Field(default=10.0, gt=0, description="How often it is read.")
    chip: str = Field(
        description="The driver's name (`sht4x`), or a folder if there are two: `/sys/bus/i2c/devices/1-0044`."
    )
    quantities: list[Literal["temperature", "relative_humidity", "pressure"]] = Field(
        default=["temperature", "relative_humidity"], min_length=1, description="What it measures."
    )
    dew_point: bool = Field(
        default=False, description="Also give dew point and absolute humidity, from temperature and humidity."
    )


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """``hwmon`` or ``iio``, and what is read of it."""

    name: str
    quantities: Mapping[str, Quantity]


class KernelSensors:
    """A :class:`~edge_agent.contracts.Bus` whose wire the kernel has; there is nothing to open."""

    Settings = KernelSection
    DeviceSettings = KernelDevice

    def __init__(self, name: str, settings: Any, clock: Clock) -> None:  # noqa: ARG002 - the contract of a bus
        self.name = name

    @classmethod
    def profile(cls, settings: Any, folder: Path) -> KernelProfile:  # noqa: ARG003 - there are no profile files
        """Raises ProfileError when the kernel interface has no file for a quantity."""
        if settings.profile not in _FILES:
            raise ProfileError(
                f"there is no profile {settings.profile!r} on a kernel-sensor bus{nearest(settings.profile, _FILES)}",
                hint="hwmon or iio",
            )
        names: list[str] = [*settings.quantities, *(DERIVED if settings.dew_point else ())]
        if missing := [name for name in settings.quantities if name not in _FILES[settings.profile]]:
            raise ProfileError(f"quantities: {settings.profile} has no {', '.join(missing)}")
        return KernelProfile(settings.profile, {name: QUANTITIES[name] for name in names})

    def device(self, name: str, settings: Any, profile: KernelProfile) -> KernelSensor:
        """No I/O."""
        return KernelSensor(name, settings, profile)

    def open(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""


class KernelSensor:
    """One chip; its folder is looked up anew each time, as the kernel numbers it anew when it returns."""

    def __init__(self, name: str, settings: KernelDevice, profile: KernelProfile) -> None:
        self.name = name
        self.quantities = profile.quantities
        self.groups: Mapping[str, float] = {"": settings.every}
        self._settings = settings
        self._interface = profile.name

    def read(self, due: frozenset[str]) -> Sample:  # noqa: ARG002 - a sensor has one group
        """Read every file; raises DeviceError when the chip is not there, or none could be read."""
        folder = self._folder()
        values: dict[str, float] = {}
        absent: dict[str, str] = {}
        failures = []
        for name in self._settings.quantities:
            stem, factor = _FILES[self._interface][name]
            try:
                value = _number(folder, stem) * factor
            except DeviceError as error:
                failures.append(error)
                absent[name] = error.reason
                continue
            if _is_possible(self.quantities[name], value):
                values[name] = value
            else:
                absent[name] = OUT_OF_RANGE
        if len(failures) == len(self._settings.quantities):
            raise failures[0]
        if self._settings.dew_point:
            derive(values, absent)
        return Sample({name: round(value, 3) for name, value in values.items()}, absent)

    def probe(self) -> None:
        """Look whether the chip is there; raises DeviceError."""
        self._folder()

    def _folder(self) -> Path:
        chip = self._settings.chip
        found = sorted(_folders(self._interface, chip))
        if len(found) == 1:
            return found[0]
        if found:
            raise DeviceError(
                WRONG_REPLY,
                f"there are {len(found)} {chip!r} in {self._interface}",
                hint=f"give `chip` the folder of one: {', '.join(str(path.resolve()) for path in found)}",
            )
        raise DeviceError(
            NOTHING_THERE,
            f"the kernel has no {chip!r} in {self._interface}",
            hint="load its driver (dtoverlay=i2c-sensor,… in config.txt), or use a bus of kind i2c",
        )


def _folders(interface: str, chip: str) -> Iterator[Path]:
    """The folders of an interface whose chip has this name, or those of one device."""
    everywhere, below = _FOLDERS[interface]
    if chip.startswith("/"):
        folder = Path(chip)
        yield from [folder] if (folder / "name").exists() and folder.match(Path(below).name) else folder.glob(below)
        return
    for folder in SYS.glob(everywhere):
        try:
            if (folder / "name").read_text().strip() == chip:
                yield folder
        except OSError:
            continue  # it went away while we looked


def _is_possible(quantity: Quantity, value: float) -> bool:
    low, high = quantity.low, quantity.high
    return low is not None and high is not None and low <= value <= high


def _number(folder: Path, stem: str) -> float:
    """The processed file if there is one, else raw, offset and scale; raises DeviceError."""
    whole = folder / f"{stem}_input"
    if whole.exists():
        return _read(whole)
    offset = folder / f"{stem}_offset"
    return (_read(folder / f"{stem}_raw") + (_read(offset) if offset.exists() else 0.0)) * _read(
        folder / f"{stem}_scale"
    )


def _read(path: Path) -> float:
    try:
        return float(path.read_text())
    except ValueError as error:
        raise DeviceError(NOT_A_NUMBER, f"{path}: {error}") from error
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, WRONG_REPLY)
        raise DeviceError(
            reason, f"{path}: {error.strerror}", hint="see `dmesg` for what the kernel driver says"
        ) from error
