"""The gate between what a device said and what we believe: range, slew, and counters that only rise.

A value that does not pass is absent with a reason. A counter that went back is absent once and then
followed from its new place, with an event that tells before and after: never negative energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from edge_agent.clock import NS, Stamp
from edge_agent.vocabulary import (
    COUNTER,
    COUNTER_BACKWARDS,
    NOT_A_NUMBER,
    OUT_OF_RANGE,
    SLEW,
    Quantity,
    Reading,
    Sample,
)

_COUNTER_NOISE = 1e-6  # relative; a float32 counter may step back by its own rounding
_SLEW_MEMORY_S = 600.0  # after so long without a value nothing is known of how fast it moved

Event = dict[str, object]


class Gate:
    """Remembers the last believed value of every quantity of one device."""

    def __init__(self, device: str, quantities: Mapping[str, Quantity]) -> None:
        self._device = device
        inf = float("inf")
        self._bounds = {
            name: (-inf if q.low is None else q.low, inf if q.high is None else q.high)
            for name, q in quantities.items()
        }
        self._counters = {name for name, q in quantities.items() if q.kind == COUNTER}
        self._slews = {name: q.slew for name, q in quantities.items() if q.slew is not None and q.kind != COUNTER}
        self._last: dict[str, tuple[int, float]] = {}  # mono_ns, value; of counters and slew-limited ones
        self._suspect: dict[str, float] = {}

    def judge(self, sample: Sample, at: Stamp) -> Reading:
        """The reading to keep: what is believed, what is absent and why, what happened to counters."""
        values, absent = sample.values, sample.absent
        refused: dict[str, str] = {}
        bounds = self._bounds
        for name, value in values.items():
            low, high = bounds[name]
            if not low <= value <= high:  # also false for NaN
                refused[name] = OUT_OF_RANGE if isfinite(value) else NOT_A_NUMBER
        events: list[Event] = []
        for name in self._counters:
            if name in values and name not in refused:
                self._follow_counter(name, values[name], at, refused, events)
        for name, slew in self._slews.items():
            if name in values and name not in refused:
                self._follow_gauge(name, values[name], slew, at, refused)
        if refused:
            values = {name: value for name, value in values.items() if name not in refused}
            absent = {**absent, **refused}
        return Reading(self._device, at, values, absent, tuple(events))

    def _follow_counter(self, name: str, value: float, at: Stamp, refused: dict[str, str], events: list[Event]) -> None:
        last = self._last.get(name)
        if last is not None and value < last[1] - abs(last[1]) * _COUNTER_NOISE:
            suspected = self._suspect.get(name)
            if suspected is None or value < suspected:
                # Once may be a bad frame that looked good; the second one in a row is a fact.
                self._suspect[name] = value
                refused[name] = COUNTER_BACKWARDS
                return
            events.append({"event": "counter-reset", "quantity": name, "before": last[1], "after": value})
        self._suspect.pop(name, None)
        self._last[name] = (at.mono_ns, value)

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
