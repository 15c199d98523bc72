"""What is odd about single quantities, as events of the readings that show it: see :mod:`models.sanity`."""

from __future__ import annotations

from collections.abc import Iterable

from edge_agent.clock import NS, iso
from edge_agent.vocabulary import Reading
from models.sanity import Sanity


class Oddities:
    """Of one device; called from the thread of its bus only."""

    def __init__(self, quantities: Iterable[str]) -> None:
        self._sanity = Sanity(quantities)

    def note(self, reading: Reading) -> None:
        """Add to the reading's events what began or ended with it."""
        at = reading.at
        changes = self._sanity.step(reading.values, at.mono_ns / NS, at.wall_ms / 1000)
        if changes:
            reading.events += tuple(
                {
                    "event": change.kind,
                    "quantity": change.quantity,
                    "state": "began" if change.began else "ended",
                    "since": iso(at.wall_ms - int((at.mono_ns / NS - change.since_s) * 1000)),
                }
                for change in changes
            )
