"""What the registers of an unknown meter mean, told by physics alone.

Every place is decoded in every way (word order, byte order, type); what is a voltage is told by its band, what are
current and power by the relations between them. The size of the current cannot be told from inside the meter: it
needs a clamp meter, else it is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from edge_agent.commissioning.decoding import SIZES, Array, Memory, Place, Triples, Words, strides
from edge_agent.commissioning.relations import Confirmed, Relations, reactive

_DECADES: Final = {"f32": (0, -1, -2, -3, 3), "int": (-1, -2, 0, -3, -4)}
_MAINS: Final = ((88.0, 142.0), (193.0, 311.0), (311.0, 500.0))
_HERTZ: Final = ((49.0, 51.0), (59.0, 61.0))
_FLOAT_AMPS: Final = (0, -3)  # a meter that has floats gives amperes, or milliamperes
_USUAL: Final = 2.0  # most meters have the big end first; it decides where nothing else does
_STEADY: Final = 0.06  # a mains voltage moves less than this while it is watched
_ALIKE: Final = 1.15  # and its phases differ by less
_WIDEST: Final = 20  # registers from one phase to the next, where a table goes phase by phase
_VOLTAGES: Final = 6  # candidates that are followed up
_ENOUGH: Final = 22.0
_SURE: Final = 40.0
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
        return "high" if self.score >= _SURE and not self.assumed else "medium"

    @property
    def is_enough(self) -> bool:
        """Voltages, currents and powers of every phase were found and confirm each other."""
        return self.score >= _ENOUGH and "active_power_l1" in self.rows

    def places(self) -> list[Place]:
        return [place for place, _ in self.rows.values()]

    def put(self, name: str, triple: Place, scale: float) -> None:
        """Add the three phases of a quantity."""
        for step in range(3):
            self.rows[f"{name}_l{step + 1}"] = (triple.one(step), scale)


class _Volts(NamedTuple):
    """Three voltages that may be line to neutral; ``lines``: those between the phases, and their scale."""

    score: float
    place: Place
    values: Array
    scale: float
    lines: tuple[Place, float] | None = None


def solve(snapshots: Sequence[Memory], clamps: Mapping[str, float] | None = None) -> Layout | None:
    """The best layout for what was read several times, under a load that moves; None where there is no voltage.

    ``clamps``: what a clamp meter said meanwhile, by phase.
    """
    told = {phase: amps for phase, amps in (clamps or {}).items() if amps > 0}
    found = [
        _follow(words, volts, told)
        for word, byte in ORDERS
        for words in [Words(snapshots, word, byte)]
        for volts in _voltages(words)[:_VOLTAGES]
    ]
    return max(found, key=lambda layout: layout.score, default=None)


def _voltages(words: Words) -> list[_Volts]:
    """Candidates, the best first."""
    found: dict[bytes, _Volts] = {}
    apart = {kind: set(range(size, _WIDEST + 1)) for kind, size in SIZES.items()}
    for place, values in zip(*words.triples(apart), strict=True):
        moved = float((np.ptp(values, axis=0) / values.min(axis=0)).max()) if values.min() > 0 else 1.0
        if moved > _STEADY:
            continue
        for power in _DECADES["f32" if place.type == "f32" else "int"]:
            volts = values * 10.0**power
            low, high = float(volts.min()), float(volts.max())
            if high < _ALIKE * low and any(least <= low and high <= most for least, most in _MAINS):
                score = 10.0 if np.ptp(volts, axis=0).min() > 0 else 2.0
                score += words.taste(place) - (1.0 if power > 0 else 0.0) - 100 * moved
                key = np.round(volts, 3).tobytes()  # of decodings that say the same, the one of best taste
                if key not in found or score > found[key].score:
                    found[key] = _Volts(score, place, volts, 10.0**power)
    return sorted((_with_lines(each, list(found.values())) for each in found.values()), key=lambda each: -each.score)


def _with_lines(volts: _Volts, others: Sequence[_Volts]) -> _Volts:
    a, b, c = (volts.values[..., index] for index in range(3))
    right = np.stack([np.sqrt(x * x + y * y + x * y) for x, y in ((a, b), (b, c), (c, a))], axis=-1)
    for other in others:
        if np.abs(other.values / right - 1).max() < 0.02:
            return volts._replace(score=volts.score + 5, lines=(other.place, other.scale))
    return volts


def _follow(words: Words, volts: _Volts, clamps: Mapping[str, float]) -> Layout:
    """Everything that hangs on these voltages."""
    usual = sum(order == "big" for order in words.orders) * _USUAL
    layout = Layout(*words.orders, score=volts.score + usual)
    layout.put("voltage", volts.place, volts.scale)
    layout.evidence.append(f"voltages of {float(volts.values.mean()):.1f} V at {volts.place.at:#06x}")
    if volts.lines is not None:
        place, scale = volts.lines
        for step, name in enumerate(("voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1")):
            layout.rows[name] = (place.one(step), scale)
        layout.evidence.append(f"√3 times as much between the phases at {place.at:#06x}")
    triples = words.triples(strides(volts.place.stride))
    taken = layout.places()
    own = [
        index
        for index, place in enumerate(triples.places)
        if place.fc == volts.place.fc
        and triples.values[index].any()
        and not any(place.overlaps(other) for other in taken)
    ]
    if own:
        _write(layout, words, volts, triples.only(own), clamps)
    _frequency(layout, words, volts.place)
    return layout


def _write(layout: Layout, words: Words, volts: _Volts, triples: Triples, clamps: Mapping[str, float]) -> None:
    relations = Relations(words, volts.place, volts.values, triples, clamps)
    found = relations.best()
    if found is None:
        return
    layout.score += found.score
    amps = triples.values[found.current]
    scale = _scale(layout, triples.places[found.current], amps, relations, clamps)
    layout.put("current", triples.places[found.current], scale)
    layout.evidence.append(f"currents at {triples.places[found.current].at:#06x}")
    if found.apparent is not None:
        place = triples.places[found.apparent.triple]
        layout.put("apparent_power", place, scale / 10.0**found.apparent.decade)
        layout.evidence.append(f"volts × amps stand as apparent power at {place.at:#06x}")
    _powers(layout, words, volts, triples, relations, found, scale)
    layout.score += words.neatness(layout.places())


def _powers(
    layout: Layout,
    words: Words,
    volts: _Volts,
    triples: Triples,
    relations: Relations,
    found: Confirmed,
    amperes: float,
) -> None:
    if found.factor is not None:
        index, decade = found.factor.power, found.factor.decade
        layout.put("power_factor", triples.places[found.factor.factor].signed(), found.factor.scale)
        layout.evidence.append(f"power = volts × amps × power factor at {triples.places[index].at:#06x}")
    elif found.power is not None:
        index, decade = found.power.triple, found.power.decade
        layout.evidence.append(f"power within volts × amps at {triples.places[index].at:#06x}")
        layout.assumed.append("that the power is not the reactive power: they look alike without power factors")
    else:
        return
    place, scale = triples.places[index], amperes / 10.0**decade
    layout.put("active_power", place.signed(), scale)
    total = relations.total(triples.values[index], place)
    if total is not None:
        layout.rows["active_power"] = (total[0].signed(), scale / 10.0 ** total[1])
        layout.score += 6
        layout.evidence.append(f"the sum of the phases' power at {total[0].at:#06x}")
    apparent = volts.values * triples.values[found.current] * amperes
    other = reactive(words, triples, layout.places(), triples.values[index] * scale, apparent, scale)
    if other is not None:
        layout.put("reactive_power", other.signed(), scale)
        layout.score += 4
        layout.evidence.append(f"P² + Q² = S² with the reactive power at {other.at:#06x}")


def _scale(layout: Layout, place: Place, amps: Array, relations: Relations, clamps: Mapping[str, float]) -> float:
    """What makes amperes of the current's raw value."""
    power = relations.clamped(amps)
    if power is not None and (place.type != "f32" or power in _FLOAT_AMPS):
        return 10.0**power
    if clamps:
        factor = max(clamps.values()) / float(np.median(amps))
        layout.assumed.append(f"the transformers' ratio: the clamp reading is {factor:.4g} times the raw value")
    if place.type == "f32":
        if not clamps:
            layout.assumed.append("that current is given in ampere: --clamp l1=41.2A proves it")
        return 1.0
    usual = 0.001 if SIZES[place.type] == 2 or amps.max() > 5000 else 0.01
    layout.assumed.append(f"the size of current and power: {usual:g} A per step is usual; --clamp l1=41.2A decides")
    return usual


def _frequency(layout: Layout, words: Words, beside: Place) -> None:
    taken = layout.places()
    ends = {max(place.words()) + 1 for place in taken}
    ranked = []
    for place, column in words.singles:
        if place.fc != beside.fc:
            continue
        for power in (0, -2) if place.type == "f32" else (-2, -1, -3):
            low, high = float(column.min()) * 10.0**power, float(column.max()) * 10.0**power
            if not any(least <= low and high <= most for least, most in _HERTZ):
                continue
            rank = words.single_taste(place) - abs(place.at - beside.at) / 60
            rank += (2.0 if high > low else 0.0) + (1.5 if place.at in ends else 0.0)
            rank += 2.0 if (place.type == "f32") == (beside.type == "f32") else 0.0
            # Of a whole number the low word says it all, whatever is above.
            rank += 3.0 if SIZES[place.type] == 1 or place.type == "f32" else 0.0
            rank += ({0: 0.5, -2: -1.0} if place.type == "f32" else {-2: 0.5, -3: -1.5}).get(power, 0.0)
            if not any(place.overlaps(other) for other in taken):
                ranked.append((rank, place, 10.0**power))
    if ranked:
        _, place, scale = max(ranked)
        layout.rows["frequency"] = (place, scale)
        layout.score += 5
        layout.evidence.append(f"frequency at {place.at:#06x}")
