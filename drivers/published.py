"""What a device publishes of its profile: ratios and direction applied, counters with what their registers hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

from drivers.decode import Register
from drivers.registers import MeterProfile
from edge_agent.vocabulary import COUNTER, QUANTITIES, Quantity

_BITS: Final = {"u16": 16, "s16": 15, "u32": 32, "s32": 31, "u64": 64, "s64": 63}


def published(profile: MeterProfile, settings: Any) -> tuple[Register, ...]:
    """The profile's registers as this device publishes them: ratios and direction applied, and chosen."""
    rows = [_adapted(row, profile, settings) for row in profile.registers]
    chosen = settings.quantities
    return tuple(row for row in rows if chosen is None or row.name in chosen)


def quantities(rows: Iterable[Register], profile: MeterProfile) -> dict[str, Quantity]:
    """What each row measures."""
    return {row.name: _bounded(QUANTITIES.get(row.name) or profile.quantities[row.name], row) for row in rows}


def _bounded(quantity: Quantity, row: Register) -> Quantity:
    """A counter with where its register ends and how finely it counts, where that does not move (``scale_from``)."""
    if quantity.kind != COUNTER or row.type not in _BITS or row.scale_from is not None:
        return quantity
    step = abs(float(row.gain))
    return quantity._replace(wraps=step * 2.0 ** _BITS[row.type], step=step)


def basis(profile: MeterProfile, settings: Any) -> str:
    """By what its counts are read; counts do not go on where it differs."""
    turned = ", inverted" if settings.invert else ""
    return f"{profile.key}, ct {settings.ct_ratio:g}, pt {settings.pt_ratio:g}{turned}"


def _adapted(row: Register, profile: MeterProfile, settings: Any) -> Register:
    ct, pt = Fraction(str(settings.ct_ratio)), Fraction(str(settings.pt_ratio))
    energies = dict.fromkeys(("W", "var", "VA", "Wh", "varh", "VAh"), ct * pt)
    ratio = {"A": ct, "V": pt, **energies}.get(profile.quantities[row.name].unit, Fraction(1))
    name = row.name
    if settings.invert:
        name = _turned_round(name, {*QUANTITIES, *profile.quantities})
        if name == row.name and name.startswith(("active_power", "reactive_power")):
            ratio = -ratio
    if ratio == 1 and name == row.name:
        return row  # one for all meters of the profile
    return replace(row, name=name, gain=row.gain * ratio, shift=row.shift * float(ratio))


def _turned_round(name: str, known: Collection[str]) -> str:
    """What is imported one way round is exported the other; the name as it is where there is no such pair."""
    for here, there in (("_import", "_export"), ("_export", "_import")):
        if here in name and (other := name.replace(here, there)) in known:
            return other
    return name
