"""Which registers may be the mains voltages of an unknown meter: they are in a band, alike, and hardly move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge_agent.commissioning.decoding import SIZES, Array, Place, Words

_DECADES: Final = {True: (0, 3, -3), False: (-1, -2, 0, -3, -4)}
_MAINS: Final = ((86.0, 150.0), (185.0, 530.0), (530.0, 900.0))  # the last only between phases
_HIGHEST: Final = 530.0  # from line to neutral
_STEADY: Final = 0.06  # a mains voltage moves less than this while it is watched
_ALIKE: Final = 1.15  # and its phases differ by less
_WIDEST: Final = 64  # registers from one phase to the next, where a table goes phase by phase
_NOMINAL: Final = (100, 110, 115, 120, 127, 208, 220, 230, 240, 254, 277, 347, 380, 400, 415, 440, 480)
_SINGLES: Final = 6


@dataclass(slots=True)
class Volts:
    """Voltages of the phases. ``places``: everywhere where they stand; ``lines``: those between the phases."""

    score: float
    places: list[Place]
    values: Array
    scale: float
    lines: Volts | None = field(default=None, repr=False)

    @property
    def phases(self) -> int:
        return self.places[0].phases


def candidates(words: Words) -> list[Volts]:
    """The best first; those of one phase last."""
    single = [(place, power, column) for place, column in words.columns.items() for power in _in_band(place, column)]
    threes = _distinct(_threes(single))
    ones = sorted(_distinct(_ones(single)), key=lambda each: -each.score)[:_SINGLES]
    for each in threes:
        each.lines = next((other for other in threes if _is_line(each, other)), None)
        each.score += 10.0 if each.lines else 0.0
        each.score -= 6.0 if any(_begins_with_mean(each, other) for other in threes) else 0.0
    threes = [each for each in threes if each.values.mean() < _HIGHEST]
    return sorted(threes, key=lambda each: -each.score) + ones


def _in_band(place: Place, column: Array) -> Iterator[int]:
    low, high = float(column.min()), float(column.max())
    if low <= 0 or high > low * (1 + _STEADY):
        return
    for power in _DECADES[place.is_float]:
        if any(least <= low * 10.0**power and high * 10.0**power <= most for least, most in _MAINS):
            yield power


Single = tuple[Place, int, Array]


def _threes(single: Sequence[Single]) -> Iterator[Volts]:
    table = {(place, power): column for place, power, column in single}
    for place, power, first in single:
        for stride in range(place.size, _WIDEST + 1):
            second = table.get((place._replace(at=place.at + stride), power))
            third = table.get((place._replace(at=place.at + 2 * stride), power))
            if second is None or third is None:
                continue
            values = np.stack([first, second, third], axis=-1) * 10.0**power
            if float(values.max()) < _ALIKE * float(values.min()):
                whole = place._replace(stride=stride, phases=3)
                yield Volts(_score(whole, power, values), [whole], values, 10.0**power)


def _ones(single: Sequence[Single]) -> Iterator[Volts]:
    for place, power, column in single:
        values = column[:, None] * 10.0**power
        whole = place._replace(stride=place.size)
        if values.mean() < _HIGHEST:
            yield Volts(_score(whole, power, values) - 10, [whole], values, 10.0**power)


def _score(place: Place, power: int, values: Array) -> float:
    level = float(values.mean())
    score = 9.0 if place.is_float else 4.0
    score += 4.0 if np.ptp(values, axis=0).min() > 0 else 0.0
    score += 2.0 if min(abs(level / nominal - 1) for nominal in _NOMINAL) < 0.07 else 0.0
    score += 3.0 if place.stride == place.size else 1.5 if place.stride <= 2 * place.size else 0.0
    score -= 3.0 if power > 0 or power < -3 or (place.is_float and power) else 0.0
    score -= 2.0 if power == 0 and not place.is_float else 0.0
    return score - 60 * float((np.ptp(values, axis=0) / level).max())


def _distinct(found: Iterator[Volts]) -> list[Volts]:
    """Of decodings that say the same, one with all its places."""
    kept: dict[tuple[bool, bytes], Volts] = {}
    for each in found:
        key = each.places[0].is_float, np.round(each.values, 4).tobytes()
        known = kept.setdefault(key, each)
        if known is not each:
            known.places += each.places
            known.score = max(known.score, each.score)
    return list(kept.values())


def _is_line(volts: Volts, other: Volts) -> bool:
    """Whether the others are the voltages between these: by the cosine rule, phases 120° apart."""
    a, b, c = (volts.values[..., index] for index in range(3))
    right = np.stack([np.sqrt(x * x + y * y + x * y) for x, y in ((a, b), (b, c), (c, a))], axis=-1)
    return float(np.quantile(np.abs(other.values / right - 1), 0.8)) < 0.012 and other.scale == volts.scale


def _begins_with_mean(volts: Volts, other: Volts) -> bool:
    """Whether the first is the mean of three others, of which the first two follow it: it is no phase's own."""
    if other.scale != volts.scale or not np.array_equal(other.values[..., :2], volts.values[..., 1:]):
        return False
    apart = np.abs(other.values.mean(axis=-1) - volts.values[..., 0])
    return bool(np.quantile(apart, 0.8) <= (0.02 if volts.places[0].is_float else volts.scale))


def strides(volts: Volts) -> dict[str, set[int]]:
    """How far apart the phases of other quantities may be: with as many spare words, or in the same record."""
    if volts.phases == 1:
        return {kind: {size} for kind, size in SIZES.items()}
    spare = {place.stride - place.size for place in volts.places}
    found = {kind: {size + more for more in spare if more <= 4} | {size} for kind, size in SIZES.items()}
    for kind, size in SIZES.items():
        found[kind] |= {place.stride for place in volts.places if place.stride >= size}
    return found
