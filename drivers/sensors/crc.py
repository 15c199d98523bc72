"""The checksums of sensors."""

from __future__ import annotations

from edge_agent.errors import DeviceError
from edge_agent.vocabulary import CRC


def crc8(data: bytes, init: int) -> int:
    """CRC-8 with polynomial 0x31, not reflected: every Sensirion, TI and Aosong part, init 0xFF or 0x00."""
    crc = init
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) ^ 0x131 if crc & 0x80 else crc << 1
    return crc


def crc16_modbus(data: bytes) -> int:
    """CRC-16 with polynomial 0x8005 reflected, init 0xFFFF; goes over the wire low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def check(computed: int, received: int) -> None:
    """Raises DeviceError (``crc``) unless both are the same."""
    if computed != received:
        raise DeviceError(
            CRC,
            f"checksum 0x{received:02X}, expected 0x{computed:02X}",
            hint="a long or disturbed cable, missing pull-ups, or another kind of sensor",
        )


def words(reply: bytes, init: int = 0xFF) -> list[int]:
    """Big-endian 16-bit words, each followed by its CRC-8; raises DeviceError (``crc``)."""
    for start in range(0, len(reply), 3):
        check(crc8(reply[start : start + 2], init), reply[start + 2])
    return [int.from_bytes(reply[start : start + 2], "big") for start in range(0, len(reply), 3)]
