"""What the registers of an unknown meter mean, told by physics alone.

Every place is decoded in every way (word order, byte order, type); what is a voltage is told by its band, what are
current and power by the relations between them. The size of the current cannot be told from inside the meter: it
needs a clamp meter, else it is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge_agent.commissioning import companions, voltages
from edge_agent.commissioning.agreements import MOVED, Agreements
from edge_agent.commissioning.arranging import Group, settle
from edge_agent.commissioning.decoding import Array, Memory, Place, Words
from edge_agent.commissioning.relations import Match, clamped
from edge_agent.commissioning.voltages import Volts

_FLOAT_AMPS: Final = (0, -3)  # a meter that has floats gives amperes, or milliamperes
_FOLLOWED: Final = 12  # combinations of one voltage that are looked at closely
_LEAST, _HALF, _MOST = 0.03, 0.5, 1.004  # of the apparent power
_MOST_ONCE: Final = 1.03  # a load may step between two questions of one reading
_LARGER, _ABOVE = 1.0002, 0.9  # share of the readings; what is above S so often is S itself
_MOST_READINGS: Final = 0.8
_SAME: Final = 0.02
_DISTORTED: Final = 0.08  # harmonics make S so much larger than P and Q say
_MOST_OF_SUM, _MOST_OF_Q = 5.0, 7.0  # bits: what may be missing must not outweigh what has to be there
_OPEN: Final = 10.0  # bits between two word orders, where no value has needed its upper word
_VOLTAGES: Final = 12  # candidates that are followed up
_CLEAR: Final = 100.0  # bits; beyond, voltages that look less like voltages are not followed up
_BEHIND: Final = 5.0
_ENOUGH: Final = 55.0
_ENOUGH_OF_ONE, _MEDIUM_OF_ONE = 42.0, 52.0  # phase
_SURE: Final = 80.0
ORDERS: Final = (("big", "big"), ("little", "big"), ("big", "little"), ("little", "little"))


@dataclass(slots=True)
class Layout:
    """A proposal. ``rows``: quantity → place and scale to its base unit; ``assumed``: what was not measured."""

    word_order: str
    byte_order: str
    rows: dict[str, tuple[Place, float]] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    score: float = 0.0

    @property
    def confidence(self) -> str:
        """How sure it is, in a word."""
        if not self.is_enough:
            return "low"
        if "voltage" in self.rows and self.score < _MEDIUM_OF_ONE:
            return "low"
        return "high" if self.score >= _SURE and not self.assumed else "medium"

    @property
    def is_enough(self) -> bool:
        """Voltages, currents and powers of every phase were found and confirm each other."""
        if "voltage" in self.rows:
            return self.score >= _ENOUGH_OF_ONE and "active_power" in self.rows
        return self.score >= _ENOUGH and "active_power_l1" in self.rows

    def places(self) -> list[Place]:
        return [place for place, _ in self.rows.values()]


def solve(snapshots: Sequence[Memory], clamps: Mapping[str, float] | None = None) -> Layout | None:
    """The best layout for what was read several times; None where there is no voltage.

    ``clamps``: what a clamp meter said meanwhile, by phase.
    """
    told = {phase: amps for phase, amps in (clamps or {}).items() if amps > 0}
    every = [Words(snapshots, word, byte) for word, byte in ORDERS]
    ranked = [(volts, words) for words in every for volts in voltages.candidates(words)]
    best: Layout | None = None
    orders: dict[tuple[str, str], float] = {}
    for phases in (3, 1):
        mine = sorted((each for each in ranked if each[0].phases == phases), key=lambda each: -each[0].score)
        for volts, words in mine[:_VOLTAGES]:
            if best is not None and best.score > _CLEAR and volts.score < mine[0][0].score - _BEHIND:
                break
            found = _Proposals(words, volts, told).best()
            if found is None:
                continue
            orders[words.orders] = max(found.score, orders.get(words.orders, found.score))
            if best is None or found.score > best.score:
                best = found
        if best is not None and best.is_enough:
            break
    if best is not None:
        _doubt_order(best, every, orders)
    return best


def _doubt_order(layout: Layout, every: Sequence[Words], scores: Mapping[tuple[str, str], float]) -> None:
    """Say that the word order is assumed, where no value has needed both of its words and the other fits as well."""
    mine = next(words for words in every if words.orders == (layout.word_order, layout.byte_order))
    other = ("big" if layout.word_order == "little" else "little", layout.byte_order)
    wide = [place for place in layout.places() if place.size == 2]
    if not wide or scores.get(other, -np.inf) < layout.score - _OPEN:
        return
    if not any(place.is_float or mine.needs_both(place) for place in wide):
        layout.assumed.append("the word order: no value has been so large that it needs two registers")


class _Proposals:
    """Every layout that hangs on certain voltages."""

    def __init__(self, words: Words, volts: Volts, clamps: Mapping[str, float]) -> None:
        self._words, self._volts, self._clamps = words, volts, clamps
        self._hertz = companions.hertz(words)
        self._beside = volts.places[0]
        self._agreements = Agreements(words, volts, clamps)
        self._vectors, self._singles = self._agreements.vectors, self._agreements.singles

    def best(self) -> Layout | None:
        """The best of the combinations that agree best; without any, the voltages alone."""
        ranked = sorted(self._agreements.combinations(), key=lambda each: -each[0])[:_FOLLOWED]
        found = [self._layout(bits, factor, apparent) for bits, factor, apparent in ranked]
        return max(found, key=lambda layout: layout.score, default=None) or self._alone()

    def _alone(self) -> Layout:
        layout = Layout(*self._words.orders, score=self._volts.score)
        layout.score += self._settle(layout, self._voltages(layout)) + self._frequency(layout)
        return layout

    def _voltages(self, layout: Layout) -> list[Group]:
        volts = self._volts
        found = [Group("voltage", volts.places, volts.scale)]
        layout.evidence.append(f"voltages of {float(volts.values.mean()):.1f} V at {self._beside.at:#06x}")
        if volts.lines is not None:
            found.append(Group("line", volts.lines.places, volts.lines.scale))
            layout.evidence.append(f"√3 times as much between the phases at {volts.lines.places[0].at:#06x}")
        return found

    def _layout(self, bits: float, factor: Match | None, apparent: Match | None) -> Layout:
        layout = Layout(*self._words.orders, score=self._volts.score + bits)
        groups = self._voltages(layout)
        match = factor or apparent
        assert match is not None  # noqa: S101 - one of them is there
        amps = self._vectors.values[match.current]
        scale = self._scale(layout, amps)
        groups.append(Group("current", self._vectors.places[match.current], scale))
        layout.evidence.append(f"currents at {self._vectors.places[match.current][0].at:#06x}")
        power = factor.power if factor is not None else self._unproven(layout, match, scale)
        if apparent is not None and apparent.power != power:
            places = self._vectors.places[apparent.power]
            groups.append(Group("apparent_power", places, scale / 10.0**apparent.decade))
            layout.evidence.append(f"volts × amps stand as apparent power at {places[0].at:#06x}")
        if factor is not None:
            groups.append(Group("power_factor", self._vectors.places[factor.factor], factor.scale, signed=True))
            layout.evidence.append("power = volts × amps × power factor")
        if power is not None:
            used = {power, match.current}
            used |= {factor.factor} if factor is not None else set()
            used |= {apparent.power} if apparent is not None else set()
            groups += self._powers(layout, match, power, scale, used)
        groups += self._totals(layout, groups)
        layout.score += sum(group.bits for group in groups)
        layout.score += self._settle(layout, groups) + self._frequency(layout)
        return layout

    def _powers(self, layout: Layout, match: Match, power: int, amperes: float, used: set[int]) -> list[Group]:
        """Active power, and the reactive power beside it."""
        vectors, scale = self._vectors, amperes / 10.0**match.decade
        found = [Group("active_power", vectors.places[power], scale, signed=True)]
        layout.evidence.append(f"power at {vectors.places[power][0].at:#06x}")
        through = self._volts.values * np.abs(vectors.values[match.current]) * amperes
        for more, other in companions.reactive(vectors.values[power] * scale, through, scale, vectors):
            raw = vectors.values[other] * self._volts.scale
            if other not in used and not np.allclose(raw, self._volts.values, rtol=_SAME):  # a voltage once more
                bits = min(_MOST_OF_Q, more)
                found.append(Group("reactive_power", vectors.places[other], scale, signed=True, bits=bits))
                layout.evidence.append(f"P² + Q² = S² with the reactive power at {vectors.places[other][0].at:#06x}")
                break
        return found

    def _unproven(self, layout: Layout, apparent: Match, amperes: float) -> int | None:
        """Power without power factors: it is never more than S, goes with it, and P² + Q² = S² with another.

        S itself, where nothing else is like it: a load with a power factor of one.
        """
        vectors, scale = self._vectors, amperes / 10.0**apparent.decade
        if vectors.values[apparent.power].min() < 0:
            return apparent.power  # no apparent power is negative
        size = np.abs(vectors.values[apparent.power]) * scale
        ranked = []
        for index in self._agreements.near:
            values = np.abs(vectors.values[index]) * scale
            level = float(values.sum() / size.sum())
            if index == apparent.current or not self._agreements.goes_with(apparent.current, index):
                continue
            if not _LEAST < level <= _MOST or companions.stays(values, size):
                continue
            if (
                np.mean(values > _LARGER * size) > _ABOVE
                or np.mean(values <= _MOST_ONCE * size + scale) < _MOST_READINGS
            ):
                continue
            if self._is_apart(index, apparent.power):
                proof, bits = self._proof(index, apparent.power, values, size, scale)
                ranked.append((bits + 2 * level, index, proof or level > _HALF or companions.is_in_step(values, size)))
        _, index, is_like = max(ranked, default=(0.0, apparent.power, False))
        alike = np.abs(np.abs(vectors.values[index]) * scale / np.maximum(size, scale) - 1).max() < _MOST - 1
        before = vectors.places[apparent.power][0].at < vectors.places[index][0].at
        if not is_like or (alike and before):  # of two that are the same, tables name power first
            layout.assumed.append("that volts × amps stand as active power: nothing tells it from apparent power")
            return apparent.power
        layout.assumed.append("that the power is not the reactive power: they look alike without power factors")
        return index

    def _proof(self, index: int, apparent: int, values: Array, size: Array, scale: float) -> tuple[bool, float]:
        """Whether a vector is a power for sure, active or reactive; and what speaks for the active one."""
        vectors, beside = self._vectors, self._vectors.places[index][0]
        bits = max(self._agreements.taste(place) for place in vectors.places[index])
        bits -= self._agreements.distance(index) / 30
        alike = {(place.type[1:], place.stride) for place in vectors.places[apparent]}
        bits += 6.0 if any((place.type[1:], place.stride) in alike for place in vectors.places[index]) else 0.0
        moved, most = companions.movement(values), 1.3 * companions.movement(size) + 0.05
        bits += 8 * moved if moved <= most else -4.0  # it moves more than reactive power does, and not more than S
        for more, other in companions.reactive(values, size, scale, vectors, _DISTORTED):
            if other != index and self._is_apart(other, apparent) and self._is_apart(other, index):
                # The two look alike; tables name power first.
                return True, bits + more - (8.0 if vectors.places[other][0].at < beside.at else 0.0)
        if self._volts.phases == 1:
            return False, bits
        own = companions.total(vectors.values[index], scale, self._singles, beside)
        is_summed = own is not None and own.scale == scale
        return is_summed, bits + (own.bits if own is not None and is_summed else 0.0)

    def _is_apart(self, one: int, other: int) -> bool:
        places = self._vectors.places
        return any(not mine.overlaps(theirs) for mine in places[one] for theirs in places[other])

    def _totals(self, layout: Layout, groups: Sequence[Group]) -> list[Group]:
        if self._volts.phases == 1:
            return []
        sums = []
        for group in groups:
            if group.name.endswith("_power"):
                values = self._words.values(group.places[0])
                sum_ = companions.total(values, group.scale, self._singles, group.places[0])
                if sum_ is not None:
                    bits = min(_MOST_OF_SUM, sum_.bits)
                    sums.append(Group(f"{group.name}_sum", sum_.places, sum_.scale, group.signed, bits))
        found: list[Group] = []
        for each in sorted(sums, key=lambda each: -each.bits):
            if not any(each.places[0].overlaps(other.places[0]) for other in [*groups, *found]):
                found.append(each)
                if each.name == "active_power_sum":
                    layout.evidence.append(f"the sum of the phases' power at {each.places[0].at:#06x}")
        return found

    def _scale(self, layout: Layout, amps: Array) -> float:
        """What makes amperes of the current's raw value."""
        sizes = np.abs(amps)
        power = clamped(amps, self._clamps, MOVED) if self._clamps else None
        if power is not None and (not self._beside.is_float or power in _FLOAT_AMPS):
            return 10.0**power
        if self._clamps:
            factor = max(self._clamps.values()) / max(float(np.median(sizes.max(axis=1))), 1e-9)
            layout.assumed.append(f"the transformers' ratio: the clamp reading is {factor:.4g} times the raw value")
        if self._beside.is_float:
            if not self._clamps:
                layout.assumed.append("that current is given in ampere: --clamp l1=41.2A proves it")
            return 1.0
        usual = 0.001 if sizes.max() > 5000 else 0.01
        layout.assumed.append(f"the size of current and power: {usual:g} A per step is usual; --clamp l1=41.2A decides")
        return usual

    def _settle(self, layout: Layout, groups: Sequence[Group]) -> float:
        layout.rows, bits = settle(self._words, groups)
        return bits

    def _frequency(self, layout: Layout) -> float:
        found = companions.frequency(self._hertz, next(iter(layout.rows.values()))[0], layout.places())
        if found is None:
            return 0.0
        layout.rows["frequency"] = (found.places[0], found.scale)
        layout.evidence.append(f"frequency at {found.places[0].at:#06x}")
        return found.bits
