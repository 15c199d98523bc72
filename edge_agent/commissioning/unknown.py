"""A meter that nobody has a table of: scanned, read several times, and solved by physics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Final

from drivers.registers import load_profile, profile_names
from edge_agent.clock import NS, Clock
from edge_agent.commissioning.decoding import Memory
from edge_agent.commissioning.draft import DraftRow, text_of
from edge_agent.commissioning.layout import Layout, solve
from edge_agent.commissioning.scan import Read, Region, Scan
from edge_agent.errors import ProfileError
from edge_agent.vocabulary import QUANTITIES

SNAPSHOTS: Final = 6
APART_S: Final = 2.5  # a load has moved meanwhile
_STILL: Final = 2  # readings after which what never moves is put aside
_LAST_S: Final = 15.0  # kept for reading what is found last
_SOON_S: Final = 1.2
_BY_CHANCE: Final = 15.0  # bits: what agrees in numbers that never move says less

Tell = Callable[[str], None]


def hot_places() -> list[tuple[int, int]]:
    """Function code and address where meters that we know have their first voltage or power; then the other code."""
    found: dict[tuple[int, int], None] = {}
    for name in profile_names():
        try:
            profile = load_profile(name, Path())
        except ProfileError:
            continue
        rows = {row.name: row for row in profile.registers}
        first = next((rows[key] for key in ("voltage_l1", "voltage", "active_power") if key in rows), None)
        if first is not None and not profile.discover:
            found[first.fc, first.at] = None
    return list(found | dict.fromkeys((7 - fc, at) for fc, at in found))


def search(
    read: Read,
    clock: Clock,
    clamps: Mapping[str, float],
    *,
    limit_s: float = 600.0,
    tell: Tell = lambda _: None,
    hot: Sequence[tuple[int, int]] | None = None,
) -> tuple[Layout | None, Scan]:
    """The best layout found within ``limit_s``, and what was scanned. Raises DeviceError where nobody answers."""
    began_ns = clock.mono_ns()

    def progress(done: int, most: int, where: str) -> None:
        elapsed_s = (clock.mono_ns() - began_ns) / NS
        left_s = min(limit_s - elapsed_s, elapsed_s / max(done, 1) * (most - done))
        found = f"{len(scan.regions)} regions, {left_s / 60:.1f} min left at most"
        tell(f"function {where}: {done} of {most} places, {found}")

    def over(spare_s: float = _LAST_S) -> bool:
        return (clock.mono_ns() - began_ns) / NS > limit_s - spare_s

    scan = Scan(read, progress)
    best: Layout | None = None
    aside: list[list[Memory]] = []
    for table in scan.walk(hot_places() if hot is None else hot, over):
        where = f"registers {table[0].start:#06x} to {table[-1].end - 1:#06x}, function {table[0].fc}"
        tell(f"{where}: reading them several times")
        snapshots = _snapshots(scan, table, clock, lambda: over(APART_S + 1))
        if len(snapshots) <= _STILL:
            aside.append(snapshots)
            continue
        best = _better(best, solve(snapshots, clamps))
        if best is not None and best.is_enough:
            return best, scan
    for snapshots in aside:
        layout = solve(snapshots, clamps)
        if layout is not None:
            layout.score -= _BY_CHANCE
        best = _better(best, layout)
    return best, scan


def _better(one: Layout | None, other: Layout | None) -> Layout | None:
    return max((each for each in (one, other) if each is not None), key=lambda layout: layout.score, default=None)


def _snapshots(scan: Scan, table: Sequence[Region], clock: Clock, over: Callable[[], bool]) -> list[Memory]:
    """A table read several times; only twice where nothing moves: a meter's values do."""
    found: list[Memory] = []
    while len(found) < SNAPSHOTS and not (found and over()):
        if found:
            clock.wait(Event(), _SOON_S if len(found) < _STILL else APART_S)
        if len(found) == _STILL and found[0] == found[1]:
            break
        memory: dict[int, dict[int, int]] = {}
        for region in table:
            cells = memory.setdefault(region.fc, {})
            for at, data in scan.contents(region):
                cells |= {at + n: int.from_bytes(data[2 * n : 2 * n + 2]) for n in range(len(data) // 2)}
        found.append(memory)
    return found


def profile_text(layout: Layout, where: str, scan: Scan) -> str:
    """The proposal as a profile, with its evidence and what it assumes."""
    rows = {
        name: DraftRow(place.fc, place.at, place.type, scale, QUANTITIES[name].unit)
        for name, (place, scale) in layout.rows.items()
    }
    notes = [
        f"Found by physics, confidence {layout.confidence} (score {layout.score:.0f}): {'; '.join(layout.evidence)}.",
        *(f"Assumed: {what}." for what in layout.assumed),
        "Energy counters were not looked for.",
    ]
    return text_of(
        rows,
        name=f"unknown meter ({where})",
        source=f"register search of {where}, {scan.asked} questions",
        notes=notes,
        word_order=layout.word_order,
        byte_order=layout.byte_order,
        max_registers=scan.most,
        holes=False,
    )


def described(layout: Layout) -> dict[str, Any]:
    """For machines."""
    return {
        "confidence": layout.confidence,
        "score": round(layout.score, 1),
        "word_order": layout.word_order,
        "byte_order": layout.byte_order,
        "evidence": layout.evidence,
        "assumed": layout.assumed,
        "registers": {
            name: {"at": place.at, "fc": place.fc, "type": place.type, "scale": scale}
            for name, (place, scale) in layout.rows.items()
        },
    }
