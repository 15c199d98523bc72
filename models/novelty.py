"""Is this value of one quantity new, after all that this quantity has done so far? Streaming, no training, no NumPy.

Three looks at every value, each against its own past, and the largest counts:

    usual   distance from the median of this hour of the day: values that belong to another time, or to none
    drift   the same, smoothed: a level that creeps or stays away
    level   distance from the running median: jumps and spikes, whatever the hour

A look's distance is divided by what it reached in the past, so that the score knows no unit: 1 is what happens now and
then, and from ``THRESHOLD`` on it is news. One event is one piece of news: for the next ``HUSH`` values only what is
twice as far off is news again.

Pure Python on purpose: it runs beside the wires, where importing NumPy would cost more than all of its work (a value
costs some 10 µs, a quantity 300 kB).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import deque
from typing import Final, NamedTuple

THRESHOLD: Final = 1.3
HUSH: Final = 40
AGAIN: Final = 2.0
USUAL: Final = "usual"
DRIFT: Final = "drift"
LEVEL: Final = "level"

_MEMORY: Final = 4000  # values: two weeks of five minutes each
_HOUR_MEMORY: Final = 100  # values per hour of the day
_HOUR_FEWEST: Final = 8
_SMOOTH: Final = 0.05
_LEVEL_MEMORY: Final = 300
_LEVEL_WEIGHT: Final = 0.8
_BLOCK: Final = 40  # values: one peak counts per block
_PEAKS: Final = 6  # the sixth largest peak is what happens now and then
_RARE: Final = 0.995
_FEWEST: Final = 10
_LARGEST: Final = 20.0


class Novel(NamedTuple):
    """``look``: which of the three was the largest. ``news``: over the threshold, and not said just now."""

    score: float
    look: str
    news: bool = False


class Novelty:
    """One quantity. ``step`` takes its values in the order of time, at a roughly even pace."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._hours: dict[int, _Sorted] = {}
        self._running = _Sorted(_LEVEL_MEMORY)
        self._smooth = 0.0
        self._usual = _Rare()
        self._drift = _Rare()
        self._level = _Peaks()
        self._said = 0.0
        self._since_said = HUSH

    def step(self, value: float, at_s: float) -> Novel:
        """``at_s``: Unix seconds. The score depends on this and earlier values only."""
        hour = self._hours.setdefault(int(at_s // 3600) % 24, _Sorted(_HOUR_MEMORY))
        off = value - hour.quantile(0.5) if len(hour) >= _HOUR_FEWEST else 0.0
        hour.add(value)
        away = abs(value - self._running.quantile(0.5)) if len(self._running) else 0.0
        self._running.add(value)
        self._smooth += _SMOOTH * (off - self._smooth)
        looks = (
            Novel(self._usual.step(abs(off)), USUAL),
            Novel(self._drift.step(abs(self._smooth)), DRIFT),
            Novel(_LEVEL_WEIGHT * self._level.step(away), LEVEL),
        )
        best = max(looks)
        return best._replace(news=self._news(best.score))

    def _news(self, score: float) -> bool:
        self._since_said += 1
        if score < self._threshold or (self._since_said <= HUSH and score <= AGAIN * self._said):
            return False
        self._said, self._since_said = score, 0
        return True


class _Sorted:
    """The last values, in order of size."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._sorted = array("d")
        self._ring = array("d")
        self._oldest = 0

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        insort(self._sorted, value)
        if len(self._ring) < self._memory:
            self._ring.append(value)
            return
        self._sorted.pop(bisect_left(self._sorted, self._ring[self._oldest]))
        self._ring[self._oldest] = value
        self._oldest = (self._oldest + 1) % self._memory

    def quantile(self, share: float) -> float:
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]


class _Rare:
    """A distance, in units of what one in two hundred reached."""

    def __init__(self) -> None:
        self._past = _Sorted(_MEMORY)

    def step(self, distance: float) -> float:
        score = _share(distance, self._past.quantile(_RARE)) if len(self._past) >= _FEWEST else 0.0
        self._past.add(distance)
        return score


class _Peaks:
    """A distance, in units of the sixth largest peak."""

    def __init__(self) -> None:
        self._peaks: deque[float] = deque(maxlen=_MEMORY // _BLOCK)
        self._now_and_then: float | None = None
        self._peak = 0.0
        self._count = 0

    def step(self, distance: float) -> float:
        score = _share(distance, self._now_and_then) if self._now_and_then is not None else 0.0
        self._peak = max(self._peak, distance)
        self._count += 1
        if self._count % _BLOCK == 0:
            self._peaks.append(self._peak)
            self._peak = 0.0
            if len(self._peaks) >= _PEAKS:
                self._now_and_then = sorted(self._peaks)[-_PEAKS]
        return score


def _share(distance: float, known: float) -> float:
    """Something where there never was anything is news, but how much of it nobody knows."""
    if known <= 0.0:
        return _LARGEST / 4 if distance > 0.0 else 0.0
    return min(distance / known, _LARGEST)
