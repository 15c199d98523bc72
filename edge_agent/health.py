"""What is wrong right now, how often what happened, and who still makes progress.

Log edges, count repeats: a thing that goes away makes two lines, one when it goes and one when it
is back, however often it is asked in between.
"""

from __future__ import annotations

import faulthandler
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import structlog

from edge_agent.clock import NS, Clock, iso

log = structlog.get_logger("health")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong now. ``since_ms``: Unix milliseconds."""

    source: str
    reason: str
    hint: str
    since_ms: int


class Health:
    """One per process, shared by every stage; safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._faults: dict[str, Fault] = {}
        self._counters: Counter[str] = Counter()
        self._beats: dict[str, list[int]] = {}  # worker → [last beat, allowed silence], both ns

    # --- counters

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter; the names are dotted: ``bus.rs485-a.timeout``."""
        with self._lock:
            self._counters[name] += by

    def counters(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counters)

    # --- faults

    def fault(self, source: str, reason: str, *, hint: str = "") -> None:
        """Say that ``source`` is at fault; logged when new or when the reason changed."""
        with self._lock:
            known = self._faults.get(source)
            if known is not None and known.reason == reason:
                return
            stamp = self._clock.stamp()
            self._faults[source] = Fault(source, reason, hint, known.since_ms if known else stamp.wall_ms)
        log.warning("fault", source=source, reason=reason, hint=hint or None)

    def clear(self, source: str) -> None:
        """Say that ``source`` works; logged only if it was at fault."""
        if source not in self._faults:  # the common case, without the lock
            return
        with self._lock:
            fault = self._faults.pop(source, None)
        if fault is not None:
            log.info("recovered", source=source, was=fault.reason, since=iso(fault.since_ms))

    def faults(self) -> list[Fault]:
        with self._lock:
            return sorted(self._faults.values(), key=lambda fault: fault.source)

    # --- progress

    def expect(self, worker: str, max_silence_s: float) -> Callable[[], None]:
        """Register a worker; the returned function is its heartbeat, to be called on real progress."""
        beat = [self._clock.mono_ns(), int(max_silence_s * NS)]
        with self._lock:
            self._beats[worker] = beat
        mono_ns = self._clock.mono_ns

        def progress() -> None:
            beat[0] = mono_ns()

        return progress

    def forget(self, worker: str) -> None:
        """The worker ended on purpose."""
        with self._lock:
            self._beats.pop(worker, None)

    def stalled(self) -> list[str]:
        """Workers that have been silent for longer than they may be."""
        now = self._clock.mono_ns()
        with self._lock:
            return sorted(name for name, (last, allowed) in self._beats.items() if now - last > allowed)


def dump_stacks() -> None:
    """Write the stack of every thread to standard error, for the journal."""
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
