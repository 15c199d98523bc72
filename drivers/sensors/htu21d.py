"""HTU21D (TE), Si7020 and Si7021 (Silicon Labs), SHT20, SHT21, SHT25 (Sensirion): one protocol.

Datasheets HTU21D(F) and Si7021-A20, command tables. Address 0x40, always. They differ in speed only:
the measurement is polled from the time of the fastest to beyond that of the slowest.
"""

from __future__ import annotations

from drivers.sensors.crc import words
from drivers.sensors.part import Part, Wire, ask, clipped
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import OUT_OF_RANGE, Sample

_TEMPERATURE = b"\xf3"  # no hold: no clock stretching
_HUMIDITY = b"\xf5"
_USER_REGISTER = b"\xe7"
_SERIAL = b"\xfc\xc9"
_CHIPS = {0x0D: "Si7013", 0x14: "Si7020", 0x15: "Si7021", 0x32: "HTU21D"}


def measure(wire: Wire, address: int) -> Sample:
    """Temperature (11 to 85 ms), then humidity (16 to 29 ms)."""
    t = _raw(ask(wire, address, _TEMPERATURE, 3, first_ms=11, budget_ms=100))
    rh = _raw(ask(wire, address, _HUMIDITY, 3, first_ms=16, budget_ms=50))
    return Sample({"temperature": -46.85 + 175.72 * t / 65536, "relative_humidity": clipped(-6 + 125 * rh / 65536)}, {})


def identify(wire: Wire, address: int) -> str | None:
    """A temperature with its checksum, then the chip by its serial number.

    Until the checksum was right only single bytes are written: for a register chip at this address
    (PCA9685, INA219) they set a pointer and change nothing.
    """
    ask(wire, address, _USER_REGISTER, 1, first_ms=1, budget_ms=10)
    _raw(ask(wire, address, _TEMPERATURE, 3, first_ms=11, budget_ms=100))
    serial = wire.write_read(address, _SERIAL, 6)
    chip = _CHIPS.get(serial[0], f"its like (serial number {serial.hex()})")
    return f"{chip}, temperature with a good checksum"


def _raw(reply: bytes) -> int:
    """The measurement without its two status bits.

    The checksum begins with 0x00, so a dead bus that reads 00 00 00 passes it: the end of the scale,
    which is out of the chip's range anyway, is no value.
    """
    (word,) = words(reply, init=0x00)
    raw = word & 0xFFFC
    if raw == 0:
        raise DeviceError(OUT_OF_RANGE, "the reading is at the very end of the scale", hint="is the sensor connected?")
    return raw


HTU21D = Part(
    title="HTU21D, Si7020, Si7021, SHT20, SHT21, SHT25",
    addresses=(0x40,),
    ranges={"temperature": (-40, 125), "relative_humidity": (0, 100)},
    min_every_s=1.0,
    measure=measure,
    identify=identify,
)
