"""When to do what: pure functions over monotonic nanoseconds, no thread and no clock of their own."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from edge_agent.clock import NS


def phase(name: str, period_s: float) -> float:
    """A steady offset within the period, so that equal periods do not all fall on one instant."""
    return (zlib.crc32(name.encode()) % 1000) / 1000 * period_s


_BEAT_NS = NS // 8


@dataclass(slots=True)
class Periodic:
    """Ticks at a fixed rate. A tick that is missed is skipped and counted, never caught up."""

    period_ns: int
    due_ns: int
    skipped: int = 0

    @classmethod
    def every(cls, period_s: float, now_ns: int, offset_s: float = 0.0) -> Periodic:
        """First tick ``offset_s`` from now, moved to the next beat (an eighth of a second) that all share.

        Threads that wake together find each other's code and data still in the processor's caches: many
        meters on a beat cost half of what they cost one by one.
        """
        period_ns, due_ns = int(period_s * NS), now_ns + int(offset_s * NS)
        return cls(period_ns, due_ns + -due_ns % _BEAT_NS if period_ns >= 2 * _BEAT_NS else due_ns)

    def is_due(self, now_ns: int) -> bool:
        return now_ns >= self.due_ns

    def advance(self, now_ns: int) -> int:
        """Move to the next tick after ``now_ns``, in step with the first; how many were skipped."""
        missed = max(0, (now_ns - self.due_ns) // self.period_ns)
        self.due_ns += (missed + 1) * self.period_ns
        self.skipped += missed
        return missed


@dataclass(slots=True)
class Backoff:
    """Exponential, capped, with jitter: 2, 4, … ``cap_s``. ``failures`` in a row so far."""

    first_s: float = 2.0
    cap_s: float = 300.0
    jitter: float = 0.1
    failures: int = 0

    def fail(self) -> float:
        """Count a failure; seconds to wait before the next try."""
        wait_s = min(self.cap_s, self.first_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return wait_s * (1 + random.uniform(-self.jitter, self.jitter))  # noqa: S311 - spreads load, no secret

    def reset(self) -> None:
        self.failures = 0
