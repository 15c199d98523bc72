"""Between which values the contrast of good parts lies, place by place, and how far outside it may be.

Contrast is compared with the lowest and highest that any good part has within a few pixels, so an edge that lies a
little beside is where it was. What is usual outside is little where good parts are the same and more where they are
not; where they went on changing while they were shown (dirt that grows), they will go on, and it counts least.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from models.train.camera_graph import Band

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MARGIN: Final = 4.0
"""How much farther outside than the second farthest good part, judged by the others, a part may be."""
BORDER: Final = 6  # pixels: there the picture ends
_LEAST: Final = 0.2  # of what is usual: the nearest limit, however alike the parts are
_STEP: Final = 0.004  # half a grey level: what no camera sees
_REACH: Final = 3  # pixels: how far a place may lie beside where it was
_EVEN: Final = 0.5  # of the mean: so much of the usual spread is the same everywhere
_RESTLESS: Final = 3.0  # how much change while they were shown counts
_NEAR: Final = 3  # pixels around a place, tell what is usual there


class _Lowest(NamedTuple):
    """Of several parts around each place: the lowest, the second lowest, and whose the lowest is."""

    value: Array
    second: Array
    whose: Array

    def without(self, number: int) -> Array:
        """The lowest of all other parts."""
        lowest: Array = np.where(self.whose == number, self.second, self.value)
        return lowest


def fit(planes: Array, inside: Array) -> tuple[Band, Array, Array]:
    """The band of parts × planes × rows × columns, how far outside each part is of the others', and calm.

    ``inside``: rows × columns, where anything is judged. Calm: rows × columns, 1 where nothing changed from the first
    parts to the last, towards 0 where much did. One part after the other: fifty would need a gigabyte at once.
    """
    scale = 1 / (deviation(planes) + 1e-9)
    even = scale.astype(np.float32)[:, None, None]
    half = len(planes) // 2
    halves = planes[:half], planes[half:]
    low, high = ([_lowest(parts, sign * even) for parts in halves] for sign in (1, -1))
    usual = _usual(planes, even, _STEP * float(scale.mean()))
    changed = np.zeros_like(usual)
    for these, other in ((0, 1), (1, 0)):
        bottom, top = low[other].value, -high[other].value
        changed = np.maximum(changed, _mean(_outside(each * even, bottom, top) for each in halves[these]))
    calm = 1 / (1 + _RESTLESS * smooth(changed, _NEAR) * usual)
    weight = usual * calm * inside
    lows, highs = (_both(first, last, half) for first, last in (low, high))
    scores = np.array(
        [
            _score(_outside(each * even, lows.without(number), -highs.without(number)), weight)
            for number, each in enumerate(planes)
        ]
    )
    return Band(scale, lows.value, -highs.value, weight, MARGIN * max(_LEAST, second(scores))), scores, calm


def deviation(parts: Array) -> Array:
    """Standard deviation of each channel of parts × channels × rows × columns, without a copy of them."""
    mean = np.mean([each.mean(axis=(1, 2), dtype=np.float64) for each in parts], axis=0)
    square = np.mean([np.square(each).mean(axis=(1, 2), dtype=np.float64) for each in parts], axis=0)
    found: Array = np.sqrt(np.maximum(square - mean**2, 0))
    return found


def _mean(planes: Iterable[Array]) -> Array:
    """Of planes of which there is one at a time."""
    total: Any = 0.0
    count = 0
    for count, plane in enumerate(planes, 1):  # noqa: B007 - the last one is used below
        total = total + plane
    mean: Array = total / count
    return mean


def _lowest(parts: Array, scale: Array) -> _Lowest:
    shape = parts.shape[1:]
    value, beside = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    whose = np.zeros(shape, np.int16)
    for number, part in enumerate(parts):
        near = _around(part * scale)
        beside = np.minimum(beside, np.maximum(value, near))
        whose[near < value] = number
        value = np.minimum(value, near)
    return _Lowest(value, beside, whose)


def _both(first: _Lowest, last: _Lowest, before: int) -> _Lowest:
    """Of two groups together; ``before``: how many are in the first."""
    value = np.minimum(first.value, last.value)
    beside = np.minimum(np.maximum(first.value, last.value), np.minimum(first.second, last.second))
    return _Lowest(value, beside, np.where(first.value <= last.value, first.whose, last.whose + before))


def second(scores: Array) -> float:
    """The second largest."""
    return float(np.sort(scores)[-2])


def _usual(planes: Array, scale: Array, least: float) -> Array:
    """Of each place: one over how much good parts differ there, which is never less than ``least``."""
    mean = planes.mean(axis=0)
    square = _mean(np.square((each - mean) * scale).sum(axis=0) for each in planes)
    usual = np.maximum(least, smooth(np.sqrt(square), _NEAR))
    weight: Array = (1 + _EVEN) / (usual + _EVEN * usual.mean() + 1e-9)
    return weight


def _outside(planes: Array, low: Array, high: Array) -> Array:
    away = np.maximum(low - planes, 0) + np.maximum(planes - high, 0)
    amount: Array = np.sqrt((away * away).sum(axis=0))
    return amount


def _score(amount: Array, weight: Array) -> float:
    return float(smooth(amount * weight, 1).max())


def smooth(plane: Array, reach: int) -> Array:
    """Mean around each place, as the network's: what is outside of the picture does not count."""
    for axis in (0, 1):
        ends = np.cumsum(np.insert(plane, 0, 0.0, axis=axis), axis=axis, dtype=np.float64)
        at = np.arange(plane.shape[axis])
        top, bottom = np.minimum(at + reach + 1, len(at)), np.maximum(at - reach, 0)
        count = (top - bottom).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = (ends.take(top, axis=axis) - ends.take(bottom, axis=axis)) / count
    even: Array = plane.astype(np.float32)
    return even


def _around(planes: Array) -> Array:
    """The lowest within reach of each place."""
    for axis in (1, 2):
        size = planes.shape[axis]
        found = planes
        for by in (*range(-_REACH, 0), *range(1, _REACH + 1)):
            found = np.minimum(found, planes.take(np.clip(np.arange(size) + by, 0, size - 1), axis=axis))
        planes = found
    return planes
