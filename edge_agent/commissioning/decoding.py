"""Registers of an unknown meter, decoded in every way that makes numbers of them.

Arrays have the shape (snapshots,) for one value and (snapshots, phases) for a value of each phase.
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
_TINIEST: Final = 1e-5  # small whole numbers look like smaller floats, in proportion; no meter means those
_HUGE: Final = 1e10


class Place(NamedTuple):
    """Where a value stands, or one of each of ``phases`` phases, ``stride`` registers apart."""

    fc: int
    at: int
    type: str
    stride: int = 0
    phases: int = 1

    @property
    def size(self) -> int:
        """Registers of one value."""
        return SIZES[self.type]

    @property
    def is_float(self) -> bool:
        return self.type == "f32"

    @property
    def last(self) -> int:
        """The highest address that it takes."""
        return self.at + (self.phases - 1) * self.stride + self.size - 1

    def words(self) -> set[int]:
        """Every address that it takes."""
        return {self.at + step * self.stride + word for step in range(self.phases) for word in range(self.size)}

    def overlaps(self, other: Place) -> bool:
        if self.fc != other.fc or self.at > other.last or other.at > self.last:
            return False
        return bool(self.words() & other.words())

    def one(self, step: int) -> Place:
        """The place of one of the phases."""
        return Place(self.fc, self.at + step * self.stride, self.type)

    def signed(self) -> Place:
        """The same for what may become negative, even if it has not until now."""
        return self._replace(type="s" + self.type[1:]) if self.type[0] == "u" else self


class Words:
    """What was read, under one word and byte order. ``columns``: every value, place by place."""

    def __init__(self, snapshots: Sequence[Memory], word_order: str, byte_order: str) -> None:
        self.orders = word_order, byte_order
        self.count = len(snapshots)
        self._segments = list(_segments(snapshots))
        self.starts = {(fc, start) for fc, start, _ in self._segments}
        self.columns = {place: column for kind in SIZES for place, column in self._decoded(kind)}

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
            good = np.all(np.isfinite(values), axis=0) & (sizes.max(axis=0) < _HUGE)
            if kind == "f32":
                good &= ~np.any((sizes > 0) & (sizes < _TINIEST), axis=0)
            for index in np.nonzero(good)[0]:
                yield Place(fc, start + int(index), kind), values[:, index]

    def values(self, place: Place) -> Array | None:
        """(snapshots, phases); None where a phase is no number."""
        found = [self.columns[one] for step in range(place.phases) if (one := place.one(step)) in self.columns]
        return np.stack(found, axis=-1) if len(found) == place.phases else None

    def needs_both(self, place: Place) -> bool:
        """Whether a value of two words has ever been negative, or too large for one."""
        column = self.columns.get(place, self.columns.get(place._replace(type="u" + place.type[1:])))
        return column is not None and bool(np.any((column < 0) | (column >= 65536)))

    def of_phases(self, phases: int, strides: Mapping[str, set[int]]) -> Iterator[tuple[Place, Array]]:
        """Every value of so many phases. ``strides``: type → how far apart."""
        for single in self.columns:
            for stride in strides.get(single.type, ()):
                place = single._replace(stride=stride, phases=phases)
                values = self.values(place)
                if values is not None:
                    yield place, values

    def empty(self, fc: int) -> set[int]:
        """Addresses that have always been zero."""
        return {
            start + int(index)
            for of, start, cells in self._segments
            if of == fc
            for index in np.nonzero(~cells.any(axis=0))[0]
        }


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
