"""Where exactly the quantities of an unknown meter stand: they follow each other, and none is in the middle of another.

A small number reads the same from one register or from two, with the upper word first or last; what stands before and
behind decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from edge_agent.commissioning.decoding import Place, Words

_WASTE: Final = 4.0  # bits
_AGAIN: Final = 3.0


class Group(NamedTuple):
    """A quantity of a proposal: everywhere where it stands, its scale, and how much of a chance it is not (bits)."""

    name: str
    places: list[Place]
    scale: float
    signed: bool = False
    bits: float = 0.0


Rows = dict[str, tuple[Place, float]]


def settle(words: Words, groups: Sequence[Group]) -> tuple[Rows, float]:
    """One place for each quantity, so that they stand one behind the other; and bits of neatness."""
    fc = groups[0].places[0].fc
    starts = {start for of, start in words.starts if of == fc}
    chosen: dict[str, Place] = {}
    for _ in range(2):  # the second time it is known where the others end
        for group in groups:
            others = [place for name, place in chosen.items() if name != group.name]
            ends = {place.last + 1 for place in others} | starts
            begins = {place.at for place in others}
            fits = [
                _fit(place, others, ends, begins) + _sign(place, group) - _repeats(place, group)
                for place in group.places
            ]
            chosen[group.name] = group.places[fits.index(max(fits))]
    rows: Rows = {}
    for group in groups:
        for quantity, one in _quantities(group.name, chosen[group.name]):
            rows[quantity] = (one.signed() if group.signed else one, group.scale)
    return rows, _neatness(words, starts, list(chosen.values())) - _waste(chosen)


def _waste(chosen: dict[str, Place]) -> float:
    """Nobody who saves a register on voltages spends one on power factors, which need it less; powers are alike."""
    volts, factor = chosen["voltage"], chosen.get("power_factor")
    powers = {place.size for name, place in chosen.items() if name.endswith("_power")}
    return _WASTE * ((factor is not None and factor.size > volts.size) + (len(powers) > 1))


def _repeats(place: Place, group: Group) -> float:
    """Of two powers that are the same number (a load with a power factor of one), tables name the active one first."""
    alike = (place.fc, place.type, place.stride)
    before = (each.at < place.at and (each.fc, each.type, each.stride) == alike for each in group.places)
    return _AGAIN if group.name == "active_power" and any(before) else 0.0


def _sign(place: Place, group: Group) -> float:
    return 0.2 if (place.type[0] == "s") == group.signed else 0.0


def _fit(place: Place, others: Sequence[Place], ends: set[int], begins: set[int]) -> float:
    fit = 0.6 * place.size - (20.0 if any(place.overlaps(other) for other in others) else 0.0)
    fit += (1.0 if place.at in ends else 0.0) + (1.0 if place.last + 1 in begins else 0.0)
    return fit + (0.3 if place.stride == place.size else 0.0)


def _neatness(words: Words, starts: set[int], chosen: Sequence[Place]) -> float:
    extents = [place.words() for place in chosen]
    taken = set().union(*extents)
    ends = {place.last + 1 for place in chosen} | starts
    joined = sum(place.at in ends for place in chosen)
    inside = range(min(taken), max(taken) + 1)
    empty = words.empty(chosen[0].fc)
    lost = len({at for at in inside if at in empty} - taken)
    clashes = sum(len(extent) for extent in extents) - len(taken)
    usual = sum(order == "big" for order in words.orders) * 1.5
    wide = 0.3 * sum(place.size for place in chosen if not place.is_float)
    return 2.0 * joined - min(6.0, 0.3 * lost) - 6.0 * clashes + usual + wide


def _quantities(name: str, place: Place) -> Iterator[tuple[str, Place]]:
    """The names of the phases' values."""
    if name.endswith("_sum") or place.phases == 1:
        yield name.removesuffix("_sum"), place
        return
    ends = ("l1_l2", "l2_l3", "l3_l1") if name == "line" else ("l1", "l2", "l3")
    for step in range(place.phases):
        yield f"{'voltage' if name == 'line' else name}_{ends[step]}", place.one(step)
