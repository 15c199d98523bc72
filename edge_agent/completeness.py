"""Is everything there? Counts what arrived of each stream, and what did not.

``seq`` is one contiguous count over everything of one stream, so a hole is a loss, unless a gap message
says why; a number that comes twice is a repeat; one that comes after a higher one is out of order,
unless it says itself that it is late.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator


class Ranges:
    """A set of integers as sorted, disjoint, closed ranges."""

    def __init__(self) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._lows, number) - 1
        return at >= 0 and number <= self._highs[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._lows, self._highs, strict=True)

    def add(self, low: int, high: int) -> None:
        """Take in low…high, merging with what touches it."""
        if high < low:
            return
        first = bisect_right(self._highs, low - 2)
        last = bisect_right(self._lows, high + 1)
        if first < last:
            low = min(low, self._lows[first])
            high = max(high, self._highs[last - 1])
        self._lows[first:last] = [low]
        self._highs[first:last] = [high]

    def count(self) -> int:
        return sum(high - low + 1 for low, high in self)

    def bounds(self) -> tuple[int, int] | None:
        return (self._lows[0], self._highs[-1]) if self._lows else None

    def holes(self) -> list[tuple[int, int]]:
        """What lies between the ranges."""
        return [(high + 1, low - 1) for high, low in zip(self._highs, self._lows[1:], strict=False)]


class _Stream:
    def __init__(self) -> None:
        self.seen = Ranges()
        self.excused = Ranges()
        self.duplicates = 0
        self.reordered = 0
        self.late = 0
        self.highest_live = 0

    def missing(self) -> int:
        everything = Ranges()
        bounds = self.seen.bounds()
        if bounds is None:
            return 0
        for part in (self.seen, self.excused):
            for low, high in part:
                everything.add(max(low, bounds[0]), min(high, bounds[1]))
        return bounds[1] - bounds[0] + 1 - everything.count()


class Completeness:
    """Feed it every message; ask it any time."""

    def __init__(self) -> None:
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)
        self.messages = 0
        self.readings = 0

    def take(self, stream: str, seq: int, *, late: bool | None, reading: bool) -> bool:
        """A message of a stream; False when it is a repeat. ``late`` None: it does not say (a picture)."""
        self.messages += 1
        known = self._streams[stream]
        if seq in known.seen:
            known.duplicates += 1
            return False
        known.seen.add(seq, seq)
        self.readings += reading
        if late is None:
            return True
        if late:
            known.late += 1
        elif seq < known.highest_live:
            known.reordered += 1
        else:
            known.highest_live = seq
        return True

    def excuse(self, stream: str, first: int, last: int) -> None:
        """A gap message: these will never come, and it was said."""
        self._streams[stream].excused.add(first, last)

    def totals(self) -> dict[str, int]:
        streams = self._streams.values()
        return {
            "messages": self.messages,
            "readings": self.readings,
            "missing": sum(stream.missing() for stream in streams),
            "duplicates": sum(stream.duplicates for stream in streams),
            "reordered": sum(stream.reordered for stream in streams),
            "late": sum(stream.late for stream in streams),
        }

    def by_stream(self) -> dict[str, dict[str, object]]:
        return {
            name: {
                "seen": stream.seen.count(),
                "from": (stream.seen.bounds() or (0, 0))[0],
                "to": (stream.seen.bounds() or (0, 0))[1],
                "missing": stream.missing(),
                "holes": stream.seen.holes()[:20],
                "said_dropped": stream.excused.count(),
                "duplicates": stream.duplicates,
                "late": stream.late,
            }
            for name, stream in self._streams.items()
        }
