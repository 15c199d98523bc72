"""``edge-agent calibrate meter``: does this meter tell the truth, and if not, which wire is it?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from drivers.published import published
from drivers.registers import MeterProfile
from edge_agent import logs
from edge_agent.clock import Clock, SystemClock, iso
from edge_agent.commands.calibrate_unknown import find_out, take_over
from edge_agent.commands.options import ConfigFile, Json, columns, plain, print_json, screen, who
from edge_agent.commissioning import physics, ratio, record
from edge_agent.commissioning.finding import GOOD, NOT_JUDGED, UNSURE, WRONG, Finding, Snapshot
from edge_agent.commissioning.meter import Examination, Facts, examine, resolution_of
from edge_agent.commissioning.source import collect, opened
from edge_agent.commissioning.variants import reader
from edge_agent.config import find, load
from edge_agent.errors import EdgeAgentError
from edge_agent.plan import Config, DevicePlan
from edge_agent.vocabulary import nearest

_MARKS: Final = {GOOD: "[green]good[/]", WRONG: "[red]WRONG[/]", UNSURE: "[yellow]unsure[/]", NOT_JUDGED: "[dim]—[/]"}
Ratios = tuple[dict[str, float], Fraction | None]


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent calibrate meter main-meter --clamp l1=41.2A --nameplate 200/5")
    def meter(
        device: Annotated[str | None, typer.Argument(help="A meter of the config, by its name.")] = None,
        seconds: Annotated[float, typer.Option(min=3, max=3600, help="How long to watch it.")] = 60.0,
        clamp: Annotated[
            list[str] | None, typer.Option(help="What a clamp meter says, like l1=41.2A; may be repeated.")
        ] = None,
        nameplate: Annotated[str | None, typer.Option(help="Of the current transformers, like 200/5.")] = None,
        consuming: Annotated[
            bool, typer.Option("--consuming", help="You know that the machine feeds nothing back now.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
        bus: Annotated[
            str | None, typer.Option(help="Bus of a meter without a profile: its registers are searched.")
        ] = None,
        unit: Annotated[int, typer.Option(min=0, max=255, help="Its unit id.")] = 1,
        table: Annotated[
            Path | None, typer.Option("--import", help="Instead: make a profile of a maker's register table (CSV).")
        ] = None,
        base: Annotated[int, typer.Option(min=0, max=1, help="What the table calls the first register.")] = 0,
        function: Annotated[int, typer.Option(min=3, max=4, help="Where the table does not say it.")] = 3,
        word_order: Annotated[str, typer.Option(help="Of the table: big or little.")] = "big",
        output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the profile goes.")] = None,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Check a meter against physics while it works; name the wire that is wrong; write a signed record.

        With --bus and --unit: search the registers of an unknown meter and propose a profile, best with --clamp and
        under a load that varies. With --import: make a profile of a register table.

        Exit code 0: nothing is wrong; 1: something is, or may be; 3: the meter cannot be read.
        """
        clamps, plate = _ratios(clamp, nameplate)
        if word_order not in ("big", "little"):
            raise typer.BadParameter(f"{word_order!r} is neither big nor little")
        if table is not None:
            return take_over(table, output, base=base, fc=function, word_order=word_order, as_json=json_)
        clock = SystemClock()
        logs.configure(clock, level="critical")
        plan = load(find(config))
        if bus is not None:
            if device is not None:
                raise typer.BadParameter("name a device of the config, or a bus and a unit, not both")
            return find_out(plan, bus, unit, clamps, output, clock, as_json=json_)
        chosen = _chosen(plan, device)
        quiet = json_ or not screen().is_terminal
        facts = Facts(
            ct_ratio=chosen.settings.ct_ratio,
            pt_ratio=chosen.settings.pt_ratio,
            clamps=clamps,
            plate=plate,
            consuming=consuming,
            resolution=resolution_of(published(chosen.profile, chosen.settings)),  # type: ignore[arg-type]
        )
        found, window, facts, told = _measure(plan, chosen, clock, seconds, facts, ask=not (yes or quiet), quiet=quiet)
        stamp = clock.stamp()
        body = _record(plan, chosen, facts, found, window, told) | {
            "at": iso(stamp.wall_ms),
            "clock_synced": stamp.synced,
        }
        try:
            kept = str(record.write(plan.state_dir, chosen.name, body, stamp.wall_ms))
        except EdgeAgentError as error:
            kept, why = "", str(error)  # what was found is worth more than its record
        if json_:
            print_json({**body, "record": kept or None})
        else:
            _show(chosen, found, told)
            print(f"signed record: {kept}" if kept else f"no record was written: {why}")
        return 0 if found.is_good and kept else 1


def _ratios(clamp: list[str] | None, nameplate: str | None) -> Ratios:
    try:
        clamps = dict(ratio.clamp_reading(text) for text in clamp or ())
        plate = ratio.nameplate(nameplate) if nameplate else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return clamps, plate


def _chosen(plan: Config, device: str | None) -> DevicePlan:
    meters = {name: each for name, each in plan.devices.items() if isinstance(each.profile, MeterProfile)}
    if device is None and len(meters) == 1:
        return next(iter(meters.values()))
    if device is None:
        raise typer.BadParameter(f"name a meter: {', '.join(meters) or 'the config has none'}")
    if device not in meters:
        what = "is no meter" if device in plan.devices else "is not in the config"
        raise typer.BadParameter(f"{device!r} {what}{nearest(device, meters)}")
    return meters[device]


def _measure(
    plan: Config, chosen: DevicePlan, clock: Clock, seconds: float, facts: Facts, *, ask: bool, quiet: bool
) -> tuple[Examination, list[Snapshot], Facts, str]:
    every_s = max(0.5, min(chosen.periods.values(), default=1.0))
    with opened(plan, chosen, clock, every_s) as (source, bus):
        reread = reader(bus, chosen.name, chosen.settings) if bus is not None else None
        with _live(facts, quiet=quiet) as show:
            window = [snap for snap in collect(source, seconds, show) if _is_whole(snap)]

        def judge(facts: Facts) -> Examination:
            return examine(window, facts, profile=chosen.profile, reread=reread)  # type: ignore[arg-type]

        found = judge(facts)
        if ask and not facts.consuming and _depends_on_consuming(found):
            facts = replace(facts, consuming=typer.confirm("Does the machine only consume now, and feed nothing back?"))
            found = judge(facts)
    return found, window, facts, source.told


def _is_whole(snap: Snapshot) -> bool:
    """Not a reading of counters alone: the daemon reads those at times of their own."""
    return any(name.startswith(("voltage", "current")) for name in (*snap.values, *snap.absent))


def _depends_on_consuming(found: Examination) -> bool:
    return any(not finding.certain and "--consuming" in finding.remedy for finding in found.findings)


@contextmanager
def _live(facts: Facts, *, quiet: bool) -> Iterator[Callable[[list[Snapshot]], None]]:
    if quiet:
        yield lambda _: None
        return
    from rich.live import Live  # noqa: PLC0415 - only people need it

    with Live(auto_refresh=False, transient=True) as live:

        def show(window: list[Snapshot]) -> None:
            laws = physics.checks(window, least_a=facts.least_a, pt_ratio=facts.pt_ratio, resolution=facts.resolution)
            live.update(_table([(check.name, check.state, check.evidence) for check in laws]), refresh=True)

        yield show


def _table(rows: list[tuple[str, str, str]]) -> Any:
    table = columns("", "law", "seen")
    for name, state, evidence in rows:
        table.add_row(_MARKS[state], plain(name), plain(evidence))
    return table


def _show(chosen: DevicePlan, found: Examination, told: str) -> None:
    console = screen()
    console.print(f"[bold]{chosen.name}[/]  {chosen.settings.profile}, unit {chosen.settings.unit}, {told}\n")
    console.print(_table([(check.name, check.state, check.evidence) for check in found.checks]))
    for finding in found.findings:
        colour = "red" if finding.certain else "yellow"
        console.print(f"\n[bold {colour}]{plain(finding.sentence)}[/]")
        console.print(f"  seen: {plain(finding.evidence)}")
        console.print(f"  [bold]→ {plain(finding.remedy)}[/]")
    if lines := _lines(chosen, found.findings):
        console.print("\nfor the config (it is not changed by this):")
        for line in lines:
            print(line)
    if found.is_proven:
        console.print("\n[green]everything that this meter says was judged under load and is right[/]")
    elif found.is_good:
        console.print("\nnothing is wrong, but not everything could be judged: see above")


def _lines(chosen: DevicePlan, findings: tuple[Finding, ...]) -> list[str]:
    settings = {key: value for finding in findings if finding.certain for key, value in finding.settings.items()}
    if not settings:
        return []
    return ["devices:", f"  {chosen.name}:", *(f"    {key}: {_yaml(value)}" for key, value in settings.items())]


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _record(
    plan: Config, chosen: DevicePlan, facts: Facts, found: Examination, window: list[Snapshot], told: str
) -> dict[str, Any]:
    """Everything that somebody will want to know of this day in five years."""
    settings: Mapping[str, Any] = chosen.settings.model_dump(mode="json", exclude_defaults=True)
    profile: Any = chosen.profile
    return {
        "kind": "meter",
        "who": who(),
        "site": plan.site,
        "line": plan.line,
        "device": chosen.name,
        "settings": {key: value for key, value in settings.items() if key != "twin"},
        "profile": {"name": profile.name, "confidence": profile.confidence, "verified": profile.verified},
        "config_sha256": hashlib.sha256(plan.file.read_bytes()).hexdigest(),
        "source": told,
        "readings": {
            name: dict(zip(("low", "median", "high"), row, strict=True)) for name, row in found.readings.items()
        },
        "count": len(window),
        "seconds": round(window[-1].at_s - window[0].at_s, 1) if window else 0,
        "clamp_a": dict(facts.clamps),
        "nameplate": str(facts.plate) if facts.plate else None,
        "consuming": facts.consuming,
        "checks": [asdict(check) for check in found.checks],
        "deviations": [asdict(finding) for finding in found.findings],
        "good": found.is_good,
        "proven": found.is_proven,
    }
