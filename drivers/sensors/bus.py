"""What every I2C bus does alike, real or simulated: devices, words for errors, waiting."""

from __future__ import annotations

import errno
from pathlib import Path
from threading import Event
from typing import Any, Final

from drivers.sensors.device import I2cDevice, I2cSensor, SensorProfile, sensor_profile
from edge_agent.clock import Clock
from edge_agent.errors import DeviceError, ProfileError, WireError
from edge_agent.settings import Section
from edge_agent.vocabulary import BUSY, NOTHING_THERE, WIRE

_NOBODY: Final = {errno.ENXIO, errno.EREMOTEIO}
_STUCK: Final = {errno.EIO, errno.ETIMEDOUT, errno.EAGAIN}
_GONE: Final = {errno.ENODEV, errno.EBADF, errno.ENOENT}


class SensorBus:
    """A :class:`~edge_agent.contracts.Bus` and the :class:`~drivers.sensors.part.Wire` of its sensors.

    A subclass opens and closes it and moves the bytes (``_exchange``), failing with the errno that
    the kernel's i2c-dev gives.
    """

    Settings: type[Section]
    DeviceSettings: type[Section] = I2cDevice

    def __init__(self, name: str, settings: Any, clock: Clock) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock
        self._no_stop = Event()  # a part's wait is bounded by tens of milliseconds
        self._devices: dict[int, str] = {}
        self._silent: set[int] = set()  # addresses that found the bus stuck, since anybody did not

    @classmethod
    def profile(cls, settings: Any, folder: Path) -> SensorProfile:  # noqa: ARG003 - sensors have no profile files
        """The sensor that the settings name; raises ProfileError."""
        return sensor_profile(settings)

    def device(self, name: str, settings: Any, profile: SensorProfile) -> I2cSensor:
        """Bind a sensor to its address; raises ProfileError when that is taken."""
        other = self._devices.setdefault(profile.address, name)
        if other != name:
            raise ProfileError(f"{name} and {other} both have address 0x{profile.address:02x} on {self.name}")
        return I2cSensor(name, self, self._clock, settings, profile)

    def write(self, address: int, data: bytes) -> None:
        """One write transaction."""
        self._transfer(address, data, 0)

    def read(self, address: int, n: int) -> bytes:
        """One read transaction of ``n`` bytes."""
        return self._transfer(address, b"", n)

    def write_read(self, address: int, data: bytes, n: int) -> bytes:
        """Write, then read after a repeated start."""
        return self._transfer(address, data, n)

    def wait_ms(self, milliseconds: float) -> None:
        """Let a part work."""
        self._clock.wait(self._no_stop, milliseconds / 1000)

    def _exchange(self, address: int, data: bytes, n: int) -> bytes:
        """Write ``data`` if there is any, then read ``n`` bytes if any; raises OSError."""
        raise NotImplementedError

    def _transfer(self, address: int, data: bytes, n: int) -> bytes:
        try:
            answer = self._exchange(address, data, n)
        except OSError as error:
            raise self._failure(address, error) from error
        self._silent.clear()
        return answer

    def _failure(self, address: int, error: OSError) -> DeviceError:
        if error.errno in _GONE:
            return WireError(WIRE, f"{self.name} is gone: {error.strerror}", hint="is the adapter still plugged in?")
        if error.errno in _STUCK:
            return self._stuck(address, error)
        self._silent.clear()
        if error.errno in _NOBODY:
            return DeviceError(
                NOTHING_THERE,
                f"nothing answers at 0x{address:02X} on {self.name}",
                hint="check power, SDA and SCL, and the sensor's address pin",
            )
        if error.errno == errno.EBUSY:
            return DeviceError(
                BUSY,
                f"a kernel driver owns 0x{address:02X} on {self.name}",
                hint="read it through a bus of kind kernel-sensor, or unbind the driver",
            )
        return DeviceError(WIRE, f"0x{address:02X} on {self.name}: {error.strerror or error}")

    def _stuck(self, address: int, error: OSError) -> DeviceError:
        """One sensor that hangs is its own fault; the bus is stuck when others find it so too."""
        self._silent.add(address)
        everybody = len(self._silent) >= min(2, len(self._devices))
        return (WireError if everybody else DeviceError)(
            WIRE,
            f"{self.name} is stuck: {error.strerror}",
            hint="a sensor holds SDA or SCL low: look for a short, check the pull-ups, switch the sensors off and on",
        )
