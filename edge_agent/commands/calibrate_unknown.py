"""``edge-agent calibrate meter`` for a meter without a profile: find its registers, or take over its maker's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from drivers.registers import load_profile
from edge_agent import control
from edge_agent.clock import Clock
from edge_agent.commands.options import columns, plain, print_json, screen, whole_file
from edge_agent.commissioning import table
from edge_agent.commissioning.draft import text_of
from edge_agent.commissioning.record import folder_of
from edge_agent.errors import EdgeAgentError
from edge_agent.plan import Config
from edge_agent.vocabulary import QUANTITIES, nearest


def find_out(
    plan: Config,
    bus_name: str,
    unit: int,
    clamps: Mapping[str, float],
    output: Path | None,
    clock: Clock,
    *,
    as_json: bool,
) -> int:
    """Search the registers of a unit and propose a profile. Exit code 1: nothing that can be used."""
    from edge_agent.commissioning import unknown  # noqa: PLC0415 - it needs numpy

    if bus_name not in plan.buses:
        raise typer.BadParameter(f"{bus_name!r} is not a bus of the config{nearest(bus_name, plan.buses)}")
    bus_plan = plan.buses[bus_name]
    bus = bus_plan.kind(bus_name, bus_plan.settings, clock)
    if not hasattr(bus, "request"):
        raise typer.BadParameter(f"{bus_name} is no Modbus bus")
    _check_free(plan, bus_name)
    for device in plan.devices_on(bus_name):
        bus.device(device.name, device.settings, device.profile)
    bus.open()
    try:
        with _telling(quiet=as_json or not screen().is_terminal) as tell:
            layout, scan = unknown.search(
                lambda fc, at, count: bus.request(unit, fc, at, count), clock, clamps, tell=tell
            )
    finally:
        bus.close()
    if layout is None or not layout.is_enough:
        regions = [f"{each.fc:02d} {each.start:#06x}-{each.end - 1:#06x}" for each in scan.regions]
        if as_json:
            print_json({"found": False, "regions": regions, **(unknown.described(layout) if layout else {})})
        else:
            print(f"no layout obeys physics; registers that answer: {', '.join(regions) or 'none'}")
            print(
                "Put load on all three phases, let it vary, and try again; or import the maker's table with --import."
            )
        return 1
    target = output or folder_of(plan.state_dir) / f"unknown-{bus_name}-{unit}.yaml"
    _write(target, unknown.profile_text(layout, f"{bus_name} unit {unit}", scan))
    if as_json:
        print_json({"found": True, "profile": str(target), **unknown.described(layout)})
        return 0
    shown = columns("quantity", "register", "function", "type", "scale")
    for name in sorted(layout.rows, key=list(QUANTITIES).index):
        place, scale = layout.rows[name]
        shown.add_row(name, f"{place.at:#06x}", str(place.fc), place.type, f"{scale:g} {QUANTITIES[name].unit}")
    screen().print(shown)
    order = f"{layout.word_order} word first" + (", bytes exchanged" if layout.byte_order == "little" else "")
    print(f"\nconfidence {layout.confidence}; {order}; {'; '.join(layout.evidence)}")
    for what in layout.assumed:
        print(f"assumed: {what}")
    print(f"\nCompare the values with the meter's display, then in the config:\n  profile: {target}")
    return 0


def take_over(source: Path, output: Path | None, *, base: int, fc: int, word_order: str, as_json: bool) -> int:
    """A vendor's CSV as a profile; raises ConfigError with every mistake of the table."""
    found = table.read(source, base=base, fc=fc)
    target = output or source.with_suffix(".yaml")
    notes = [f"From a table of {len(found.rows)} rows; addresses counted from {base}."]
    if found.left_out:
        notes.append(f"{len(found.left_out)} rows were left out.")
    text = text_of(found.rows, name=source.stem, source=f"table {source.name}", notes=notes, word_order=word_order)
    _write(target, text.replace("verified: device", "verified: simulator"))
    left_out = [{"line": line, "name": name} for line, name in found.left_out]
    if as_json:
        print_json({"profile": str(target), "quantities": list(found.rows), "left_out": left_out})
        return 0
    print(f"{target}: {len(found.rows)} quantities")
    if left_out:
        print(f"left out: {', '.join(f'{name} (line {line})' for line, name in found.left_out[:20])}")
    print("Check it on the meter: edge-agent calibrate meter DEVICE")
    return 0


def _write(target: Path, text: str) -> None:
    """Whole or not at all, and only what the daemon would take. Raises EdgeAgentError."""
    draft = target.with_name(f".{target.stem}.draft.yaml")
    with whole_file(draft) as file:
        file.write(text)
    try:
        load_profile(str(draft), Path())
        draft.replace(target)
    except OSError as error:
        raise EdgeAgentError(f"cannot write {target}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _check_free(plan: Config, bus: str) -> None:
    try:
        said: Any = control.ask(control.socket_path(plan.state_dir), {"ask": "status"})
    except EdgeAgentError:
        return
    if bus in said.get("buses", {}):
        raise EdgeAgentError(
            f"the running daemon uses {bus}", hint="systemctl stop edge-agent, and start it afterwards"
        )


@contextmanager
def _telling(*, quiet: bool) -> Iterator[Any]:
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - only people need it

    with Console(stderr=True).status("searching") as status:
        yield lambda text: status.update(plain(text))
