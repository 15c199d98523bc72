"""What stands beside the voltages, currents and powers of an unknown meter: sums, reactive power, frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from edge_agent.commissioning.decoding import Array, Place, Words
from edge_agent.commissioning.relations import Vectors

_HERTZ: Final = ((49.0, 51.0), (59.0, 61.0))
_HOLDS: Final = 0.65
_SUM: Final = 0.005  # relative
_CHANCE: Final = 3.0  # bits: so many values are looked at
_NEAR, _FAR = 0.2, 4.0  # Hz from the nominal value, and bits per Hz beyond
_SEEN_TO_MOVE, _IN_STEP, _TOGETHER = 0.1, 0.3, 0.95
_CALM: Final = 0.06  # Hz: a mains frequency moves less than this in some seconds


class Companion(NamedTuple):
    """``places``: everywhere where it stands; ``scale``: to its base unit; ``bits``: how little of a chance it is."""

    bits: float
    places: list[Place]
    scale: float


def movement(values: Array) -> float:
    """Of the sum of the phases, relative."""
    whole = values.sum(axis=1)
    return float(np.ptp(whole) / whole.max())


def is_in_step(values: Array, others: Array) -> bool:
    """Whether one goes up and down with the other, phase by phase, and not a little."""
    own, theirs = (each - each.mean(axis=0) for each in (values, others))
    sizes = np.sqrt((own**2).sum(axis=0) * (theirs**2).sum(axis=0))
    correlation = (own * theirs).sum(axis=0) / np.maximum(sizes, 1e-12)
    return movement(others) > _SEEN_TO_MOVE and bool(np.all(correlation[others.any(axis=0)] > _TOGETHER))


def stays(values: Array, others: Array) -> bool:
    """Whether one hardly moves while the other does."""
    return movement(others) > _SEEN_TO_MOVE and movement(values) < _IN_STEP * movement(others)


def total(values: Array, scale: float, vectors: Vectors, beside: Place) -> Companion | None:
    """Where the sum of the phases stands. ``values``: (snapshots, phases), raw; ``vectors``: of single values."""
    wanted = values.sum(axis=1)
    if not np.abs(wanted).max() or np.abs(wanted).min() < 0.02 * np.abs(values).sum(axis=1).max():
        return None
    columns, moved = vectors.flat, float(np.ptp(wanted) / np.abs(wanted).max())
    with np.errstate(divide="ignore", invalid="ignore"):
        share = columns / wanted
        decade = np.round(np.log10(np.abs(np.median(share, axis=1))))
        error = np.quantile(np.abs(share / 10.0 ** decade[:, None] - 1), _HOLDS, axis=1)
        steps = (0.0 if beside.is_float else 2.0) / np.median(np.abs(columns), axis=1)
    steps = np.nan_to_num(steps, posinf=9.0)
    fits = (error < _SUM + steps) & (np.abs(decade) <= 4) & (np.median(share, axis=1) > 0)
    best: Companion | None = None
    for index in np.nonzero(fits)[0]:
        place = vectors.places[index][0]
        if place.is_float == beside.is_float:
            worst = max(float(error[index]), float(steps[index]), 3e-4)
            bits = -float(np.log2(2 * worst)) + float(np.log2(max(1.0, min(32.0, moved / worst))))
            bits -= _CHANCE + min(7.0, abs(place.at - beside.at) / 6) + (4.0 if decade[index] else 0.0)
            if bits > 0 and (best is None or bits > best.bits):
                best = Companion(bits, vectors.places[index], scale / 10.0 ** float(decade[index]))
    return best


def reactive(
    power: Array, apparent: Array, scale: float, vectors: Vectors, most: float = 0.015
) -> list[tuple[float, int]]:
    """Vectors that are Q by P² + Q² = S², the best first, in bits; none where P alone is as good as S.

    ``power``, ``apparent``: (snapshots, phases) in base units; ``scale``: of the power; ``most``: error, relative to S.
    """
    size = float(np.abs(apparent).max())
    if not size:
        return []
    without = float(np.median(np.abs(np.abs(power) - apparent))) / size
    misses = np.abs(np.hypot(power, vectors.values * scale) - apparent) / size
    error = np.quantile(misses, _HOLDS, axis=1).max(axis=1) if len(vectors) else np.zeros(0)
    step = 0.0 if len(vectors) and vectors.places[0][0].is_float else 0.5 * scale / size
    fits = np.nonzero((error < most + step) & (error < 0.3 * without))[0]
    found = [(float(min(12.0, -np.log2(2 * max(error[index], step, 1e-4)))), int(index)) for index in fits]
    return sorted(found, key=lambda each: (-each[0], float(misses[each[1]].max())))


class Hertz(NamedTuple):
    """What may be a mains frequency. ``power``: of ten, to hertz; ``bits``: what its values say for it."""

    place: Place
    power: int
    bits: float


def hertz(words: Words) -> list[Hertz]:
    """Everything that stays near 50 or 60."""
    found = []
    for place, column in words.columns.items():
        for power in (0,) if place.is_float else (-2, -1, -3):
            low, high = float(column.min()) * 10.0**power, float(column.max()) * 10.0**power
            if any(least <= low and high <= most for least, most in _HERTZ):
                found.append(Hertz(place, power, _liveliness(power, column * 10.0**power)))
    return found


def _liveliness(power: int, values: Array) -> float:
    """Bits: a frequency goes up and down a little, near its nominal value; the lower word of a counter only goes up."""
    low, high = float(values.min()), float(values.max())
    swings = high > low and bool(np.any(np.diff(values) < 0))
    bits = (2.5 if swings else 0.0) - 20 * max(0.0, high - low - _CALM)
    bits -= _FAR * max(0.0, min(abs(low - nominal) for nominal in (50, 60)) - _NEAR)
    return bits + {0: 0.0, -2: 0.5, -1: 0.0, -3: -1.0 if swings else -4.0}[power]


def frequency(possible: Sequence[Hertz], volts: Place, taken: Sequence[Place]) -> Companion | None:
    """The one that is nearest to the other values and most like them."""
    ends = {max(place.words()) + 1 for place in taken}
    best: Companion | None = None
    for place, power, liveliness in possible:
        if place.fc != volts.fc or any(place.overlaps(other) for other in taken):
            continue
        bits = liveliness + 4.0 - min(abs(place.at - end) for end in ends) / 12
        bits += 1.5 if place.at in ends else 0.0
        bits += 3.0 if place.is_float == volts.is_float else 0.0
        bits += 0.5 if place.size == 1 or place.is_float else 0.0
        if best is None or bits > best.bits:
            best = Companion(bits, [place], 10.0**power)
    return best
