"""I2C through the kernel's i2c-dev. The only file that knows smbus2.

Wiring on a Raspberry Pi: bus 1 is pin 3 (SDA) and pin 5 (SCL), 3.3 V; the board has the pull-ups.
Every exchange is one I2C_RDWR, so that nobody gets between a write and its read.
"""

from __future__ import annotations

import errno
import os
from fcntl import ioctl
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from smbus2 import I2cFunc, SMBus, i2c_msg

from drivers.sensors.bus import SensorBus
from edge_agent.clock import Clock
from edge_agent.errors import WireError
from edge_agent.settings import BusSection
from edge_agent.vocabulary import NOTHING_THERE, PERMISSION, WIRE

DEVICES: Final = Path("/dev")
_I2C_SLAVE: Final = 0x0703  # linux/i2c-dev.h

_HINTS: Final = {
    errno.ENOENT: "switch I2C on: `raspi-config nonint do_i2c 0`, or dtparam=i2c_arm=on in config.txt; then reboot",
    errno.EACCES: "let the user in: `usermod -aG i2c USER`, then log in anew",
    errno.EPERM: "the service may not open it: DeviceAllow=char-i2c rw",
    errno.ENOTTY: "that is no I2C device",
}


class I2cSection(BusSection):
    """An I2C bus of this computer."""

    number: int = Field(default=1, ge=0, le=255, description="N of /dev/i2c-N; 1 on the header of a Raspberry Pi.")


class I2cBus(SensorBus):
    """Sensors on /dev/i2c-N."""

    Settings = I2cSection

    def __init__(self, name: str, settings: Any, clock: Clock) -> None:
        super().__init__(name, settings, clock)
        self._path = DEVICES / f"i2c-{settings.number}"
        self._smbus: SMBus | None = None

    def open(self) -> None:
        """Open the device file; raises WireError. Harmless when already open."""
        if self._smbus is not None:
            return
        smbus = SMBus()
        try:
            smbus.open(str(self._path))
        except OSError as error:
            smbus.close()
            raise self._cannot_open(error) from error
        if not smbus.funcs & I2cFunc.I2C:
            smbus.close()
            raise WireError(WIRE, f"{self._path} is an SMBus adapter without plain I2C", hint="use another adapter")
        self._smbus = smbus

    def close(self) -> None:
        """Close it; harmless when closed."""
        if self._smbus is not None:
            self._smbus.close()
            self._smbus = None

    def _exchange(self, address: int, data: bytes, n: int) -> bytes:
        if self._smbus is None or self._smbus.fd is None:
            raise OSError(errno.EBADF, "not open")
        # I2C_RDWR itself does not mind a kernel driver at the address; I2C_SLAVE does, with EBUSY.
        ioctl(self._smbus.fd, _I2C_SLAVE, address)
        messages = [i2c_msg.write(address, data)] if data else []
        if n:
            messages.append(i2c_msg.read(address, n))
        self._smbus.i2c_rdwr(*messages)
        return bytes(messages[-1]) if n else b""

    def _cannot_open(self, error: OSError) -> WireError:
        code = error.errno or 0
        reason = {errno.ENOENT: NOTHING_THERE, errno.EACCES: PERMISSION, errno.EPERM: PERMISSION}.get(code, WIRE)
        return WireError(reason, f"{self._path}: {os.strerror(code)}", hint=_HINTS.get(code, ""))


def numbers() -> list[int]:
    """The buses that this computer has."""
    found = (path.name.removeprefix("i2c-") for path in DEVICES.glob("i2c-*"))
    return sorted(int(number) for number in found if number.isdigit())
