"""``edge-agent calibrate line``: what does normal running look like, and from where on is it not?"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge_agent.commands import line_sources
from edge_agent.commands.bundles import (
    bundles_of_daemon,
    check_place,
    key_folder,
    library,
    roll_back,
    state_of,
    write_bundle,
)
from edge_agent.commands.options import ConfigFile, Json, columns, plain, print_json, screen, seconds, who
from edge_agent.commissioning.watching import Watched
from edge_agent.config import find, load
from edge_agent.errors import EdgeAgentError
from edge_agent.vocabulary import nearest

if TYPE_CHECKING:
    from models.train.line_bundle import Made
    from models.train.line_calibration import Calibrated

NAME: Final = "line-normal"
_EXTRA: Final = {
    "line": ("onnx", "flatbuffers"),
    "isolation-forest": ("onnx", "sklearn", "skl2onnx"),
    "lof": ("onnx", "sklearn", "skl2onnx"),
}
_PER_DAY: Final = {"hour": 24.0, "day": 1.0, "week": 1 / 7, "month": 1 / 30}


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent calibrate line --minutes 60")
    def line(
        minutes: Annotated[float, typer.Option(min=5, max=1440, help="How long to watch the line live.")] = 60.0,
        csv: Annotated[
            Path | None, typer.Option("--csv", help="Normal running as a CSV: time, then one column per quantity.")
        ] = None,
        bundle_dir: Annotated[
            Path | None, typer.Option("--bundle-dir", help="Write the bundle to this folder instead of installing it.")
        ] = None,
        history: Annotated[
            str | None,
            typer.Option("--history", help="The local history instead, of the last 48h: one reading per minute."),
        ] = None,
        devices: Annotated[list[str] | None, typer.Option("--devices", help="A device; may be repeated.")] = None,
        false_alarms: Annotated[str, typer.Option(help="How many are accepted: 1/day, 2/week.")] = "1/day",
        detector: Annotated[
            str, typer.Option(help="line, or for comparison isolation-forest or lof (no limits per quantity, fp32).")
        ] = "line",
        name: Annotated[str | None, typer.Option(help="Of the bundle; default: the one that the config names.")] = None,
        undo: Annotated[bool, typer.Option("--undo", help="Back to the calibration before.")] = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Watch normal running, learn it, and set limits for a stated rate of false alarms.

        It warns about what does not look like normal running, and refuses only what cannot be used.
        """
        per_day = _per_day(false_alarms)
        if undo:
            return _undo(config, name, as_json=json_)
        _check_extra(detector)
        state = state_of(config)
        check_place(bundle_dir, state)
        chosen = name or (NAME if csv and bundle_dir else _name(config, state))
        if csv and history:
            raise typer.BadParameter("--csv and --history are two sources; one at a time")
        if csv:
            seen, source = line_sources.table(csv, devices), csv.name
        elif history:
            seen, source = line_sources.history(load(find(config)), devices, seconds(history)), f"history of {history}"
        else:
            with _live(minutes * 60, quiet=json_) as show:
                seen = line_sources.live(load(find(config)), devices, minutes * 60, show)
            source = f"{len(seen.series)} quantities, live"
        calibrated, made = _make(seen, chosen, state, per_day, source, false_alarms=false_alarms, detector=detector)
        kept = write_bundle(made.files, bundle_dir) if bundle_dir else _install(made, state, calibrated, false_alarms)
        _say(calibrated, made, kept, as_json=json_, can_undo=bundle_dir is None)
        return 0


def _per_day(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:/|per)\s*(hour|day|week|month)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is no rate; write 1/day or 2/week")
    return float(match[1]) * _PER_DAY[match[2]]


def _check_extra(detector: str) -> None:
    if detector not in _EXTRA:
        raise typer.BadParameter(f"{detector!r} is no detector{nearest(detector, _EXTRA)}")
    missing = [library_ for library_ in _EXTRA[detector] if find_spec(library_) is None]
    if missing:
        raise EdgeAgentError(
            f"calibrating a line needs {', '.join(missing)}", hint="pip install 'edge-agent[calibrate]'"
        )


def _name(config: Path | None, state: Path | None) -> str:
    """The bundle of the line model in the config, if there is just one."""
    if state is None:
        return NAME
    models = [each.bundle for each in load(find(config)).models.values() if each.devices]
    if len(set(models)) > 1:
        raise typer.BadParameter(f"the config has several line models; choose with --name: {', '.join(models)}")
    return models[0] if models else NAME


# --- what is seen meanwhile


@contextmanager
def _live(seconds: float, *, quiet: bool) -> Iterator[Callable[[Watched], None]]:
    """A table of what is seen, for people at a terminal; a line per minute for others."""
    if quiet or not sys.stderr.isatty():
        said: set[int] = set()

        def line(seen: Watched) -> None:
            minute = int(seen.elapsed_s // 60)
            if not quiet and minute not in said:
                said.add(minute)
                sys.stderr.write(f"{minute} of {seconds / 60:g} minutes, {len(seen.series)} quantities\n")

        yield line
        return
    from rich.console import Console  # noqa: PLC0415 - only people need it
    from rich.live import Live  # noqa: PLC0415 - as above

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda seen: live.update(_progress(seen, seconds), refresh=True)


def _progress(seen: Watched, seconds: float) -> Any:
    table = columns(f"{seen.elapsed_s / 60:.1f} of {seconds / 60:g} min", "now", "lowest", "highest", "readings")
    for name, (_, values) in seen.series.items():
        present = [value for value in values if value == value]  # noqa: PLR0124 - not NaN
        if present:
            cells = (f"{values[-1]:.6g}", f"{min(present):.6g}", f"{max(present):.6g}", str(len(present)))
            table.add_row(plain(name), *cells)
    for alarm in sorted(seen.alarms):
        table.add_row(f"[yellow]alarm {plain(alarm)} was active[/]", "", "", "", "")
    return table


# --- what becomes of it


def _make(
    seen: Watched, name: str, state: Path | None, per_day: float, source: str, **how: str
) -> tuple[Calibrated, Made]:
    from models import keys  # noqa: PLC0415 - only who makes a bundle pays for it
    from models.train import line_bundle, line_calibration  # noqa: PLC0415 - as above

    calibrated = line_calibration.calibrate(seen.series, per_day)
    calibrated.doubts += [f"the alarm {alarm} was active meanwhile" for alarm in sorted(seen.alarms)]
    calibrated.doubts += [f"{device} gave nothing for long" for device in sorted(seen.silent)]
    calibrated.warnings += seen.remarks
    version = library(state).next_version(name) if state else 1
    folder = key_folder(state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = keys.device_key(folder)
    except OSError as error:
        raise EdgeAgentError(f"cannot make a key in {folder}: {error.strerror}") from error
    made = line_bundle.make(calibrated.fit, calibrated.data, name, version, key, source=source, **how)
    return calibrated, made


def _install(made: Made, state: Path | None, calibrated: Calibrated, stated: str) -> str:
    """A person has just shown what is normal: it takes over at once, and ``--undo`` goes back."""
    from models import bundle, keys, trial  # noqa: PLC0415 - as above

    if state is None:
        raise EdgeAgentError("there is no config here to install it for", hint="write it with --bundle-dir")
    found = bundle.verify(made.files, keys.trusted(state))
    shelf = library(state)
    before = shelf.load(found.card.name, keys.trusted(state)) if found.card.name in shelf.names() else None
    if before is not None:
        calibrated.compare(before, found)
    shelf.install(found, trial.prove, who=who(), why=f"calibrate line, false alarms {stated}")
    bundles_of_daemon(state, changed=True)
    return f"{found.card.name}@{found.card.version}"


def _undo(config: Path | None, name: str | None, *, as_json: bool) -> int:
    state = state_of(config)
    chosen = name or (_name(config, state) if state else "")
    return roll_back(state, chosen, "calibrate line --undo", as_json=as_json)


def _say(calibrated: Calibrated, made: Made, kept: str, *, as_json: bool, can_undo: bool) -> None:
    card = made.bundle.card
    about = {
        "bundle": kept,
        "name": card.name,
        "version": card.version,
        "quantities": calibrated.judged,
        "left_out": calibrated.left_out,
        "warnings": calibrated.warnings,
        "doubts": calibrated.doubts,
        "int8_agrees": made.agreement,
        **calibrated.numbers,
    }
    if as_json:
        print_json(about)
        return
    console = screen()
    table = columns("quantity", "normal", "off when it leaves its own recent past by")
    for quantity, normal, limits in calibrated.table():
        table.add_row(plain(quantity), normal, limits)
    console.print(table)
    for doubt in calibrated.doubts:
        console.print(f"[yellow]look: {plain(doubt)}[/]")
    for warning in calibrated.warnings:
        console.print(plain(warning))
    _say_numbers(calibrated.numbers, made.agreement)
    console.print(f"[bold]{plain(kept)}[/]" + (", edge-agent calibrate line --undo goes back" if can_undo else ""))


def _say_numbers(numbers: Mapping[str, Any], agreement: float | None) -> None:
    print(
        f"\n{numbers['minutes']:g} minutes; limits for {numbers['false_alarms_per_day']:.3g} false alarms per day of "
        f"running just like this; in these minutes there were {numbers['cases']:g}, "
        f"so with 95 % confidence there are at most {numbers['at_most_per_day_95']:g} per day"
    )
    if "cases_before" in numbers:
        print(f"the calibration before would have raised {numbers['cases_before']:g} in the same minutes")
    if agreement is not None:
        print(f"int8 and fp32, ONNX and TFLite decide alike in {agreement:.2%} of the rows")
