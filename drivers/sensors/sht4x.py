"""Sensirion SHT40, SHT41, SHT45. Datasheet SHT4x, sections 4.1 to 4.9.

Wiring: the address is part of the ordering code: SHT4x-A 0x44, -B 0x45, -C 0x46.
"""

from __future__ import annotations

from drivers.sensors.crc import words
from drivers.sensors.part import Part, Wire, ask, clipped
from edge_agent.vocabulary import Sample

_MEASURE = b"\xfd"  # high precision, no heater
_SERIAL = b"\x89"


def measure(wire: Wire, address: int) -> Sample:
    """One measurement: at most 8.3 ms. Humidity goes from -6 to 119 % by the formula and is clipped."""
    t, rh = words(ask(wire, address, _MEASURE, 6, first_ms=9, budget_ms=25))
    return Sample({"temperature": -45 + 175 * t / 65535, "relative_humidity": clipped(-6 + 125 * rh / 65535)}, {})


def identify(wire: Wire, address: int) -> str | None:
    """The serial number, both words with their checksums."""
    high, low = words(ask(wire, address, _SERIAL, 6, first_ms=1, budget_ms=10))
    return f"serial number {high:04X}{low:04X} with good checksums"


SHT4X = Part(
    title="Sensirion SHT40, SHT41, SHT45",
    addresses=(0x44, 0x45, 0x46),
    ranges={"temperature": (-40, 125), "relative_humidity": (0, 100)},
    min_every_s=2.0,
    measure=measure,
    identify=identify,
)
