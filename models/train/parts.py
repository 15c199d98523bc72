"""Who learns and who examines: pictures of one part never stand on both sides, nor do copies of one picture.

Copies are found by what they look like: the sign of every brightness step in a 17 × 16 thumbnail (256 bits,
"dHash"), confirmed on a 64 × 64 thumbnail, so that neighbours in a series are not taken for copies.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

TRAIN, VALIDATION, TEST = 0, 1, 2
BITS: Final = 8
"""So many of the 256 bits of two copies may differ."""
LEVELS: Final = 1.0
"""So many grey levels of 255 may two copies differ on average."""
THUMB: Final = 64
_BLOCK: Final = 512


class Copies(NamedTuple):
    """``sets``: indices of pictures that are copies of each other, two or more in each."""

    sets: tuple[tuple[int, ...], ...]

    def contradictions(self, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Those of which the labels differ: nobody can learn from them."""
        return tuple(each for each in self.sets if len({labels[i] for i in each}) > 1)


def look(thumbs: Array) -> Array:
    """Of thumbnails, n × 16 × 17, uint8: n × 4 words of 64 bits."""
    steps = thumbs[:, :, 1:] > thumbs[:, :, :-1]
    return np.packbits(steps.reshape(len(thumbs), 256), axis=1).view(np.uint64)


def copies(looks: Array, thumbs: Array) -> Copies:
    """``thumbs``: n × 64 × 64, uint8, to confirm."""
    owner = list(range(len(looks)))

    def root(index: int) -> int:
        while owner[index] != index:
            owner[index] = owner[owner[index]]
            index = owner[index]
        return index

    for start in range(0, len(looks), _BLOCK):
        block = looks[start : start + _BLOCK, None, :] ^ looks[None, start:, :]
        near = np.bitwise_count(block).sum(axis=2, dtype=np.uint16) <= BITS
        for row, column in zip(*np.nonzero(near), strict=True):
            one, other = start + int(row), start + int(column)
            if one < other and _same(thumbs[one], thumbs[other]):
                owner[root(other)] = root(one)
    sets: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(looks)):
        sets[root(index)].append(index)
    return Copies(tuple(tuple(each) for each in sets.values() if len(each) > 1))


def _same(one: Array, other: Array) -> bool:
    return float(np.abs(one.astype(np.int16) - other).mean()) <= LEVELS


def joined(groups: Sequence[str], found: Copies) -> list[str]:
    """The groups, where those that share a copy have become one."""
    owner = {name: name for name in groups}

    def root(name: str) -> str:
        while owner[name] != name:
            name = owner[name]
        return name

    for each in found.sets:
        first = root(groups[each[0]])
        for index in each[1:]:
            owner[root(groups[index])] = first
    return [root(name) for name in groups]


def split(
    groups: Sequence[str], labels: Sequence[str], shares: tuple[float, float, float], seed: int
) -> npt.NDArray[np.int8]:
    """TRAIN, VALIDATION or TEST for each picture; whole groups, each class in its share as well as groups allow."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(groups):
        members[name].append(index)
    total = Counter(labels)
    have = [Counter[str]() for _ in shares]
    part = np.zeros(len(groups), np.int8)
    order = np.random.default_rng(seed).permutation(sorted(members))
    # Large groups first: the small ones then even out what is uneven.
    for name in sorted(order.tolist(), key=lambda each: -len(members[each])):
        rarest = min({labels[index] for index in members[name]}, key=lambda label: (total[label], label))
        lacks = [share - have[k][rarest] / total[rarest] for k, share in enumerate(shares)]
        chosen = int(np.argmax(lacks))
        part[members[name]] = chosen
        have[chosen].update(labels[index] for index in members[name])
    return part


def folds(groups: Sequence[str], labels: Sequence[str], count: int, seed: int) -> npt.NDArray[np.int8]:
    """Number of the fold in which each picture is held out; whole groups."""
    members: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, label in zip(groups, labels, strict=True):
        members[name][label] += 1
    have = [Counter[str]() for _ in range(count)]
    chosen: dict[str, int] = {}
    total = Counter(labels)
    order = np.random.default_rng(seed).permutation(sorted(members)).tolist()
    for name in sorted(order, key=lambda each: -members[each].total()):
        fill = [sum(have[k][label] / total[label] for label in total) for k in range(count)]
        chosen[name] = int(np.argmin(fill))
        have[chosen[name]].update(members[name])
    return np.array([chosen[name] for name in groups], np.int8)
