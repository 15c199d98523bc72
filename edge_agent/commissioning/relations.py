"""Which registers are current and power: S = V·I and P = V·I·PF hold in every snapshot, up to a power of ten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np

from edge_agent.commissioning.decoding import Array, Place, Triples, Words
from edge_agent.commissioning.finding import PHASES

_EXACT: Final = 0.012  # of a power of ten, in log10: 2.8 %
_HOLDS: Final = 0.65  # share of the readings: a load may step between two questions of one snapshot
_STRICT: Final = 1200.0  # what an error in log10 costs against the taste of a decoding
_MOST: Final = 500
_CLOSE: Final = 1.05
_MOVED: Final = 1.7  # a load may have moved so much between the clamp reading and the search
_MOST_FACTORS: Final = 60


class Factor(NamedTuple):
    """P = V·I·PF: the triples of power and factor, the power of ten, and the factor's own scale."""

    rank: float
    power: int
    factor: int
    decade: int
    scale: float


class Product(NamedTuple):
    """S = V·I, or P within it: the triple and the power of ten."""

    rank: float
    triple: int
    decade: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A current and what confirms it; indices of triples."""

    score: float
    current: int
    apparent: Product | None
    factor: Factor | None
    power: Product | None


class Relations:
    """What may be said of the triples beside certain voltages. ``clamps``: what a clamp meter says, by phase."""

    def __init__(
        self, words: Words, beside: Place, volts: Array, triples: Triples, clamps: Mapping[str, float]
    ) -> None:
        self._words, self._beside, self._volts, self._triples, self._clamps = words, beside, volts, triples, clamps
        flat = triples.values.reshape(len(triples.places), -1)
        moving = np.array([np.ptp(values, axis=0).max() > 1e-4 * np.abs(values).max() for values in triples.values])
        self._flat = flat
        self._currents = self._tasty(np.all(flat > 0, axis=1) & (flat.max(axis=1) < 1e7) & moving)
        self._live = self._tasty(np.all(np.abs(flat) > 0, axis=1) & moving)

    def best(self) -> Confirmed | None:
        """The current and powers that confirm each other best; None where nothing does."""
        if not self._currents:
            return None
        through = np.log10(self._flat[self._currents]) + np.log10(self._volts.reshape(-1))
        factors = self._factors(through)
        apparents = self._apparents(through)
        found = []
        for position, current in enumerate(self._currents):
            factor, apparent = factors.get(position), apparents.get(position)
            if factor and apparent and self._collide(apparent.triple, factor.power, factor.factor):
                apparent = None
            power = self._power(current, apparent) if apparent and not factors else None
            if factor or apparent:
                ranks = sum(each.rank for each in (factor, apparent, power) if each)
                score = self._words.taste(self._triples.places[current]) + ranks
                found.append(Confirmed(score, current, apparent, factor, power))
        return max(found, key=lambda each: each.score, default=None)

    def total(self, values: Array, beside: Place) -> tuple[Place, int] | None:
        """Where the sum of three stands: its place and power of ten."""
        wanted = values.sum(axis=1)
        if np.abs(wanted).min() <= 0:
            return None
        columns = self._words.columns
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.nan_to_num(np.log10(np.abs(columns / wanted)), nan=9, posinf=9, neginf=-9)
        whole = np.round(np.median(apart, axis=1))
        error = np.quantile(np.abs(apart - whole[:, None]), _HOLDS, axis=1)
        fits = (error < _EXACT) & (np.abs(whole) <= 4) & np.all(columns * wanted > 0, axis=1)
        ranked = []
        for index in np.nonzero(fits)[0]:
            place = self._words.singles[index][0]
            if place.fc == beside.fc and np.ptp(columns[index]) > 0:
                rank = self._words.single_taste(place) - 100 * float(error[index])
                rank += (1.0 if place.type == beside.type else 0.0) + (1.0 if whole[index] == 0 else 0.0)
                ranked.append((rank, place, int(whole[index])))
        return max(ranked)[1:] if ranked else None

    def clamped(self, amps: Array, slack: float = _MOVED) -> int | None:
        """The power of ten that puts every clamp reading among the currents seen, give or take; the nearest one."""
        told = [(amps[:, PHASES.index(phase)], value) for phase, value in self._clamps.items()]
        fitting = [
            power
            for power in range(-4, 4)
            if all(seen.min() / slack <= value / 10.0**power <= slack * seen.max() for seen, value in told)
        ]
        if not told or not fitting:
            return None
        seen, value = told[0]
        return min(fitting, key=lambda power: abs(float(np.log10(value / 10.0**power / np.median(seen)))))

    # --- the parts

    def _tasty(self, wanted: Array) -> list[int]:
        order = sorted(np.nonzero(wanted)[0], key=lambda index: -self._words.taste(self._triples.places[index]))
        return [int(index) for index in order[:_MOST]]

    def _collide(self, *indices: int) -> bool:
        return any(self._triples.places[a].overlaps(self._triples.places[b]) for a, b in combinations(indices, 2))

    def _fit(self, current: int, decade: int) -> float | None:
        """How well a clamp meter agrees: a whole power of ten is likely. None: nobody uses such a scale."""
        if not self._clamps:
            return 0.0
        amps = self._triples.values[current]
        power = self.clamped(amps)
        if power is not None:
            usual = -4 <= power <= 3 and -3 <= power - decade <= 4
            return None if not usual else 8.0 if self.clamped(amps, _CLOSE) is not None else 5.0
        rough = float(np.log10(max(self._clamps.values()) / float(np.median(amps))))
        return 0.0 if -4.5 <= rough <= 3.5 and -3.5 <= rough - decade <= 4.5 else None

    def _apparents(self, through: Array) -> dict[int, Product]:
        """Position of the current → S = V·I."""
        found: dict[int, Product] = {}
        for position, other, decade, error in _matches(through, np.log10(self._flat[self._currents])):
            current, triple = self._currents[position], self._currents[other]
            fit = self._fit(current, decade)
            if fit is None or self._collide(current, triple):
                continue
            rank = 10.0 + fit + self._words.taste(self._triples.places[triple]) - _STRICT * error
            if position not in found or rank > found[position].rank:
                found[position] = Product(rank, triple, decade)
        return found

    def _factors(self, through: Array) -> dict[int, Factor]:
        """Position of the current → P = V·I·PF."""
        powers = np.log10(np.abs(self._flat[self._live]))
        found: dict[int, Factor] = {}
        for which, values, scale in self._power_factors():
            flat = values.reshape(-1)
            for position, other, decade, error in _matches(through + np.log10(np.abs(flat)), powers):
                current, power = self._currents[position], self._live[other]
                against = np.mean(np.sign(self._flat[power]) * np.sign(flat) < 0) > 0.02 and flat.min() < 0
                fit = self._fit(current, decade)
                if against or fit is None or self._collide(which, current, power):
                    continue
                taste = self._words.taste(self._triples.places[power]) + self._words.taste(self._triples.places[which])
                rank = 14.0 + fit + taste - _STRICT * error - (4.0 if scale < 0.0005 else 0.0)  # a rare one
                if position not in found or rank > found[position].rank:
                    found[position] = Factor(rank, power, which, decade, scale)
        return found

    def _power_factors(self) -> list[tuple[int, Array, float]]:
        """What may be power factors: the triple, its values, its scale."""
        found = []
        for index, (place, values) in enumerate(zip(*self._triples, strict=True)):
            whole = place.type != "f32"
            for power in (-3, -2, -4) if whole else (0,):
                scaled = values * 10.0**power
                most, least = float(np.abs(scaled).max()), float(np.abs(scaled).min())
                still = np.ptp(scaled) == 0 and most > 0.999  # ones that never move are no power factors
                if most <= 1.0005 and least > 0.04 and (not whole or most > 0.15) and not still:
                    found.append((index, scaled, 10.0**power))
        found.sort(key=lambda each: -self._words.taste(self._triples.places[each[0]]))
        return found[:_MOST_FACTORS]

    def _power(self, current: int, apparent: Product) -> Product | None:
        """Powers without power factors: within V·I, like the apparent power or with their sum beside them."""
        ranked = []
        alike = self._triples.places[apparent.triple].type[1:]
        for index in self._live:
            place, values = self._triples.places[index], self._triples.values[index]
            if self._collide(index, current) or self._collide(index, apparent.triple):
                continue
            ratio = np.abs(values) / (self._volts * self._triples.values[current])
            decade = int(np.ceil(np.log10(ratio.max() / 1.03)))
            level = float(np.median(ratio)) / 10.0**decade
            even = ratio.min(axis=0).min() > 0.05 * ratio.max()
            if not (0.12 < level <= 1.03 and even) or (level > 0.999 and np.ptp(ratio) < 1e-4 * ratio.max()):
                continue
            like_apparent = decade == apparent.decade and place.type[1:] == alike
            summed = self.total(values, place) is not None
            if summed or like_apparent:
                # Power and reactive power look alike here: tables name power first, and it moves more with the load.
                rank = (0.5 if summed else 0.0) + (3.0 if like_apparent else 0.0) + self._words.taste(place)
                size = np.abs(values).sum(axis=1)
                rank += 8 * float(np.ptp(size) / size.max()) + level - (place.at - self._beside.at) / 60
                ranked.append(Product(rank, index, decade))
        return max(ranked, default=None)


def _matches(left: Array, right: Array) -> Iterator[tuple[int, int, int, float]]:
    """Rows whose difference is one whole number everywhere: (index left, index right, power of ten, error)."""
    for index, row in enumerate(left):
        apart = right - row
        whole = np.round(np.median(apart, axis=1))
        error = np.quantile(np.abs(apart - whole[:, None]), _HOLDS, axis=1)
        for other in np.nonzero((error < _EXACT) & (np.abs(whole) <= 7))[0]:
            yield index, int(other), int(whole[other]), float(error[other])


def reactive(
    words: Words, triples: Triples, taken: Sequence[Place], power: Array, apparent: Array, scale: float
) -> Place | None:
    """Where Q stands: P² + Q² = S². None where P alone is as good as S, so that nothing shows Q."""
    without = float(np.median(np.abs(np.abs(power) - apparent) / apparent))
    ranked = []
    for place, values in zip(*triples, strict=True):
        if any(place.overlaps(other) for other in taken) or not np.abs(values).max():
            continue
        error = float(np.median(np.abs(np.hypot(power, values * scale) - apparent) / apparent))
        if error < 0.02 and error < 0.3 * without:
            ranked.append((words.taste(place) - _STRICT * error, place))
    return max(ranked)[1] if ranked else None
