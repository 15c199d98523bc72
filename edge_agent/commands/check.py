"""``edge-agent check``: the config, and the world that it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_agent import control, logs
from edge_agent.clock import SystemClock
from edge_agent.commands.options import ConfigFile, Json, columns, plain, print_json, screen
from edge_agent.config import find, load
from edge_agent.errors import EdgeAgentError
from edge_agent.inspection import bundles, eyes, machine, network, wires
from edge_agent.inspection.finding import FAIL, OK, WARN, Finding, Scene, Step

_MARKS = {OK: "[green]ok[/]", WARN: "[yellow]look[/]", FAIL: "[red]FAILED[/]"}


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent check --config ./config.yaml")
    def check(
        offline: Annotated[
            bool, typer.Option("--offline", help="The file alone; touch no port, disk or network.")
        ] = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Check the config, then open every port, read every device, grab a picture, greet every broker.

        Exit code 0: all good; 1: something failed; 2: the config is wrong; 3: nothing could be done.
        """
        clock = SystemClock()
        logs.configure(clock, level="critical")
        path = find(config)
        plan = load(path)
        scene = Scene(plan, clock, {} if offline else _daemon(plan.state_dir))
        parts = {"device": len(plan.devices), "camera": len(plan.cameras), "alarm": len(plan.alarms)}
        counts = ", ".join(f"{count} {word}{'s' * (count != 1)}" for word, count in parts.items())
        first = Finding(OK, str(path), counts)
        findings = [first, *_look(_offline(scene) if offline else _everything(scene), quiet=json_)]
        if json_:
            print_json({"config": str(path), "findings": [asdict(finding) for finding in findings]})
        else:
            _show(findings)
        return _verdict(findings[1:])


def _offline(scene: Scene) -> Iterator[Step]:
    return chain(wires.offline_steps(scene), bundles.steps(scene))


def _everything(scene: Scene) -> Iterator[Step]:
    looks = (wires.steps, bundles.steps, eyes.steps, network.steps, machine.steps)
    return chain.from_iterable(look(scene) for look in looks)


def _daemon(state_dir: Path) -> dict[str, Any]:
    """What the running daemon says; empty when there is none."""
    try:
        return control.ask(control.socket_path(state_dir), {"ask": "status"})
    except EdgeAgentError:
        return {}


def _look(steps: Iterator[Step], *, quiet: bool) -> list[Finding]:
    """Take every step, saying which while it takes its time."""
    if quiet:
        return [finding for step in steps for finding in step.look()]
    from rich.console import Console  # noqa: PLC0415 - only people need it

    console = Console(stderr=True)
    findings: list[Finding] = []
    with console.status("looking") if console.is_terminal else nullcontext() as status:
        for step in steps:
            if status is not None:
                status.update(step.doing)
            findings += step.look()
    return findings


def _show(findings: list[Finding]) -> None:
    table = columns("", "what", "found")
    for finding in findings:
        hint = f"\n[bold]→ {plain(finding.hint)}[/]" if finding.hint else ""
        table.add_row(_MARKS[finding.status], plain(finding.what), plain(finding.detail) + hint)
    console = screen()
    console.print(table)
    failures = sum(finding.status == FAIL for finding in findings)
    warnings = sum(finding.status == WARN for finding in findings)
    console.print(f"\n{len(findings) - failures - warnings} good, {warnings} to look at, {failures} failed")


def _verdict(findings: list[Finding]) -> int:
    failures = [finding for finding in findings if finding.status == FAIL]
    if not failures:
        return 0
    return 3 if len(failures) == len(findings) else 1
