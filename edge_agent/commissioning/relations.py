"""Which registers are current and power: S = V·I and P = V·I·PF hold in every snapshot, up to a power of ten.

What agrees is counted in bits: how improbable it would be that registers of something else agree as well. Only the
mantissa counts, because nobody knows yet where the decimal point stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from edge_agent.commissioning.decoding import Array, Place
from edge_agent.commissioning.finding import PHASES

_EXACT: Final = 0.012  # of a power of ten, in log10: 2.8 %
_HOLDS: Final = 0.65  # share of the readings: a load may step between two questions of one snapshot
_FINEST: Final = 5e-7  # an agreement better than this says no more
_STEP: Final = 0.45 * 0.434  # of a whole number, relative, in log10
_LITTLE: Final = -1.3  # in log10, of the largest one
_EACH: Final = 0.5  # and of each phase
_ALWAYS: Final = 3.0  # bits: of two that agree most of the time, the one that does always
_MOST_BITS: Final = 18.0
_MOVED_BITS: Final = 6.0
_MOST_DECADES: Final = 7


class Vectors:
    """Values of a kind, each once. ``places``: everywhere where it stands, as what; ``values``: (n, snapshots, k)."""

    def __init__(self, found: Iterable[tuple[Place, Array]]) -> None:
        alike: dict[tuple[bool, bytes], int] = {}
        self.places: list[list[Place]] = []
        values = []
        for place, column in found:
            if not column.any():
                continue
            key = place.is_float, np.ascontiguousarray(column).tobytes()
            if key not in alike:
                alike[key] = len(self.places)
                self.places.append([])
                values.append(column)
            self.places[alike[key]].append(place)
        self.values: Array = np.array(values) if values else np.zeros((0, 1, 1))
        self.flat = self.values.reshape(len(self.places), self.values[0].size if values else 1)
        steps = np.array([0.0 if places[0].is_float else _STEP for places in self.places])
        self.logs, self.doubts = logs(self.flat, steps[:, None])

    def __len__(self) -> int:
        return len(self.places)


class Match(NamedTuple):
    """Indices of vectors: V·I (·factor) = power."""

    bits: float
    decade: int
    current: int
    power: int
    factor: int = -1
    scale: float = 1.0  # of the factor


def logs(flat: Array, steps: Array) -> tuple[Array, Array]:
    """log10 of the amounts (−∞ for zeros), and how well each is known."""
    sizes = np.abs(flat)
    with np.errstate(divide="ignore", invalid="ignore"):
        doubts = np.where(sizes > 0, steps / sizes * (1 + 0.4 * steps / _STEP / sizes), 0.0)
        found = np.log10(sizes)
    return found, np.maximum(doubts, _FINEST / 4)


def _agreeing(lefts: Array, rights: Array, doubts: Array, decade: Array, phases: int) -> tuple[Array, Array]:
    """(which rows are a power of ten apart in most readings, bits of each). Shape: (n, snapshots × phases)."""
    with np.errstate(invalid="ignore"):
        apart = rights - lefts
    known = np.isfinite(apart)
    # Zero where there should be much is a contradiction; zero and zero is none, nor is zero and next to nothing.
    little = np.where(np.isneginf(lefts), rights - rights.max(axis=1)[:, None], lefts - lefts.max(axis=1)[:, None])
    judged = ~np.isnan(apart) & (known | (little > _LITTLE))
    errors = np.where(known, np.abs(apart - decade[:, None]), np.nan)
    held = (errors <= _EXACT + doubts) & known
    good = (held.sum(axis=1) >= _HOLDS * judged.sum(axis=1)) & (known.sum(axis=1) >= 0.3 * apart.shape[1])
    bits = np.zeros(len(apart))
    for phase in range(phases):
        mine = slice(phase, None, phases)
        seen = known[:, mine]
        count = seen.sum(axis=1)
        good &= held[:, mine].sum(axis=1) >= _EACH * judged[:, mine].sum(axis=1)
        rank = np.maximum(np.ceil(_HOLDS * count).astype(int) - 1, 0)[:, None]
        typical = np.take_along_axis(np.sort(errors[:, mine], axis=1), rank, axis=1)[:, 0]  # NaN sorts to the end
        slack = np.take_along_axis(np.sort(doubts[:, mine], axis=1), rank, axis=1)[:, 0]
        typical = np.maximum(np.maximum(typical, slack), _FINEST)
        moved = np.where(seen, lefts[:, mine], -np.inf).max(axis=1) - np.where(seen, lefts[:, mine], np.inf).min(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = np.clip(-np.log2(2 * typical), 0, _MOST_BITS) + np.clip(
                np.log2(moved / (2 * typical)), 0, _MOVED_BITS
            )
        bits += np.where(count > 0, np.nan_to_num(own, neginf=0.0, posinf=0.0), 0.0)
    return good, bits + _ALWAYS * held.sum(axis=1) / np.maximum(judged.sum(axis=1), 1)


@dataclass(slots=True)
class Relations:
    """What may be said of the vectors beside certain voltages. ``through``: log10 of the volts, (snapshots × k,)."""

    volts: Array
    doubt: Array
    vectors: Vectors
    phases: int

    def apparents(self, currents: Sequence[int]) -> Iterator[Match]:
        """S = V·I."""
        for current in currents:
            yield from self._against(current, self.volts[None, :], self.doubt[None, :], [(-1, 1.0)])

    def factors(self, currents: Sequence[int], factors: Sequence[tuple[int, float]]) -> Iterator[Match]:
        """P = V·I·PF. ``factors``: vectors that may be power factors, and their scales."""
        if not factors:
            return
        which = [index for index, _ in factors]
        left = self.volts + self.vectors.logs[which] + np.log10([[scale] for _, scale in factors])
        doubts = self.doubt + self.vectors.doubts[which]
        for current in currents:
            yield from self._against(current, left, doubts, factors)

    def _against(
        self, current: int, left: Array, doubts: Array, factors: Sequence[tuple[int, float]]
    ) -> Iterator[Match]:
        """Every vector that agrees with a current times each row of ``left``; first a sieve of one reading."""
        vectors = self.vectors
        left, doubts = left + vectors.logs[current], doubts + vectors.doubts[current]
        known = np.isfinite(vectors.logs[current])
        if not known.any():
            return
        one = int(np.argmax(np.where(known, vectors.logs[current], -np.inf)))  # the reading that is known best
        with np.errstate(invalid="ignore"):
            apart = vectors.logs[None, :, one] - left[:, None, one]
            near = np.abs(apart - np.round(apart)) <= 2 * _EXACT + doubts[:, None, one] + vectors.doubts[None, :, one]
        row, power = np.nonzero(near & np.isfinite(apart) & (np.abs(np.nan_to_num(apart)) <= _MOST_DECADES))
        if not len(row):
            return
        decade = np.round(apart[row, power])
        slack = doubts[row] + vectors.doubts[power]
        good, bits = _agreeing(left[row], vectors.logs[power], slack, decade, self.phases)
        for index in np.nonzero(good)[0]:
            factor, scale = factors[row[index]]
            found = int(power[index])
            if len({found, current, factor}) == 3:
                yield Match(float(bits[index]), int(decade[index]), current, found, factor, scale)


def clamped(amps: Array, clamps: Mapping[str, float], slack: float) -> int | None:
    """The power of ten that puts every clamp reading among the currents seen, give or take; the nearest one.

    ``amps``: (snapshots, phases) as read.
    """
    sizes = np.abs(amps)
    told = [
        (sizes[:, PHASES.index(phase)], value)
        for phase, value in clamps.items()
        if PHASES.index(phase) < sizes.shape[1] and sizes[:, PHASES.index(phase)].min() > 0
    ]
    fitting = [
        power
        for power in range(-4, 4)
        if all(seen.min() / slack <= value / 10.0**power <= slack * seen.max() for seen, value in told)
    ]
    if not told or not fitting:
        return None
    seen, value = told[0]
    return min(fitting, key=lambda power: abs(float(np.log10(value / 10.0**power / np.median(seen)))))
