"""Bosch BME280. Datasheet BST-BME280-DS002, sections 4.2.3 and 5, appendix 8.1 (double precision).

Wiring: SDO to GND is 0x76, to VDD 0x77. No checksum: it says who it is, and its calibration, before every measurement.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from drivers.sensors.part import Part, Wire, clipped, poll
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import OUT_OF_RANGE, SENTINEL, WRONG_REPLY, Sample

_RELATIVES: Final = {0x58: "a BMP280, which has no humidity", 0x61: "a BME680"}
_HUMIDITY_ONCE: Final = b"\xf2\x01"  # takes effect with the next write to 0xF4, so it goes first
_ALL_ONCE: Final = b"\xf4\x25"  # temperature and pressure × 1, forced mode
_BUSY: Final = 0x09  # measuring, or copying its calibration


class Calibration(NamedTuple):
    """The trimming values dig_T1 to T3, P1 to P9, H1 to H6."""

    t: tuple[int, ...]
    p: tuple[int, ...]
    h: tuple[int, ...]


def measure(wire: Wire, address: int) -> Sample:
    """Check who it is, read its calibration, measure once: at most 1.25 + 2.3 + 2 × (2.3 + 0.575) = 9.3 ms."""
    if (chip := _chip(wire, address)) != 0x60:
        raise DeviceError(
            WRONG_REPLY,
            f"0x{address:02X} has chip ID 0x{chip:02X}: {_RELATIVES.get(chip, 'no BME280')}",
            hint="many boards sold as BME280 carry a BMP280" if chip in _RELATIVES else "is the sensor connected?",
        )
    calibration = unpack(wire.write_read(address, b"\x88", 26), wire.write_read(address, b"\xe1", 7))
    wire.write(address, _HUMIDITY_ONCE)
    wire.write(address, _ALL_ONCE)
    poll(wire, 9.3, 30, lambda: _when_idle(wire.write_read(address, b"\xf3", 1)))
    return decode(calibration, wire.write_read(address, b"\xf7", 8))


def unpack(low: bytes, high: bytes) -> Calibration:
    """From the 26 bytes at 0x88 and the 7 at 0xE1. H4 and H5 are signed and share a byte."""
    t_p = struct.unpack("<HhhHhhhhhhhh", low[:24])
    h2, h3, e4, e5, e6, h6 = struct.unpack("<hBbBbb", high)
    return Calibration(t_p[:3], t_p[3:], (low[25], h2, h3, e4 * 16 + (e5 & 0x0F), e6 * 16 + (e5 >> 4), h6))


def decode(calibration: Calibration, reply: bytes) -> Sample:
    """The 8 bytes at 0xF7. The ends of the scale are no values; neither is what the chip skipped."""
    packed = int.from_bytes(reply, "big")
    adc_p, adc_t, adc_h = packed >> 44, packed >> 20 & 0xFFFFF, packed & 0xFFFF
    if reason := _no_value(adc_t, 0x80000, 0xFFFFF):
        raise DeviceError(reason, f"the reading {reply.hex()} is no measurement", hint="is the sensor connected?")
    t_fine = fine_temperature(calibration, adc_t)
    values, absent = {"temperature": t_fine / 5120}, {}
    for name, adc, skipped, end, compensate in (
        ("relative_humidity", adc_h, 0x8000, 0xFFFF, humidity),
        ("pressure", adc_p, 0x80000, 0xFFFFF, pressure),
    ):
        if reason := _no_value(adc, skipped, end):
            absent[name] = reason
        else:
            values[name] = compensate(calibration, t_fine, adc)
    return Sample(values, absent)


def fine_temperature(calibration: Calibration, adc: int) -> float:
    """Temperature in 1/5120 °C, as the other two need it."""
    t1, t2, t3 = calibration.t
    return (adc / 16384 - t1 / 1024) * t2 + (adc / 131072 - t1 / 8192) ** 2 * t3


def pressure(calibration: Calibration, t_fine: float, adc: int) -> float:
    """In Pa."""
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = calibration.p
    x = t_fine / 2 - 64000
    offset = (x * x * p6 / 32768 + x * p5 * 2) / 4 + p4 * 65536
    slope = (1 + (p3 * x * x / 524288 + p2 * x) / 524288 / 32768) * p1
    if slope == 0:
        raise DeviceError(WRONG_REPLY, "the chip has no calibration")
    p = (1048576 - adc - offset / 4096) * 6250 / slope
    return p + (p9 * p * p / 2147483648 + p * p8 / 32768 + p7) / 16


def humidity(calibration: Calibration, t_fine: float, adc: int) -> float:
    """In %."""
    h1, h2, h3, h4, h5, h6 = calibration.h
    x = t_fine - 76800
    h = (adc - (h4 * 64 + h5 / 16384 * x)) * (h2 / 65536 * (1 + h6 / 67108864 * x * (1 + h3 / 67108864 * x)))
    return clipped(h * (1 - h1 * h / 524288))


def identify(wire: Wire, address: int) -> str | None:
    """The chip ID."""
    return "chip ID 0x60" if _chip(wire, address) == 0x60 else None


def _chip(wire: Wire, address: int) -> int:
    return wire.write_read(address, b"\xd0", 1)[0]


def _no_value(adc: int, skipped: int, end: int) -> str:
    return SENTINEL if adc == skipped else OUT_OF_RANGE if adc in (0, end) else ""


def _when_idle(status: bytes) -> bytes | None:
    return None if status[0] & _BUSY else status


BME280 = Part(
    title="Bosch BME280",
    addresses=(0x76, 0x77),
    ranges={"temperature": (-40, 85), "relative_humidity": (0, 100), "pressure": (30_000, 110_000)},
    min_every_s=1.0,
    measure=measure,
    identify=identify,
)
