"""Texas Instruments HDC3020, HDC3021, HDC3022. Datasheet HDC302x (SNAS778), section 8.5.

Wiring: ADDR and ADDR1 to GND is 0x44; the other combinations are 0x45, 0x46 and 0x47.
"""

from __future__ import annotations

from drivers.sensors.crc import words
from drivers.sensors.part import Part, Wire, ask
from edge_agent.vocabulary import Sample

_ON_DEMAND = b"\x24\x00"  # lowest noise
_MANUFACTURER = b"\x37\x81"


def measure(wire: Wire, address: int) -> Sample:
    """One measurement on demand: about 14 ms, and no acknowledge until then."""
    t, rh = words(ask(wire, address, _ON_DEMAND, 6, first_ms=15, budget_ms=40))
    return Sample({"temperature": -45 + 175 * t / 65535, "relative_humidity": 100 * rh / 65535}, {})


def identify(wire: Wire, address: int) -> str | None:
    """The manufacturer's ID with its checksum: 0x3000."""
    (maker,) = words(ask(wire, address, _MANUFACTURER, 3, first_ms=1, budget_ms=10))
    return f"manufacturer ID 0x{maker:04X} with a good checksum" if maker == 0x3000 else None


HDC302X = Part(
    title="Texas Instruments HDC3020, HDC3021, HDC3022",
    addresses=(0x44, 0x45, 0x46, 0x47),
    ranges={"temperature": (-40, 125), "relative_humidity": (0, 100)},
    min_every_s=0.5,
    measure=measure,
    identify=identify,
)
