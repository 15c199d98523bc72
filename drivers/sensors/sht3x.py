"""Sensirion SHT30, SHT31, SHT35. Datasheet SHT3x-DIS, sections 4.3 to 4.12.

Wiring: ADDR to GND is 0x44 (default on most boards), ADDR to VDD is 0x45.
"""

from __future__ import annotations

from drivers.sensors.crc import words
from drivers.sensors.part import Part, Wire, ask
from edge_agent.vocabulary import Sample

_SINGLE_SHOT = b"\x24\x00"  # high repeatability, no clock stretching
_STATUS = b"\xf3\x2d"


def measure(wire: Wire, address: int) -> Sample:
    """One single-shot measurement: at most 15.5 ms."""
    t, rh = words(ask(wire, address, _SINGLE_SHOT, 6, first_ms=16, budget_ms=30))
    return Sample({"temperature": -45 + 175 * t / 65535, "relative_humidity": 100 * rh / 65535}, {})


def identify(wire: Wire, address: int) -> str | None:
    """The status register with its checksum."""
    (status,) = words(ask(wire, address, _STATUS, 3, first_ms=1, budget_ms=10))
    return f"status register 0x{status:04X} with a good checksum"


SHT3X = Part(
    title="Sensirion SHT30, SHT31, SHT35",
    addresses=(0x44, 0x45),
    ranges={"temperature": (-40, 125), "relative_humidity": (0, 100)},
    min_every_s=0.5,
    measure=measure,
    identify=identify,
)
