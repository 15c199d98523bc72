"""A twin of the Bosch BME280: registers, timing, and raw values found by its integer formulas.

The formulas are the 32- and 64-bit integer ones of datasheet BST-BME280-DS002, section 4.2.3; the
driver uses the floating-point ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from drivers.simulated.chips import Air, RegisterChip
from edge_agent.clock import Clock

T: Final = (27504, 26435, -1000)
P: Final = (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
H: Final = (75, 362, 0, 321, -15, 30)  # H5 below 0: its sign is easily lost


class Bme280(RegisterChip):
    """Measures once when told to; humidity only as set up before that."""

    _humidity_on = False

    def __init__(self, air: Callable[[], Air], clock: Clock) -> None:
        super().__init__(air, clock)
        h1, h2, h3, h4, h5, h6 = H
        self.registers[0x88:0xA0] = struct.pack("<HhhHhhhhhhhh", *T, *P)
        self.registers[0xA1] = h1
        self.registers[0xD0] = 0x60
        packed = (h4 & 0xFFF) << 12 | (h5 & 0xFFF)  # E4 E5.low | E5.high E6, twelve bits each
        e4, e5, e6 = packed >> 16, (packed >> 12 & 0x0F) | (packed & 0x0F) << 4, packed >> 4 & 0xFF
        self.registers[0xE1:0xE8] = struct.pack("<hBBBBb", h2, h3, e4, e5, e6, h6)
        self.registers[0xF7:0xFF] = bytes.fromhex("8000008000008000")

    def write(self, data: bytes) -> None:
        super().write(data)
        if data[0] == 0xF2:
            self.registers[0xF2] = data[1] & 0x07
        if data[0] == 0xF4 and data[1] & 0x03 == 0x01:
            self._measure(data[1])

    def read(self, n: int) -> bytes:
        self.registers[0xF3] = 0x08 * self.is_busy
        return super().read(n)

    def _measure(self, control: int) -> None:
        air = self.air()
        adc_t = _search(fine, air.temperature * 5120, 20)
        t_fine = fine(adc_t)
        adc_p = _search(lambda adc: -pressure(t_fine, adc), -air.pressure, 20) if control >> 2 & 7 else 0x80000
        adc_h = (
            _search(lambda adc: humidity(t_fine, adc), air.relative_humidity, 16) if self.registers[0xF2] else 0x8000
        )
        self.registers[0xF7:0xFF] = (adc_p << 44 | adc_t << 20 | adc_h).to_bytes(8, "big")
        self.work(9.3)


def fine(adc: int) -> int:
    """Temperature in 1/5120 °C."""
    a = adc // 8 - T[0] * 2
    b = adc // 16 - T[0]
    return (a * T[1] >> 11) + ((b * b >> 12) * T[2] >> 14)


def pressure(t_fine: int, adc: int) -> float:
    """In Pa."""
    x = t_fine - 128000
    offset = x * x * P[5] + (x * P[4] << 17) + (P[3] << 35)
    slope = ((1 << 47) + ((x * x * P[2] >> 8) + (x * P[1] << 12))) * P[0] >> 33
    p = ((1048576 - adc << 31) - offset) * 3125 // slope
    return ((p + (P[8] * (p >> 13) * (p >> 13) >> 25) + (P[7] * p >> 19) >> 8) + (P[6] << 4)) / 256


def humidity(t_fine: int, adc: int) -> float:
    """In %, not yet clipped to 0..100."""
    h1, h2, h3, h4, h5, h6 = H
    x = t_fine - 76800
    a = (adc << 14) - (h4 << 20) - h5 * x + 16384 >> 15
    b = ((x * h6 >> 10) * ((x * h3 >> 11) + 32768) >> 10) + 2097152
    v = a * (b * h2 + 8192 >> 14)
    v -= ((v >> 15) * (v >> 15) >> 7) * h1 >> 4
    return (v >> 12) / 1024


def _search(value: Callable[[int], float], wanted: float, bits: int) -> int:
    """The raw value whose (rising) result comes nearest to what is wanted."""
    low, high = 1, (1 << bits) - 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle) <= wanted else (low, middle)
    return min((low, high), key=lambda adc: abs(value(adc) - wanted))
