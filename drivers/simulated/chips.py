"""Twins of the sensor chips, at the level of what goes over the wire.

Written from the datasheets and apart from the drivers, so that a mistake in one shows against the other:
they compute checksums by polynomial division, invert the formulas, and take as long as the chip may.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from edge_agent.clock import Clock


class Air(NamedTuple):
    """What a sensor is in: °C, % and Pa."""

    temperature: float
    relative_humidity: float
    pressure: float


def no_acknowledge() -> OSError:
    """What the kernel says when nobody acknowledges."""
    return OSError(errno.EREMOTEIO, "Remote I/O error")


class Chip:
    """Something at an address. ``write`` and ``read`` raise OSError when it does not acknowledge.

    ``has_checksum``: a driver can tell that its answer was damaged on the way.
    """

    has_checksum: ClassVar = True

    def __init__(self, air: Callable[[], Air], clock: Clock) -> None:
        self.air = air
        self._clock = clock
        self._busy_until_ns = 0

    def work(self, milliseconds: float) -> None:
        """Be busy from now on for so long."""
        self._busy_until_ns = self._clock.mono_ns() + int(milliseconds * 1e6)

    @property
    def is_busy(self) -> bool:
        return self._clock.mono_ns() < self._busy_until_ns

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def read(self, n: int) -> bytes:
        raise NotImplementedError


class CommandChip(Chip):
    """Takes commands, works, and acknowledges no read before it has an answer."""

    _answer: bytes = b""

    def answer(self, command: bytes) -> tuple[float, bytes] | None:
        """Milliseconds of work, and what can be read then; None: no such command."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        known = None if self.is_busy else self.answer(data)
        if known is None:
            raise no_acknowledge()
        self.work(known[0])
        self._answer = known[1]

    def read(self, n: int) -> bytes:
        if self.is_busy or not self._answer:
            raise no_acknowledge()
        answer, self._answer = self._answer, b""
        return answer[:n].ljust(n, b"\xff")


def remainder(data: bytes, init: int) -> int:
    """CRC-8 of x⁸+x⁵+x⁴+1 as a long division of the whole message."""
    bits = 8 * len(data)
    rest = (int.from_bytes(data, "big") ^ init << bits - 8) << 8
    for shift in range(bits - 1, -1, -1):
        if rest >> shift + 8 & 1:
            rest ^= 0x131 << shift
    return rest


def word(value: float, init: int = 0xFF) -> bytes:
    """16 bits and their checksum; beyond the ends it stays at the end."""
    data = min(0xFFFF, max(0, round(value))).to_bytes(2, "big")
    return data + bytes([remainder(data, init)])


class Sht3x(CommandChip):
    def answer(self, command: bytes) -> tuple[float, bytes] | None:
        match command:
            case b"\x24\x00":
                t, rh, _ = self.air()
                return 15.5, word((t + 45) / 175 * 65535) + word(rh / 100 * 65535)
            case b"\xf3\x2d":
                return 0.5, word(0x8010)
        return None


class Hdc302x(Sht3x):
    def answer(self, command: bytes) -> tuple[float, bytes] | None:
        return (0.5, word(0x3000)) if command == b"\x37\x81" else super().answer(command)


class Sht4x(CommandChip):
    def answer(self, command: bytes) -> tuple[float, bytes] | None:
        match command:
            case b"\xfd":
                t, rh, _ = self.air()
                return 8.3, word((t + 45) / 175 * 65535) + word((rh + 6) / 125 * 65535)
            case b"\x89":
                return 0.5, word(0x0F4C) + word(0x1A2B)
        return None


class Shtc3(CommandChip):
    _awake = False

    def answer(self, command: bytes) -> tuple[float, bytes] | None:
        if command == b"\x35\x17":
            self._awake = True
            return 0.24, b""
        if not self._awake:
            return None
        match command:
            case b"\x78\x66":
                t, rh, _ = self.air()
                return 12.1, word((t + 45) / 175 * 65535) + word(rh / 100 * 65535)
            case b"\xef\xc8":
                return 0.1, word(0x0887)
            case b"\xb0\x98":
                self._awake = False
                return 0, b""
        return None


class Htu21d(CommandChip):
    times_ms: ClassVar = (50.0, 16.0)
    serial: ClassVar = bytes.fromhex("3200006900c5")
    register: ClassVar = b"\x02"

    def answer(self, command: bytes) -> tuple[float, bytes] | None:
        t, rh, _ = self.air()
        match command:
            case b"\xf3":
                return self.times_ms[0], word(round((t + 46.85) / 175.72 * 65536) & 0xFFFC, init=0)
            case b"\xf5":
                return self.times_ms[1], word(round((rh + 6) / 125 * 65536) & 0xFFFC | 2, init=0)
            case b"\xe7":
                return 0, self.register
            case b"\xfc\xc9":
                return 0, self.serial
        return None


class Si7021(Htu21d):
    times_ms = (10.8, 22.8)
    serial = bytes.fromhex("15ffffb5ffff")
    register = b"\x3a"


class Sht21(Htu21d):
    times_ms = (85.0, 29.0)
    serial = bytes.fromhex("000155a200aa")


class Aht20(Chip):
    """Reads always work; the busy bit says whether they are worth anything."""

    init: ClassVar = b"\xbe\x08\x00"
    _is_calibrated = False
    _measured = b"\x80\x00\x00\x00\x00"

    def write(self, data: bytes) -> None:
        if data == self.init:
            self._is_calibrated = True
            self.work(10)
        elif data == b"\xac\x33\x00":
            self.work(80)
            t, rh, _ = self.air()
            packed = min(0xFFFFF, round(rh / 100 * 2**20)) << 20 | round((t + 50) / 200 * 2**20)
            self._measured = packed.to_bytes(5, "big")
        else:
            raise no_acknowledge()

    def read(self, n: int) -> bytes:
        status = 0x10 | 0x08 * self._is_calibrated | 0x80 * self.is_busy
        reply = bytes([status]) + self._measured
        return (reply + bytes([remainder(reply, 0xFF) if self.has_checksum else 0xFF]))[:n]


class Aht10(Aht20):
    init = b"\xe1\x08\x00"
    has_checksum = False


class RegisterChip(Chip):
    """A pointer, and bytes that can be read from there on."""

    has_checksum = False
    _pointer = 0

    def __init__(self, air: Callable[[], Air], clock: Clock) -> None:
        super().__init__(air, clock)
        self.registers = bytearray(512)  # a read past the last one finds zeros

    def write(self, data: bytes) -> None:
        self._pointer = data[0]

    def read(self, n: int) -> bytes:
        return bytes(self.registers[self._pointer : self._pointer + n])


class Bmp280(RegisterChip):
    """Not measuring: the stranger at an address where something else belongs."""

    def __init__(self, air: Callable[[], Air], clock: Clock) -> None:
        super().__init__(air, clock)
        self.registers[0xD0] = 0x58
        self.registers[0xF7] = self.registers[0xFA] = 0x80


class Hdc1080(RegisterChip):
    device: ClassVar = 0x1050
    _mode = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        if data[0] == 0x02 and len(data) == 3:
            self._mode = data[1] & 0x10
        if data == b"\x00":
            self.work(12.85)

    def read(self, n: int) -> bytes:
        if self.is_busy:
            raise no_acknowledge()
        match self._pointer:
            case 0xFE:
                return b"\x54\x49"[:n]
            case 0xFF:
                return self.device.to_bytes(2, "big")[:n]
            case 0x00:
                t, rh, _ = self.air()
                both = round((t + 40) / 165 * 65536), min(0xFFFC, round(rh / 100 * 65536))
                reply = b"".join((raw & 0xFFFC).to_bytes(2, "big") for raw in both)
                return (reply if self._mode else reply[:2]).ljust(n, b"\xff")[:n]
        return super().read(n)


class Hdc1008(Hdc1080):
    device = 0x1000


class Am2320(CommandChip):
    """Sleeps; answers with what it measured after the question before."""

    _awake = False
    _previous: Air | None = None

    def answer(self, command: bytes) -> tuple[float, bytes] | None:
        if not self._awake:
            self._awake = True
            return None
        if command != b"\x03\x00\x04":
            return 0, b""
        self._awake = False
        t, rh, _ = self._previous or Air(0.0, 0.0, 0.0)
        self._previous = self.air()
        tenths = round(abs(t) * 10) | 0x8000 * (t < 0)
        reply = b"\x03\x04" + round(rh * 10).to_bytes(2, "big") + tenths.to_bytes(2, "big")
        return 1.5, reply + self._checksum(reply)

    @staticmethod
    def _checksum(data: bytes) -> bytes:
        """CRC-16 of x¹⁶+x¹⁵+x²+1, bits mirrored by hand, as a long division."""
        mirrored = int("".join(f"{byte:08b}"[::-1] for byte in data), 2)
        bits = 8 * len(data)
        rest = (mirrored ^ 0xFFFF << bits - 16) << 16
        for shift in range(bits - 1, -1, -1):
            if rest >> shift + 16 & 1:
                rest ^= 0x18005 << shift
        return int(f"{rest:016b}"[::-1], 2).to_bytes(2, "little")
