"""``edge-agent probe modbus --scan-registers``: what an unknown meter has where. Nothing is written to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Protocol

import typer

from edge_agent import logs
from edge_agent.clock import SystemClock
from edge_agent.commands.options import columns, plain, print_json, screen

Progress = Callable[..., AbstractContextManager[Callable[[int, int], None]]]


class Target(Protocol):
    """A line with one set of settings, and whom to ask there."""

    @property
    def name(self) -> str: ...

    @property
    def units(self) -> Any: ...

    def open(self) -> Any: ...


def scan_one(
    targets: Sequence[Target], registers: str | None, timeout_s: float, *, as_json: bool, progress: Progress
) -> int:
    """Scan the only unit of the only target. Exit code 1: no register answers. Raises DeviceError when nobody does."""
    from drivers.register_scan import scan_registers, usual_places  # noqa: PLC0415 - reads every profile

    if len(targets) != 1 or len(targets[0].units) != 1:
        raise typer.BadParameter("--scan-registers needs one unit (--units 5), and --baudrate and --parity of its line")
    logs.configure(SystemClock(), level="critical")
    places = usual_places() if registers is None else _places(registers)
    target, unit = targets[0], targets[0].units[0]
    bus = target.open()
    try:
        with progress(f"{target.name}: registers of unit {unit}", quiet=as_json) as tell:
            found = list(scan_registers(bus, unit, places, timeout_s, tell))
    finally:
        bus.close()
    rows = [row for run in found for row in _rows(run)]
    if as_json:
        runs = [{"fc": run.fc, "at": run.at, "words": "".join(f"{word:04x}" for word in run.words)} for run in found]
        print_json({"unit": unit, "found": runs, "registers": rows})
    else:
        _show(rows)
    return 0 if found else 1


def _places(text: str) -> list[range]:
    """``0-1023,0x5000-0x50FF`` in order; raises a usage error."""
    found: list[range] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        try:
            found.append(range(int(first, 0), int(last or first, 0) + 1))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no list of registers like 0-1023 or 0x5000-0x50FF") from None
    found.sort(key=lambda place: place.start)
    if any(not place or place.stop > 0x10000 for place in found) or any(a.stop > b.start for a, b in pairwise(found)):
        raise typer.BadParameter(f"{text!r}: registers are 0 to 65535, each named once")
    return found


def _rows(run: Any) -> Iterator[dict[str, Any]]:
    """One per register that is not 0; zeros say nothing."""
    from drivers.register_scan import meanings  # noqa: PLC0415

    for index, word in enumerate(run.words):
        if word:
            yield {"fc": run.fc, "at": run.at + index, "hex": f"{word:04x}", **meanings(run.words, index)}


def _show(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("no register answers with anything but 0")
        return
    table = columns("fc", "register", "hex", "as one", "with the next one", "text")
    for row in rows:
        one = ", ".join(str(row[key]) for key in ("u16", "s16") if key in row)
        two = ", ".join(f"{key} {row[key]}" for key in row if key.startswith(("f32", "u32")))
        place = f"0x{row['at']:04X} ({row['at']})"
        table.add_row(*(plain(cell) for cell in (row["fc"], place, row["hex"], one, two, row.get("text", ""))))
    screen().print(table)
