"""The gate between what a device said and what we believe: range, slew, and counters that only rise.

A value that does not pass is absent with a reason. A counter that went back, or further than it can, is absent once
and then followed from its new place, with an event that tells before and after: never negative energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Final

from edge_agent.clock import NS, Stamp
from edge_agent.counters import Count, Event, Mark
from edge_agent.vocabulary import COUNTER, NOT_A_NUMBER, OUT_OF_RANGE, SLEW, Origin, Quantity, Reading, Sample

_SLEW_MEMORY_S: Final = 600.0  # after so long without a value nothing is known of how fast it moved
QUIET_S: Final = 60.0


class Gate:
    """Remembers the last believed value of every quantity of one device.

    ``marks``: where its counters were before. ``quiet_s``: longer without a count is a gap.
    """

    def __init__(
        self,
        device: str,
        quantities: Mapping[str, Quantity],
        marks: Mapping[str, Mark] | None = None,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._device = device
        inf = float("inf")
        self._bounds = {
            name: (-inf if q.low is None else q.low, inf if q.high is None else q.high)
            for name, q in quantities.items()
        }
        quiet_ns = int(quiet_s * NS)
        known = marks or {}
        self._counts = {
            name: Count(q, quiet_ns, known.get(name)) for name, q in quantities.items() if q.kind == COUNTER
        }
        self._slews = {name: q.slew for name, q in quantities.items() if q.slew is not None and q.kind != COUNTER}
        self._last: dict[str, tuple[int, float]] = {}  # mono_ns, value; of slew-limited ones
        self._suspect: dict[str, float] = {}
        self._origin: Origin | None = None

    def marks(self) -> dict[str, Mark]:
        """Where its counters are now."""
        marks = {name: count.mark() for name, count in self._counts.items()}
        return {name: mark for name, mark in marks.items() if mark is not None}

    def judge(self, sample: Sample, at: Stamp, origin: Origin | None = None) -> Reading:
        """The reading to keep: what is believed, what is absent and why, what happened to counters.

        ``origin``: who counts, where that is known; the same object until it changes.
        """
        values, absent = sample
        refused: dict[str, str] = {}
        bounds = self._bounds
        for name, value in values.items():
            low, high = bounds[name]
            if not low <= value <= high:  # also false for NaN
                refused[name] = OUT_OF_RANGE if isfinite(value) else NOT_A_NUMBER
        events = self._follow_counts(values, at, origin, refused) if self._counts else ()
        for name, slew in self._slews.items():
            if name in values and name not in refused:
                self._follow_gauge(name, values[name], slew, at, refused)
        if refused:
            values = {name: value for name, value in values.items() if name not in refused}
            absent = {**absent, **refused}
        return Reading(self._device, at, values, absent, events, origin)

    def _follow_counts(
        self, values: Mapping[str, float], at: Stamp, origin: Origin | None, refused: dict[str, str]
    ) -> tuple[Event, ...]:
        if origin is not self._origin:
            self._origin = origin
            for count in self._counts.values():
                count.look_closely()
        now_ns = at.mono_ns
        events: tuple[Event, ...] = ()
        for name, count in self._counts.items():
            value = values.get(name)
            if value is None or name in refused:
                continue
            if 0.0 <= value - count.value <= count.easy and now_ns - count.at.mono_ns < count.quiet_ns:
                count.value, count.at = value, at
                continue
            reason, event = count.follow(value, at, origin)
            if reason is not None:
                refused[name] = reason
            elif event is not None:
                events = (*events, event)
        return events

    def _follow_gauge(self, name: str, value: float, slew: float, at: Stamp, refused: dict[str, str]) -> None:
        last = self._last.get(name)
        if last is not None:
            elapsed_s = (at.mono_ns - last[0]) / NS
            if elapsed_s < _SLEW_MEMORY_S and abs(value - last[1]) > slew * max(elapsed_s, 1.0):
                suspected = self._suspect.get(name)
                if suspected is None or abs(value - suspected) > slew * max(elapsed_s, 1.0):
                    self._suspect[name] = value
                    refused[name] = SLEW
                    return
        self._suspect.pop(name, None)
        self._last[name] = (at.mono_ns, value)
