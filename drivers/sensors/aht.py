"""Aosong (ASAIR) AHT10 and AHT20, AHT21, AHT25. Datasheets AHT10 and AHT20, section "Sensor communication".

Address 0x38; an AHT10 with its address pin high is 0x39. The AHT10 has no checksum.
"""

from __future__ import annotations

from dataclasses import replace

from drivers.sensors.crc import check, crc8
from drivers.sensors.part import Part, Wire, poll
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import OUT_OF_RANGE, WRONG_REPLY, Sample

_TRIGGER = b"\xac\x33\x00"
_INIT_AHT10 = b"\xe1\x08\x00"
_INIT_AHT20 = b"\xbe\x08\x00"
_BUSY = 0x80
_CALIBRATED = 0x08
_ENDS = (0x00000, 0xFFFFF)


def measure_aht20(wire: Wire, address: int) -> Sample:
    """One measurement with its checksum: 80 ms."""
    reply = _answer(wire, address, _INIT_AHT20, 7)
    check(crc8(reply[:6], 0xFF), reply[6])
    t, rh = _raw(reply)
    return Sample({"temperature": _celsius(t), "relative_humidity": _percent(rh)}, {})


def measure_aht10(wire: Wire, address: int) -> Sample:
    """One measurement: 80 ms. Nothing but the ends of the scale shows that a line is dead."""
    t, rh = _raw(_answer(wire, address, _INIT_AHT10, 6))
    if t in _ENDS:
        raise DeviceError(OUT_OF_RANGE, "the reading is at the very end of the scale", hint="is the sensor connected?")
    if rh in _ENDS:
        return Sample({"temperature": _celsius(t)}, {"relative_humidity": OUT_OF_RANGE})
    return Sample({"temperature": _celsius(t), "relative_humidity": _percent(rh)}, {})


def identify_aht10(wire: Wire, address: int) -> str | None:
    """The status byte, and no checksum behind the last measurement: weak evidence."""
    reply = _at_rest(wire, address)
    if reply is None or crc8(reply[:6], 0xFF) == reply[6]:
        return None
    return f"status 0x{reply[0]:02X} and no checksum, like an AHT10"


def identify_aht20(wire: Wire, address: int) -> str | None:
    """The status byte, and the checksum of the last measurement."""
    reply = _at_rest(wire, address)
    if reply is None or crc8(reply[:6], 0xFF) != reply[6]:
        return None
    return f"status 0x{reply[0]:02X} and a good checksum"


def _answer(wire: Wire, address: int, init: bytes, n: int) -> bytes:
    """Make sure that it is calibrated, trigger, wait while its busy bit is set."""
    if not wire.read(address, 1)[0] & _CALIBRATED:
        wire.write(address, init)
        wire.wait_ms(10)
        if not wire.read(address, 1)[0] & _CALIBRATED:
            raise DeviceError(WRONG_REPLY, "it does not calibrate itself", hint="is it an AHT10 or AHT20 at all?")
    wire.write(address, _TRIGGER)

    def look() -> bytes | None:
        reply = wire.read(address, n)
        return None if reply[0] & _BUSY else reply

    return poll(wire, 80, 120, look)


def _raw(reply: bytes) -> tuple[int, int]:
    """Status, 20 bits of humidity, 20 bits of temperature."""
    packed = int.from_bytes(reply[1:6], "big")
    return packed & 0xFFFFF, packed >> 20


def _celsius(raw: int) -> float:
    return -50 + 200 * raw / 2**20


def _percent(raw: int) -> float:
    return 100 * raw / 2**20


def _at_rest(wire: Wire, address: int) -> bytes | None:
    """By reading only: an I/O expander (PCF8574A) here would take a write as its outputs. It repeats one byte."""
    reply = wire.read(address, 7)
    return reply if len(set(reply)) > 1 and reply[0] & (_BUSY | _CALIBRATED) == _CALIBRATED else None


AHT20 = Part(
    title="Aosong AHT20, AHT21, AHT25",
    addresses=(0x38,),
    ranges={"temperature": (-40, 85), "relative_humidity": (0, 100)},
    min_every_s=2.0,
    measure=measure_aht20,
    identify=identify_aht20,
)
AHT10 = replace(AHT20, title="Aosong AHT10", addresses=(0x38, 0x39), measure=measure_aht10, identify=identify_aht10)
