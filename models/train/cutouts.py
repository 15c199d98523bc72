"""Cut-outs of large pictures to learn from: around defects, around the worst mistakes so far, and anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from models.train.pixels import DEFECT, Pixels

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_AROUND_DEFECTS: Final = 0.45  # share of the cut-outs
_AROUND_MISTAKES: Final = 0.3
_SMALL_PX: Final = 150.0  # defects of less area than this are shown most
_WORST: Final = 2  # places per good picture
_STRIDE: Final = 8


class _Place(NamedTuple):
    picture: int
    row: float
    column: float


class Cutouts:
    """``out``: height and width after augmentation; what is cut is a quarter larger, so that turning has material."""

    def __init__(self, pixels: Pixels, chosen: Array, truth: Array, good: frozenset[int], side: int, seed: int) -> None:
        height, width = pixels.images.shape[1:3]
        self.out = (min(side, height // 8 * 8), min(side, width // 8 * 8))
        self._cut = (min(height, self.out[0] * 5 // 4), min(width, self.out[1] * 5 // 4))
        self._pixels = pixels
        self._random = np.random.default_rng(seed)
        self._good = np.array([index for index in chosen if int(truth[index]) in good])
        self._defects: list[_Place] = []
        areas = []
        for index in chosen:
            for place, area in _spots(int(index), pixels):
                self._defects.append(place)
                areas.append(area)
        weights = (1 / (1 + np.array(areas) / _SMALL_PX)) ** 0.5
        self._weights = weights / weights.sum() if len(weights) else weights
        self._mistakes: list[_Place] = []
        self._mistaken = np.empty(0)

    def draw(self, count: int) -> tuple[Array, Array, Array]:
        """Pictures, n × h × w × c; masks, n × h × w; where each was cut, n × (picture, top, left)."""
        places = [self._choose() for _ in range(count)]
        height, width = self._cut
        images = np.empty((count, height, width, self._pixels.images.shape[3]), np.uint8)
        masks = np.zeros((count, height, width), np.uint8)
        cuts = np.zeros((count, 3), np.int64)
        for number, place in enumerate(places):
            top, left = self._corner(place)
            cuts[number] = place.picture, top, left
            images[number] = self._pixels.images[place.picture, top : top + height, left : left + width]
            if place.picture in self._pixels.masks:
                masks[number] = self._pixels.masks[place.picture][top : top + height, left : left + width]
        return images, masks, cuts

    def mine(self, heats: Callable[[Array], Array], most: int) -> None:
        """Remember where good pictures look worst. ``heats``: indices → n × 1 × rows × columns."""
        chosen = self._random.choice(self._good, min(most, len(self._good)), replace=False)
        self._mistakes, worst = [], []
        for index, heat in zip(chosen.tolist(), heats(chosen)[:, 0], strict=True):
            heat = heat.copy()  # noqa: PLW2901 - blotted out as places are taken
            if index in self._pixels.masks:
                rows, columns = np.nonzero(self._pixels.masks[index])
                heat[
                    np.minimum(rows // _STRIDE, len(heat) - 1), np.minimum(columns // _STRIDE, heat.shape[1] - 1)
                ] = -99
            for _ in range(_WORST):
                row, column = divmod(int(heat.argmax()), heat.shape[1])
                self._mistakes.append(_Place(index, row * _STRIDE + 4.0, column * _STRIDE + 4.0))
                worst.append(heat[row, column])
                heat[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5] = -99
        weights = np.exp(0.5 * (np.array(worst) - max(worst))) + 0.02
        self._mistaken = weights / weights.sum()

    def _choose(self) -> _Place:
        random, dice = self._random, self._random.random()
        height, width = self._pixels.images.shape[1:3]
        if dice < _AROUND_DEFECTS and self._defects:
            place = self._defects[random.choice(len(self._defects), p=self._weights)]
        elif dice < _AROUND_DEFECTS + _AROUND_MISTAKES and self._mistakes:
            place = self._mistakes[random.choice(len(self._mistakes), p=self._mistaken)]
        else:
            return _Place(int(random.choice(self._good)), random.uniform(0, height), random.uniform(0, width))
        rows, columns = (random.uniform(-0.35, 0.35, 2) * self.out).tolist()
        return _Place(place.picture, place.row + rows, place.column + columns)

    def _corner(self, place: _Place) -> tuple[int, int]:
        height, width = self._pixels.images.shape[1:3]
        top = int(np.clip(place.row - self._cut[0] / 2, 0, height - self._cut[0]))
        left = int(np.clip(place.column - self._cut[1] / 2, 0, width - self._cut[1]))
        return top, left


def _spots(index: int, pixels: Pixels) -> list[tuple[_Place, float]]:
    """Each connected defect of a picture: its middle and area in pixels."""
    if index not in pixels.masks:
        return []
    left = pixels.masks[index] == DEFECT
    found = []
    while left.any():
        row, column = divmod(int(left.argmax()), left.shape[1])
        spot = _flood(left, row, column)
        rows, columns = np.nonzero(spot)
        found.append((_Place(index, float(rows.mean()), float(columns.mean())), float(len(rows))))
        left &= ~spot
    return found


def _flood(mask: Array, row: int, column: int) -> Array:
    """What hangs together with one pixel; grown 8-connected."""
    spot = np.zeros_like(mask)
    spot[row, column] = True
    size = 0
    top, bottom, first, last = row, row + 1, column, column + 1
    while spot[top:bottom, first:last].sum() != size:
        size = int(spot[top:bottom, first:last].sum())
        top, bottom = max(0, top - 1), min(len(mask), bottom + 1)
        first, last = max(0, first - 1), min(mask.shape[1], last + 1)
        part = spot[top:bottom, first:last]
        grown = part.copy()
        grown[1:] |= part[:-1]
        grown[:-1] |= part[1:]
        sideways = grown.copy()
        sideways[:, 1:] |= grown[:, :-1]
        sideways[:, :-1] |= grown[:, 1:]
        spot[top:bottom, first:last] = sideways & mask[top:bottom, first:last]
    return spot
