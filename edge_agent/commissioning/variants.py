"""The same register table read in another way: other word or byte order, one address beside, the other function code.

What a printed table gets wrong is nearly always one of these; physics tells which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from drivers.decode import Register
from drivers.modbus_device import ModbusDevice
from drivers.registers import MeterProfile
from edge_agent.commissioning.finding import GOOD, WRONG, Finding, Snapshot
from edge_agent.commissioning.physics import EXACT, checks, residual
from edge_agent.errors import DeviceError, WireError
from edge_agent.plausibility import Gate

_READINGS: Final = 4
_TIE: Final = 3.0  # an explanation whose numbers agree less well than so many times the best one's is none
_OTHER: Final = {"big": "little", "little": "big"}


class Variant(NamedTuple):
    """``code``: for machines; ``told``: what is different, for people; ``lines``: what the profile should say."""

    code: str
    told: str
    lines: str
    profile: MeterProfile


def variants(profile: MeterProfile) -> Iterator[Variant]:
    """Every single thing that may be wrong with a table, then word order and address together."""
    rows = profile.registers

    def changed(**how: Callable[[Register], Any]) -> MeterProfile:
        fresh = tuple(replace(row, **{key: change(row) for key, change in how.items()}) for row in rows)
        return replace(profile, registers=fresh)

    wide = any(row.count > 1 for row in rows)
    other = _OTHER[rows[0].word_order]
    words = {"word_order": lambda row: _OTHER[row.word_order]}
    bytes_ = {"byte_order": lambda row: _OTHER[row.byte_order]}
    found: list[tuple[str, str, str, dict[str, Callable[[Register], Any]]]] = []
    found.append(("word-order", f"the words of a value come {other} end first", f"word_order: {other}", words))
    for step in () if profile.discover else (-1, 1):
        told = f"every register stands one {'lower' if step < 0 else 'higher'} than in the table"
        found.append(("off-by-one", told, f"every address {step:+d}", _moved(step)))
        both = f"{told}, and the words come {other} end first"
        lines = f"every address {step:+d}, and word_order: {other}"
        found.append(("off-by-one+word-order", both, lines, _moved(step) | words))
    lines = "fc: 3 instead of 4, or 4 instead of 3"
    found.append(("function-code", "the values stand under the other function code", lines, {"fc": _other_function}))
    lines = f"byte_order: {_OTHER[rows[0].byte_order]}"
    found.append(("byte-order", "the bytes within a word are exchanged", lines, bytes_))
    both = f"the bytes within a word are exchanged, and the words come {other} end first"
    found.append(("byte-order+word-order", both, f"{lines}, word_order: {other}", bytes_ | words))
    for code, told, lines, how in found:
        step = how["at"](rows[0]) - rows[0].at if "at" in how else 0
        fits = all(row.at + step >= 0 and row.at + step + row.count <= 0x10000 for row in rows)
        if fits and (wide or "word-order" not in code):
            yield Variant(code, told, lines, changed(**how))


def _other_function(row: Register) -> int:
    return 7 - row.fc


def _moved(step: int) -> dict[str, Callable[[Register], Any]]:
    return {
        "at": lambda row: row.at + step,
        "scale_from": lambda row: None if row.scale_from is None else row.scale_from + step,
    }


def search(
    read: Callable[[MeterProfile], Snapshot | None],
    profile: MeterProfile,
    *,
    least_a: float,
    pt_ratio: float = 1.0,
    resolution: Mapping[str, float] = EXACT,
    tell: Callable[[str], None] = lambda _: None,
) -> Finding | None:
    """Which variant obeys physics where the table as it is does not. ``read``: one snapshot; None if refused."""
    found: list[tuple[float, float, Variant, str]] = []
    for variant in variants(profile):
        tell(variant.told)
        window = [snap for _ in range(_READINGS) if (snap := read(variant.profile)) is not None]
        if not window:
            continue
        judged = checks(window, least_a=least_a, pt_ratio=pt_ratio, resolution=resolution)
        good = [check for check in judged if check.state == GOOD]
        if all(check.state != WRONG for check in judged) and len(good) > 1 and good[0] is judged[0]:
            words = "; ".join(check.evidence for check in good)
            # What explains more comes first; among equals the one whose numbers agree to the last digit.
            explained = len(good) - sum(len(snap.absent) for snap in window) / _READINGS
            found.append((-explained, residual(window), variant, words))
    if not found:
        return None
    found.sort(key=lambda each: each[:2])
    explained, exact, variant, evidence = found[0]
    remedy = f"In a copy of the profile: {variant.lines}. Check the meter's own menu first: some can swap words"
    told = f"The table does not fit this meter: {variant.told}"
    rival = next((o[2] for o in found[1:] if o[0] == explained and o[1] < _TIE * exact + 1e-6), None)
    if rival is not None:
        told += f"; or {rival.told}"
        remedy += f". As long as the numbers are small, {rival.lines} reads the same: measure under more load"
    return Finding(variant.code, rival is None, told, evidence, remedy)


def reader(bus: Any, name: str, settings: Any) -> Callable[[MeterProfile], Snapshot | None]:
    """Reads one snapshot of a device with any table over an open bus."""

    def read(profile: MeterProfile) -> Snapshot | None:
        device = ModbusDevice(name, settings, profile, bus, bus.unit(settings.unit))
        try:
            sample = device.read(frozenset(device.groups))
        except WireError:
            raise
        except DeviceError:
            return None
        reading = Gate(name, device.quantities).judge(sample, bus.clock.stamp())
        return Snapshot(0.0, reading.values, reading.absent)

    return read
