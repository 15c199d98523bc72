"""Counts that survive: what a meter counted while nobody looked, and what its counter went through.

A count is followed by its last believed value, over restarts by a *mark* on the disk. What was used between two
values that are far apart in time belongs to the gap between them, which an event names; a counter that was reset,
rolled over, or belongs to another meter now is an event too. Energy is never negative.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import ceil, inf, isnan, log10, nan
from typing import Any, Final, NamedTuple

from edge_agent.clock import NS, Stamp, iso
from edge_agent.vocabulary import COUNTER_BACKWARDS, SLEW, Origin, Quantity

GAP: Final = "energy-gap"
RESET: Final = "counter-reset"
ROLLOVER: Final = "counter-rollover"
JUMP: Final = "counter-jump"
SWAP: Final = "meter-swap"
RESTART: Final = "counter-restart"

_NOISE: Final = 1e-6  # relative; a float32 counter may step back by its own rounding
_NEARLY_FULL: Final = 0.9  # of what the register holds: from here on a fall may be a roll-over
_DISPLAY_FULL: Final = 0.999  # the same of a display: so near to a power of ten no reset happens by chance
_JUST_BEGUN: Final = 0.002  # and so little was counted over it
_SMALLEST_DISPLAY: Final = 1e7  # Wh: no meter begins again before 9999.99 kWh
_NOTHING: Final = -1.0
_DECIMALS: Final = 6

Event = dict[str, Any]


class Mark(NamedTuple):
    """A believed count, as it is kept: when that was by which clock, and who counted."""

    value: float
    wall_ms: int
    synced: bool
    origin: Origin | None


MarkRow = tuple[str, str, Mark]
"""Device, quantity, mark."""


class Count:
    """One counter of one device.

    Whoever follows it may take a value as it is (``value = …; at = …``) where it rose by 0 to ``easy`` within
    ``quiet_ns``; anything else goes through :meth:`follow`. ``value`` is NaN before the first.
    """

    __slots__ = (
        "_origin",
        "_rate",
        "_restored",
        "_span",
        "_step",
        "_suspect",
        "at",
        "easy",
        "name",
        "quiet_ns",
        "value",
    )

    def __init__(self, quantity: Quantity, quiet_ns: int, mark: Mark | None = None) -> None:
        self.name = quantity.name
        self.quiet_ns = quiet_ns
        self._rate = inf if quantity.slew is None else quantity.slew
        self._step = quantity.step
        self._span = quantity.wraps
        self.value = nan if mark is None else mark.value
        self.at = Stamp(0, 0, synced=False) if mark is None else Stamp(0, mark.wall_ms, mark.synced)
        self.easy = _NOTHING
        self._origin = None if mark is None else mark.origin
        self._restored = mark is not None
        self._suspect: tuple[float, int] | None = None  # value, mono_ns

    def mark(self) -> Mark | None:
        """To go on from later; None before the first value."""
        return None if isnan(self.value) else Mark(self.value, self.at.wall_ms, self.at.synced, self._origin)

    def look_closely(self) -> None:
        """The next value goes through :meth:`follow`: another meter may have counted it."""
        self.easy = _NOTHING

    def follow(self, value: float, at: Stamp, origin: Origin | None) -> tuple[str | None, Event | None]:
        """Why the value is not believed, or None; and what happened, if anything did."""
        before = self.value
        if isnan(before):
            return self._believe(value, at, origin)
        if (changed := self._changed(origin)) is not None:
            return self._believe(value, at, origin, {**changed, "before": before, "after": value})
        elapsed_s = self._elapsed_s(at)
        rise, allowed = value - before, self._most(elapsed_s or 0.0)
        if -abs(before) * _NOISE <= rise <= allowed:
            return self._believe(max(value, before), at, origin, self._gap(rise, at))
        if not self._is_repeated(value, at):
            # Once may be a bad frame that looked good; the second one in a row is a fact.
            self._suspect = (value, at.mono_ns)
            self.easy = _NOTHING
            return (COUNTER_BACKWARDS if rise < 0 else SLEW), None
        return self._believe(value, at, origin, self._explained(value, at, inf if elapsed_s is None else allowed))

    def _believe(
        self, value: float, at: Stamp, origin: Origin | None, event: Event | None = None
    ) -> tuple[None, Event | None]:
        self.value, self.at = value, at
        self._origin = _joined(self._origin, origin)
        self._restored = False
        self._suspect = None
        self.easy = self._most(1.0)
        return None, event

    def _changed(self, origin: Origin | None) -> Event | None:
        """Whether it is another count now: of another meter, or read by another table or ratio."""
        known = self._origin
        if origin is None or known is None:
            return None
        if origin.serial and known.serial and origin.serial != known.serial:
            return self._event(SWAP, serial_before=known.serial, serial_after=origin.serial)
        if origin.basis != known.basis:
            return self._event(RESTART, basis_before=known.basis, basis_after=origin.basis)
        return None

    def _explained(self, value: float, at: Stamp, allowed: float) -> Event | None:
        """What a value that stands where it cannot have come to by counting tells."""
        before = self.value
        ends = {"before": before, "after": value}
        if value >= before:
            return self._gap(value - before, at) if allowed == inf else self._event(JUMP, **ends)
        span = self._rolled(value, allowed)
        if span is not None:
            return self._event(ROLLOVER, **ends, amount=round(span - before + value, _DECIMALS), **self._hole(at))
        return self._event(RESET, **ends, **self._hole(at))

    def _rolled(self, value: float, allowed: float) -> float | None:
        """What the counter holds, if it was nearly full before and has begun again; None if it has not.

        Either its register was full, or its display: at a power of ten of its own steps.
        """
        before, span = self.value, self._span
        if span is not None and _NEARLY_FULL * span <= before <= span and span - before + value <= allowed:
            return span
        unit = self._step or 1.0
        shown = unit * 10.0 ** ceil(log10(max(before / unit, 1.0)))
        is_full = shown >= _SMALLEST_DISPLAY and before >= _DISPLAY_FULL * shown
        return shown if is_full and shown - before + value <= min(allowed, _JUST_BEGUN * shown) else None

    def _gap(self, rise: float, at: Stamp) -> Event | None:
        hole = self._hole(at)
        before = self.value
        return self._event(GAP, **hole, before=before, amount=round(rise, _DECIMALS)) if hole and rise > 0 else None

    def _hole(self, at: Stamp) -> Event:
        """From when to when nothing was counted in; nothing if somebody looked all the time."""
        if not self._restored and at.mono_ns - self.at.mono_ns < self.quiet_ns:
            return {}
        hole: Event = {"from": iso(self.at.wall_ms), "to": iso(at.wall_ms)}
        return hole if self.at.synced and at.synced else {**hole, "clock": "unsynced"}

    def _elapsed_s(self, at: Stamp) -> float | None:
        """Since the last believed value; None when no clock tells."""
        if not self._restored:
            return (at.mono_ns - self.at.mono_ns) / NS
        elapsed_s = (at.wall_ms - self.at.wall_ms) / 1000
        return elapsed_s if self.at.synced and at.synced and elapsed_s >= 0 else None

    def _most(self, elapsed_s: float) -> float:
        """How far it can have come."""
        return self._rate * max(elapsed_s, 1.0) + self._step

    def _is_repeated(self, value: float, at: Stamp) -> bool:
        if self._suspect is None:
            return False
        suspected, then_ns = self._suspect
        return -abs(suspected) * _NOISE <= value - suspected <= self._most((at.mono_ns - then_ns) / NS)

    def _event(self, event: str, **fields: object) -> Event:
        return {"event": event, "quantity": self.name, **fields}


def _joined(known: Origin | None, now: Origin | None) -> Origin | None:
    """Who counts, with the serial number that is known of it although it was not to be had this time."""
    if now is not None and now.serial is None and known is not None:
        return Origin(now.basis, known.serial)
    return now or known


def used(before: float, after: float, events: Collection[Mapping[str, Any]]) -> float:
    """What was used between two believed values of one counter, ``events``: of its quantity, at the second one.

    After a kill an event begins at the last count on the disk, up to a minute before the last one that was told.
    """
    for event in events:
        match event["event"]:
            case "counter-rollover":
                return float(event["amount"]) - max(0.0, before - float(event["before"]))
            case "counter-reset":
                return after
            case "counter-jump" | "meter-swap" | "counter-restart":
                return 0.0
    return max(0.0, after - before)
