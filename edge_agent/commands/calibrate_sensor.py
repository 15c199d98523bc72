"""``edge-agent calibrate sensor``: put a sensor right against a reference instrument."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from drivers.registers import MeterProfile
from edge_agent import logs
from edge_agent.calibration import Calibration, CalibrationError, Correction, history, path_of, store
from edge_agent.clock import Clock, SystemClock, iso
from edge_agent.commands.options import ConfigFile, Json, print_json, screen, seconds, who
from edge_agent.commissioning.comparison import Measured, Reference, Tell, measure, words
from edge_agent.commissioning.record import folder_of, write
from edge_agent.commissioning.settling import Line, line, objections
from edge_agent.config import find, load
from edge_agent.errors import EdgeAgentError
from edge_agent.plan import Config, DevicePlan
from edge_agent.settings import split_unit
from edge_agent.vocabulary import UNITS, nearest

_LONGEST_S: Final = 7 * 86_400.0  # of waiting for rest
_QUANTITIES: Final = {"°C": "temperature", "%": "relative_humidity", "Pa": "pressure"}


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent calibrate sensor cabinet --reference 24.3C --reference-uncertainty 0.2C")
    def sensor(
        device: Annotated[str, typer.Argument(help="A sensor of the config, by its name.")],
        reference: Annotated[
            str | None, typer.Option(help="What the reference instrument beside it says: 24.3C, 55% or 1013hPa.")
        ] = None,
        reference2: Annotated[
            str | None, typer.Option(help="A second point, far from the first: gain and offset instead of an offset.")
        ] = None,
        uncertainty: Annotated[
            str | None,
            typer.Option("--reference-uncertainty", help="Of the reference, from its certificate (k = 2), like 0.2C."),
        ] = None,
        settle: Annotated[str, typer.Option(help="How long it must be at rest.")] = "2min",
        patience: Annotated[str, typer.Option(help="How long to wait for rest at each point.")] = "30min",
        valid: Annotated[str, typer.Option(help="When to calibrate again.")] = "365d",
        undo: Annotated[bool, typer.Option("--undo", help="Go back to the calibration before this one.")] = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Correct a sensor by an offset (one point) or gain and offset (two). Without a reference: what is in use.

        Put the reference right beside the sensor. Nothing is stored before the sensor is at rest.
        """
        clock = SystemClock()
        logs.configure(clock, level="critical")
        span_s, patience_s = seconds(settle, 1.0, _LONGEST_S), seconds(patience, 1.0, _LONGEST_S)
        valid_s = seconds(valid, 0.001)
        references = _references(reference, reference2)
        reference_u = _uncertainty(uncertainty, references)
        plan = load(find(config))
        chosen = _chosen(plan, device, references)
        if undo:
            return _undo(plan, chosen, clock, as_json=json_)
        if not references:
            return _tell(plan, chosen, clock, as_json=json_)
        folder = folder_of(plan.state_dir)
        if not os.access(folder, os.W_OK | os.X_OK):  # said now, not after the wait for rest
            raise EdgeAgentError(f"cannot write into {folder}", hint="run it with sudo")
        with _telling(quiet=json_ or not screen().is_terminal) as tell:
            points, told = measure(plan, chosen, clock, references, span_s, patience_s, tell)
        body = _put_right(plan, chosen, clock, points, told, reference_u, int(valid_s * 1000))
        if json_:
            print_json(body)
        else:
            _show(body, points)
        return 0


def _put_right(
    plan: Config,
    chosen: DevicePlan,
    clock: Clock,
    points: list[Measured],
    told: str,
    reference_u: float | None,
    valid_ms: int,
) -> dict[str, Any]:
    """Store the calibration and a signed record of it; what was done. Raises EdgeAgentError where it is none."""
    quantity = points[0].reference.quantity
    pairs = [(point.at_rest, point.reference.value) for point in points]
    if wrong := objections(quantity, pairs):
        raise EdgeAgentError("not calibrated: " + "; ".join(wrong))
    kept = _history_of(plan, chosen)
    before = kept[-1].corrections.get(quantity) if kept else None
    found = line(pairs, reference_u or 0.0)
    stamp = clock.stamp()
    body = {
        "kind": "sensor",
        "who": who(),
        "at": iso(stamp.wall_ms),
        "clock_synced": stamp.synced,
        "device": chosen.name,
        "profile": chosen.settings.profile,
        "quantity": quantity,
        "source": told,
        "points": [
            {"reference": true, "before": before(at_rest.mean) if before else at_rest.mean, **asdict(at_rest)}
            for at_rest, true in pairs
        ],
        "reference_uncertainty": reference_u,
        **asdict(found),
        "expires": iso(stamp.wall_ms + valid_ms),
    }
    _store(plan, chosen.name, _next(kept, chosen, quantity, found, stamp.wall_ms, valid_ms, body))
    record = write(plan.state_dir, chosen.name, body, stamp.wall_ms)
    return {**body, "record": str(record)}


def _references(first: str | None, second: str | None) -> list[Reference]:
    if first is None and second is not None:
        raise typer.BadParameter("--reference2 needs --reference")
    found = [_reference(text) for text in (first, second) if text is not None]
    if len({each.quantity for each in found}) > 1:
        raise typer.BadParameter("both references must be of one quantity")
    return found


def _reference(text: str) -> Reference:
    try:
        number, unit = split_unit(text.replace(",", "."))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    base, factor = UNITS.get(unit, ("", 1.0))
    if base not in _QUANTITIES:
        raise typer.BadParameter(f"{text!r} needs a unit, like 24.3C, 55% or 1013hPa")
    return Reference(_QUANTITIES[base], number * factor)


def _uncertainty(text: str | None, references: list[Reference]) -> float | None:
    if text is None or not references:
        return None
    found = _reference(text)
    if found.quantity != references[0].quantity or found.value < 0:
        raise typer.BadParameter(f"{text!r} is no uncertainty of {references[0].quantity}")
    return found.value


def _chosen(plan: Config, device: str, references: list[Reference]) -> DevicePlan:
    sensors = {name: each for name, each in plan.devices.items() if not isinstance(each.profile, MeterProfile)}
    if device not in sensors:
        what = "is a meter: edge-agent calibrate meter" if device in plan.devices else "is not in the config"
        raise typer.BadParameter(f"{device!r} {what}{nearest(device, sensors)}")
    for reference in references:
        if reference.quantity not in sensors[device].quantities:
            raise typer.BadParameter(f"{device} measures no {reference.quantity}")
    return sensors[device]


@contextmanager
def _telling(*, quiet: bool) -> Iterator[Tell]:
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - only people need it

    with Console(stderr=True).status("reading") as status:
        yield status.update


# --- storing


def _next(
    kept: list[Calibration],
    chosen: DevicePlan,
    quantity: str,
    found: Line,
    wall_ms: int,
    valid_ms: int,
    body: dict[str, Any],
) -> list[Calibration]:
    """The history with the new calibration at its end; other quantities keep theirs, and the earlier expiry."""
    corrections, expires_ms = {}, wall_ms + valid_ms
    if kept and kept[-1].profile == chosen.settings.profile:
        corrections = dict(kept[-1].corrections)
        if corrections.keys() - {quantity}:
            expires_ms = min(expires_ms, kept[-1].expires_ms)
    corrections[quantity] = Correction(found.gain, found.offset, found.uncertainty)
    fresh = Calibration(chosen.settings.profile, wall_ms, expires_ms, body["who"], corrections, body)
    return [*kept, fresh]


def _history_of(plan: Config, chosen: DevicePlan) -> list[Calibration]:
    try:
        return history(plan.state_dir, chosen.name)
    except CalibrationError:
        path = path_of(plan.state_dir, chosen.name)
        if path.is_file():
            path.rename(path.with_suffix(".damaged"))
        return []


def _store(plan: Config, device: str, kept: list[Calibration]) -> None:
    folder_of(plan.state_dir)
    try:
        store(plan.state_dir, device, kept)
    except OSError as error:
        where = path_of(plan.state_dir, device)
        raise EdgeAgentError(f"cannot write {where}: {error.strerror}", hint="run it with sudo") from error


def _undo(plan: Config, chosen: DevicePlan, clock: Clock, *, as_json: bool) -> int:
    kept = history(plan.state_dir, chosen.name)
    if not kept:
        raise EdgeAgentError(f"{chosen.name} has no calibration")
    _store(plan, chosen.name, kept[:-1])
    stamp = clock.stamp()
    body = {
        "kind": "sensor-undo",
        "who": who(),
        "at": iso(stamp.wall_ms),
        "device": chosen.name,
        "was": asdict(kept[-1]),
    }
    write(plan.state_dir, chosen.name, body, stamp.wall_ms)
    now = asdict(kept[-2]) if len(kept) > 1 else None
    if as_json:
        print_json({"undone": asdict(kept[-1]), "in_use": now})
    else:
        back = f"that of {_day(kept[-2].at_ms)} is in use again" if len(kept) > 1 else "the sensor is uncorrected now"
        print(f"undone the calibration of {_day(kept[-1].at_ms)}; {back}. {_APPLY}")
    return 0


def _tell(plan: Config, chosen: DevicePlan, clock: Clock, *, as_json: bool) -> int:
    """What is in use. Exit code 1: it has expired."""
    kept = history(plan.state_dir, chosen.name)
    expired = bool(kept) and kept[-1].has_expired(clock.stamp().wall_ms)
    if as_json:
        print_json({"device": chosen.name, "expired": expired, "calibrations": [asdict(each) for each in kept]})
    elif not kept:
        print(f"{chosen.name} has no calibration; make one with --reference 24.3C")
    for one in [] if as_json else kept:
        words = "; ".join(
            f"{name} × {each.gain:.4f} {each.offset:+.3f} (± {each.uncertainty:.2g})"
            for name, each in one.corrections.items()
        )
        print(f"{_day(one.at_ms)}  until {_day(one.expires_ms)}  by {one.who}: {words}")
    return 1 if expired else 0


# --- in words

_APPLY: Final = "A running daemon takes it up with: systemctl reload edge-agent"


def _show(body: dict[str, Any], points: list[Measured]) -> None:
    quantity = body["quantity"]
    for point, row in zip(points, body["points"], strict=True):
        at_rest, after = point.at_rest, point.at_rest.mean * body["gain"] + body["offset"]
        noise = f"scatter {at_rest.scatter:.2g}, drift {at_rest.drift:+.2g} per min, {at_rest.count} readings"
        print(f"reference {words(quantity, point.reference.value)}: the sensor itself {words(quantity, at_rest.mean)}")
        print(f"  ({noise}); before {words(quantity, row['before'])}, after {words(quantity, after)}")
    kind = "offset" if len(points) == 1 else "gain and offset"
    unit = words(quantity, 0).split()[1]
    print(f"{kind}: {quantity} = raw × {body['gain']:.4f} {body['offset']:+.3f} {unit}")
    if body["reference_uncertainty"] is None:
        print(f"uncertainty ± {body['uncertainty']:.2g} {unit} (k = 2) and that of the reference, which was not stated")
    else:
        print(f"uncertainty ± {body['uncertainty']:.2g} {unit} (k = 2), the reference's included")
    if not body["clock_synced"]:
        print("nobody sets this machine's clock: compare the dates above with a calendar")
    print(f"valid until {body['expires'][:10]}. {_APPLY}")


def _day(wall_ms: int) -> str:
    return f"{datetime.fromtimestamp(wall_ms / 1000, UTC):%Y-%m-%d}"
