"""Registers of an unknown meter, decoded in every way that makes numbers of them.

Arrays have the shape (snapshots,) for one value and (snapshots, 3) for three of a kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

Memory = Mapping[int, Mapping[int, int]]
"""Function code → address → word."""
Array = Any  # of numpy

SIZES: Final = {"f32": 2, "u32": 2, "s32": 2, "u16": 1, "s16": 1}
_DTYPES: Final = {"f32": ">f4", "u32": ">u4", "s32": ">i4", "u16": ">u2", "s16": ">i2"}
_PLAIN: Final = {"f32": 1.0, "u32": 0.5, "s32": 0.6, "u16": 0.0, "s16": 0.1}
_TINIEST: Final = 1e-5  # small whole numbers look like smaller floats, in proportion; no meter means those


class Place(NamedTuple):
    """Where a value stands, or three of a kind ``stride`` registers apart (0: one)."""

    fc: int
    at: int
    type: str
    stride: int

    def words(self) -> set[int]:
        """Every address that it takes."""
        steps = (0, 1, 2) if self.stride else (0,)
        return {self.at + step * self.stride + word for step in steps for word in range(SIZES[self.type])}

    def overlaps(self, other: Place) -> bool:
        return self.fc == other.fc and bool(self.words() & other.words())

    def one(self, step: int) -> Place:
        """The place of one of the three."""
        return self._replace(at=self.at + step * self.stride, stride=0)

    def signed(self) -> Place:
        """The same for what may become negative, even if it has not until now."""
        return self._replace(type="s" + self.type[1:]) if self.type[0] == "u" else self


class Triples(NamedTuple):
    """Threes of a kind: ``values`` has the shape (count, snapshots, 3)."""

    places: list[Place]
    values: Array

    def only(self, chosen: Sequence[int]) -> Triples:
        return Triples([self.places[index] for index in chosen], self.values[list(chosen)])


class Words:
    """What was read, under one word and byte order. ``singles``: every value; ``columns``: the same as one array."""

    def __init__(self, snapshots: Sequence[Memory], word_order: str, byte_order: str) -> None:
        self.orders = word_order, byte_order
        self._segments = list(_segments(snapshots))
        self.starts = {(fc, start) for fc, start, _ in self._segments}
        self.singles = [pair for kind in SIZES for pair in self._decoded(kind)]
        self.columns = np.array([column for _, column in self.singles]).reshape(len(self.singles), -1)

    def _decoded(self, kind: str) -> Iterator[tuple[Place, Array]]:
        size = SIZES[kind]
        word, byte = self.orders
        for fc, start, words in self._segments:
            many = words.shape[1] - size + 1
            if many < 1:
                continue
            stack = np.stack([words[:, offset : offset + many] for offset in range(size)], axis=-1)
            stack = stack.byteswap() if byte == "little" else stack
            stack = stack[..., ::-1] if word == "little" else stack
            with np.errstate(invalid="ignore"):  # what is no number as a float is dropped below
                values = np.ascontiguousarray(stack.astype(">u2")).view(_DTYPES[kind])[..., 0].astype(float)
            sizes = np.abs(values)
            good = np.all(np.isfinite(values), axis=0) & (sizes.max(axis=0) < 1e10)
            if kind == "f32":
                good &= ~np.any((sizes > 0) & (sizes < _TINIEST), axis=0)
            for index in np.nonzero(good)[0]:
                yield Place(fc, start + int(index), kind, 0), values[:, index]

    def triples(self, strides: Mapping[str, set[int]]) -> Triples:
        """Three values of one type, equally far apart. ``strides``: type → how far."""
        table = dict(self.singles)
        places, values = [], []
        for place, column in self.singles:
            for stride in strides[place.type]:
                others = [table.get(place._replace(at=place.at + step * stride)) for step in (1, 2)]
                if others[0] is not None and others[1] is not None:
                    places.append(place._replace(stride=stride))
                    values.append(np.stack([column, others[0], others[1]], axis=-1))
        return Triples(places, np.array(values))

    def taste(self, place: Place) -> float:
        """Between decodings that say the same: wide ones, side by side, that begin where a value may begin."""
        size = SIZES[place.type]
        starts = [start for fc, start in self.starts if fc == place.fc and start <= place.at]
        aligned = size > 1 and starts and (place.at - max(starts)) % size == 0
        return _PLAIN[place.type] + (1.0 if place.stride == size else 0.0) + (0.3 if aligned else 0.0)

    def single_taste(self, place: Place) -> float:
        """The same for one value."""
        return self.taste(place._replace(stride=SIZES[place.type]))

    def neatness(self, places: Sequence[Place]) -> float:
        """Values stand one behind the other, and no zeros between them are left unexplained."""
        fc, extents = places[0].fc, [place.words() for place in places]
        words = set().union(*extents)
        ends = {max(extent) + 1 for extent in extents} | {start for of, start in self.starts if of == fc}
        joined = sum(min(extent) in ends for extent in extents) / len(extents)
        empty = {
            start + int(index)
            for of, start, cells in self._segments
            if of == fc
            for index in np.nonzero(~cells.any(axis=0))[0]
        }
        lost = len({at for at in empty if min(words) <= at <= max(words)} - words)
        return 12 * joined + 5 * len(words) / (max(words) - min(words) + 1) - 0.4 * lost


def strides(also: int = 0) -> dict[str, set[int]]:
    """Side by side, or as far apart as the voltages are."""
    return {kind: {size, also} - {0} for kind, size in SIZES.items()}


def _segments(snapshots: Sequence[Memory]) -> Iterator[tuple[int, int, Array]]:
    """Function code, first address and words (snapshots × registers) of every gapless stretch."""
    for fc in sorted({fc for memory in snapshots for fc in memory}):
        shared = set.intersection(*(set(memory.get(fc, {})) for memory in snapshots))
        run: list[int] = []
        for at in [*sorted(shared), -1]:
            if run and at != run[-1] + 1:
                words = [[memory[fc][place] for place in run] for memory in snapshots]
                yield fc, run[0], np.array(words, dtype=np.uint16)
                run = []
            run.append(at)
