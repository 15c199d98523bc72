"""Texas Instruments HDC1080, and HDC1008 and HDC1010 with address pins. Datasheet HDC1080 (SNAS672), section 8.6.

Address 0x40; ADR0 and ADR1 of the HDC1008 and HDC1010 give 0x40 to 0x43. No checksum: the chip says
who it is before every measurement.
"""

from __future__ import annotations

from dataclasses import replace

from drivers.sensors.part import Part, Wire, ask
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import OUT_OF_RANGE, WRONG_REPLY, Sample

_MANUFACTURER = b"\xfe"
_DEVICE = b"\xff"
_BOTH_14_BIT = b"\x02\x10\x00"  # configuration register: acquire both, 14 bits each, heater off
_TEMPERATURE = b"\x00"
_TI = 0x5449
_DEVICES = {0x1000: "HDC1008 or HDC1010", 0x1050: "HDC1080"}


def measure(wire: Wire, address: int) -> Sample:
    """Check who it is, set it up, then temperature and humidity in one go: 12.9 ms, 15 in practice."""
    if identify(wire, address) is None:
        raise DeviceError(
            WRONG_REPLY,
            f"what answers at 0x{address:02X} is no HDC1080",
            hint="HTU21D and Si7021 have the same address: name the right profile",
        )
    wire.write(address, _BOTH_14_BIT)
    return decode(ask(wire, address, _TEMPERATURE, 4, first_ms=15, budget_ms=40))


def decode(reply: bytes) -> Sample:
    """Two words of 14 bits; the two lowest bits are 0 unless nobody drives the line.

    All zeros is the end of the scale, and no value either.
    """
    t, rh = int.from_bytes(reply[:2], "big"), int.from_bytes(reply[2:], "big")
    if (t | rh) & 0x0003 or t == 0:
        raise DeviceError(OUT_OF_RANGE, f"the reading {reply.hex()} is no measurement", hint="is the sensor connected?")
    temperature = {"temperature": -40 + 165 * t / 65536}
    if rh == 0:
        return Sample(temperature, {"relative_humidity": OUT_OF_RANGE})
    return Sample({**temperature, "relative_humidity": 100 * rh / 65536}, {})


def identify(wire: Wire, address: int) -> str | None:
    """The manufacturer's and the device's ID."""
    maker = int.from_bytes(wire.write_read(address, _MANUFACTURER, 2), "big")
    device = int.from_bytes(wire.write_read(address, _DEVICE, 2), "big")
    if maker != _TI or device not in _DEVICES:
        return None
    return f"{_DEVICES[device]}: manufacturer 0x{maker:04X}, device 0x{device:04X}"


HDC1080 = Part(
    title="Texas Instruments HDC1080",
    addresses=(0x40,),
    ranges={"temperature": (-40, 125), "relative_humidity": (0, 100)},
    min_every_s=1.0,
    measure=measure,
    identify=identify,
)
HDC1008 = replace(HDC1080, title="Texas Instruments HDC1008, HDC1010", addresses=(0x40, 0x41, 0x42, 0x43))
