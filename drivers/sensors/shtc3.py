"""Sensirion SHTC3. Datasheet SHTC3, sections 5.2 to 5.10. Address 0x70, always."""

from __future__ import annotations

from drivers.sensors.crc import words
from drivers.sensors.part import Part, Wire, ask
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import NOTHING_THERE, Sample

_WAKE = b"\x35\x17"
_SLEEP = b"\xb0\x98"
_MEASURE = b"\x78\x66"  # temperature first, normal power, no clock stretching
_ID = b"\xef\xc8"
_WAKE_MS = 1.0  # 0.24 ms by the datasheet


def measure(wire: Wire, address: int) -> Sample:
    """Wake it, measure (at most 12.1 ms), send it back to sleep."""
    wire.write(address, _WAKE)
    wire.wait_ms(_WAKE_MS)
    t, rh = words(ask(wire, address, _MEASURE, 6, first_ms=13, budget_ms=30))
    wire.write(address, _SLEEP)
    return Sample({"temperature": -45 + 175 * t / 65535, "relative_humidity": 100 * rh / 65535}, {})


def identify(wire: Wire, address: int) -> str | None:
    """The ID register: bits 11 and 5 to 0 are 0x0807.

    An SHTC3 does not acknowledge a read that nothing asked for. A bus multiplexer (TCA9548A), which
    has the same address and would switch channels when written to, does: it is left alone.
    """
    try:
        wire.read(address, 1)
    except DeviceError as error:
        if error.reason != NOTHING_THERE:
            raise
    else:
        return None
    wire.write(address, _WAKE)
    wire.wait_ms(_WAKE_MS)
    (chip,) = words(ask(wire, address, _ID, 3, first_ms=1, budget_ms=10))
    wire.write(address, _SLEEP)
    return f"chip ID 0x{chip:04X}" if chip & 0x083F == 0x0807 else None


SHTC3 = Part(
    title="Sensirion SHTC3",
    addresses=(0x70,),
    ranges={"temperature": (-40, 125), "relative_humidity": (0, 100)},
    min_every_s=0.5,
    measure=measure,
    identify=identify,
)
