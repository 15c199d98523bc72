"""Which registers beside certain voltages may be currents, powers and power factors: the combinations that agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from edge_agent.commissioning import voltages
from edge_agent.commissioning.decoding import Array, Place, Words
from edge_agent.commissioning.relations import Match, Relations, Vectors, clamped, logs
from edge_agent.commissioning.voltages import Volts

MOVED: Final = 1.7  # a load may have moved so much between the clamp reading and the search
_CLOSE: Final = 1.05
_MOST: Final = 250
_MOST_FACTORS: Final = 140
_ALIKE: Final = 4.0  # bits: active and apparent power have their decimal points at one place
_POOR: Final = 0.12  # a power factor below it is rare
_EXCHANGED: Final = 5.0  # bits
_MEAN: Final = 6.0  # bits
_STILL: Final = 8.0  # bits: among so many pairs of numbers some stand in any one ratio
_COARSE: Final = 3.0  # whole numbers below it agree with anything
_LIVE: Final = 0.05  # of the largest current
_TOGETHER: Final = 0.01  # the least power per ampere of a phase, relative to that of another

Combination = tuple[float, Match | None, Match | None]
"""Bits, P = V·I·PF and S = V·I; at least one of the two."""


class Agreements:
    """Everything that hangs on certain voltages. ``vectors``: values of each phase; ``singles``: all values."""

    def __init__(self, words: Words, volts: Volts, clamps: Mapping[str, float]) -> None:
        self.words, self.volts, self.clamps = words, volts, clamps
        self.beside = volts.places[0]
        own = [place for place in volts.places if place.size == min(each.size for each in volts.places)]
        taken = set().union(*(place.words() for place in own[:1]))
        self.vectors = Vectors(
            (place, values)
            for place, values in words.of_phases(volts.phases, voltages.strides(volts))
            if place.fc == self.beside.fc
            and place.is_float == self.beside.is_float
            and not taken & place.words()
            and (place.size == 1 or place.is_float or np.any(values % 65536))  # else another value's upper word
        )
        self.singles = Vectors(
            (place, column[:, None])
            for place, column in words.columns.items()
            if place.fc == self.beside.fc and place.is_float == self.beside.is_float
        )
        self.near = sorted(range(len(self.vectors)), key=self.distance)

    def distance(self, index: int) -> float:
        return min(abs(place.at - self.beside.at) for place in self.vectors.places[index])

    def combinations(self) -> Iterator[Combination]:
        flat = self.vectors.flat
        currents = [index for index in self.near if flat[index].max() > 0 and flat[index].max() < 1e7][:_MOST]
        step = 0.0 if self.beside.is_float else 0.2
        through, doubt = logs(self.volts.values.reshape(1, -1), np.array([[step * self.volts.scale]]))
        relations = Relations(through[0], doubt[0], self.vectors, self.volts.phases)
        factors: dict[int, list[tuple[float, Match]]] = {}
        apparents: dict[int, list[tuple[float, Match]]] = {}
        for kept, matches in (
            (factors, relations.factors(currents, self._factors())),
            (apparents, relations.apparents(currents)),
        ):
            for match in matches:
                bits = self._weight(match)
                if bits > 0:
                    kept.setdefault(match.current, []).append((bits, match))
        for current in factors.keys() | apparents.keys():
            with_factor = sorted(factors.get(current, []), key=lambda each: -each[0])[:3]
            with_apparent = sorted(apparents.get(current, []), key=lambda each: -each[0])[:2]
            size = self._size(current)
            for bits, factor in [*with_factor, (0.0, None)]:
                for more, apparent in [*with_apparent, (0.0, None)]:
                    if factor and apparent and self.vectors.values[apparent.power].min() < 0:
                        continue  # no apparent power is negative
                    if (factor or apparent) and self._is_apart(factor, apparent):
                        alike = factor is not None and apparent is not None and factor.decade == apparent.decade
                        yield bits + more + size + (_ALIKE if alike else 0.0), factor, apparent

    def _weight(self, match: Match) -> float:
        """Bits of an agreement, less what is unusual about it."""
        if not self.goes_with(match.current, match.power) or self._is_coarse(match.power):
            return 0.0
        unusual = 0.0
        if self.beside.is_float:
            unusual += {0: 0.0, -3: 1.0, 3: 5.0}.get(match.decade, 9.0)
            unusual += 0.0 if match.scale == 1 else 3.0
        else:
            unusual += 0.0 if -4 <= match.decade <= 0 else 2.0 if -5 <= match.decade <= 2 else 8.0
            unusual += {0.001: 0.0, 0.01: 1.0}.get(match.scale, 3.0 if match.factor >= 0 else 0.0)
        if match.factor >= 0:
            usual = float(np.median(np.abs(self.vectors.values[match.factor]).max(axis=-1))) * match.scale
            unusual += 4.0 if usual < _POOR else 0.0
            # The two stand for each other in the product; it is the current that moves with the load.
            calm, restless = (_restless(self.vectors.values[index]) for index in (match.current, match.factor))
            unusual += _EXCHANGED if restless > 2 * calm + 0.05 else 0.0
            is_still = not np.any(np.ptp(self.vectors.values[match.factor], axis=0))
            unusual += _STILL if is_still and self.volts.phases == 1 else 0.0
        if self.clamps:
            power = clamped(self.vectors.values[match.current], self.clamps, MOVED)
            unusual += 6.0 if power is not None and not -3 <= power - match.decade <= 4 else 0.0
        spots = [index for index in (match.current, match.power, match.factor) if index >= 0]
        taste = sum(max(self.taste(place) for place in self.vectors.places[index]) for index in spots)
        return match.bits + taste - unusual

    def _is_coarse(self, index: int) -> bool:
        sizes = np.abs(self.vectors.flat[index])
        return not self.beside.is_float and float(np.median(sizes[sizes > 0])) < _COARSE

    def goes_with(self, current: int, other: int) -> bool:
        """Whether it is something wherever much current flows."""
        amps = np.abs(self.vectors.values[current]).mean(axis=0)
        live = amps > _LIVE * amps.max()
        sizes = np.abs(self.vectors.values[other]).max(axis=0) / np.maximum(amps, 1e-12)
        return bool(np.all(sizes[live] > _TOGETHER * sizes[live].max()))

    def _size(self, current: int) -> float:
        """What a clamp meter says to it, and the sign that no current has."""
        values = self.vectors.values[current]
        bits = -3.0 if values.min() < 0 else 0.0
        bits -= 10.0 if np.ptp(values) == 0 else 0.0
        bits -= 8.0 if values.shape[1] == 3 and np.sum(values.any(axis=0)) < 2 else 0.0
        bits -= _MEAN if any(self._begins_with_mean(place) for place in self.vectors.places[current]) else 0.0
        bits -= 4.0 if _restless(self.volts.values) > _restless(values) else 0.0  # it is the current that moves
        if self.clamps:
            if clamped(values, self.clamps, _CLOSE) is not None:
                return bits + 4.0
            return bits + (1.0 if clamped(values, self.clamps, MOVED) is not None else -2.0)
        return bits

    def _begins_with_mean(self, place: Place) -> bool:
        """Whether the first is the mean of three others, of which the first two follow it."""
        others = self.words.values(place._replace(at=place.at + place.stride)) if place.phases > 1 else None
        if others is None or not others.any():
            return False
        apart = np.abs(others.mean(axis=-1) - self.words.columns[place.one(0)])
        return bool(np.quantile(apart, 0.8) <= (0.003 * float(np.abs(others).mean()) if place.is_float else 1.0))

    def taste(self, place: Place) -> float:
        """Between decodings: like the voltages, and not far from them."""
        like = any(place.stride - place.size == own.stride - own.size for own in self.volts.places)
        record = any(place.stride == own.stride for own in self.volts.places)
        closest = min(own.stride - own.size for own in self.volts.places)
        taste = (1.5 if like or record else 0.0) + (0.7 if place.stride - place.size == closest else 0.0)
        return taste - min(2.0, abs(place.at - self.beside.at) / 60)

    def _factors(self) -> list[tuple[int, float]]:
        """Vectors that may be power factors, and their scales."""
        found = []
        for index in self.near:
            values = self.vectors.values[index]
            for power in (0, -2) if self.beside.is_float else (-3, -2, -4):
                sizes = np.abs(values) * 10.0**power
                most = float(sizes.max())
                still = np.ptp(sizes) == 0 and most > 0.9995  # ones that never move are no power factors
                if most <= 1.0005 and not still and float(np.median(sizes[sizes > 0])) > 0.03 and most > 0.1:
                    found.append((index, 10.0**power))
        return found[:_MOST_FACTORS]

    def _is_apart(self, factor: Match | None, apparent: Match | None) -> bool:
        """Whether each of them has room of its own."""
        used = [match.current for match in (factor or apparent,) if match]
        used += [factor.power, factor.factor] if factor else []
        used += [apparent.power] if apparent else []
        taken: list[Place] = []
        for index in used:
            place = next(
                (one for one in self.vectors.places[index] if not any(one.overlaps(other) for other in taken)), None
            )
            if place is None:
                return False
            taken.append(place)
        return len(set(used)) == len(used)


def _restless(values: Array) -> float:
    """How much it moves, relative to its size."""
    return float(np.ptp(values, axis=0).max() / max(float(np.abs(values).max()), 1e-12))
