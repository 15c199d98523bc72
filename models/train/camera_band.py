"""Between which values the contrast of good parts lies, place by place, and how far outside it may be.

Contrast is compared with the lowest and highest that any good part has within a few pixels, so an edge that lies a
little beside is where it was. What is usual outside is little where good parts are the same and more where they are
not; where they went on changing while they were shown (dirt that grows), they will go on, and it counts least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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


def fit(planes: Array, inside: Array) -> tuple[Band, Array, Array]:
    """The band of parts × planes × rows × columns (overwritten), how far outside each part is of the others', and calm.

    ``inside``: rows × columns, where anything is judged. Calm: rows × columns, 1 where nothing changed from the first
    parts to the last, towards 0 where much did.
    """
    count = len(planes)
    scale = 1 / (planes.std(axis=(0, 2, 3)) + 1e-9)
    planes *= scale[:, None, None]
    low, high = _around(planes, np.minimum), _around(planes, np.maximum)
    usual = _usual(planes, _STEP * float(scale.mean()))
    calm = _calm(planes, low, high, usual)
    weight = usual * calm * inside
    scores = np.empty(count)
    for number in range(count):
        others = np.arange(count) != number
        scores[number] = _score(_outside(planes[number], low[others].min(0), high[others].max(0)), weight)
    return Band(scale, low.min(axis=0), high.max(axis=0), weight, MARGIN * max(_LEAST, second(scores))), scores, calm


def second(scores: Array) -> float:
    """The second largest."""
    return float(np.sort(scores)[-2])


def _usual(planes: Array, least: float) -> Array:
    """Of each place: one over how much good parts differ there, which is never less than ``least``."""
    usual = np.maximum(least, smooth(np.sqrt((planes.std(axis=0) ** 2).sum(axis=0)), _NEAR))
    weight: Array = (1 + _EVEN) / (usual + _EVEN * usual.mean() + 1e-9)
    return weight


def _calm(planes: Array, low: Array, high: Array, usual: Array) -> Array:
    """See ``fit``: each half of the parts against the band of the other half."""
    half = len(planes) // 2
    first, last = slice(None, half), slice(half, None)
    changed = np.zeros_like(usual)
    for these, others in ((first, last), (last, first)):
        bottom, top = low[others].min(axis=0), high[others].max(axis=0)
        mean = np.mean([_outside(each, bottom, top) for each in planes[these]], axis=0)
        changed = np.maximum(changed, mean)
    calm: Array = 1 / (1 + _RESTLESS * smooth(changed, _NEAR) * usual)
    return calm


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


def _around(planes: Array, which: np.ufunc) -> Array:
    """The lowest or highest within reach of each place."""
    for axis in (2, 3):
        size = planes.shape[axis]
        found = planes
        for step in range(1, _REACH + 1):
            for by in (-step, step):
                beside = planes.take(np.clip(np.arange(size) + by, 0, size - 1), axis=axis)
                found = which(found, beside)
        planes = found
    return planes
