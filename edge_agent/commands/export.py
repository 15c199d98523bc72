"""``edge-agent export``: minute by minute, as CSV; kept pictures, as a folder to train with."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from edge_agent.clock import SystemClock
from edge_agent.commands.options import ConfigFile, Json, print_json, seconds, state_dir, whole_file
from edge_agent.config import find, load
from edge_agent.database import Database, spool_error
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.history import MINUTE_MS
from edge_agent.vocabulary import COUNTER, QUANTITIES, nearest

STATISTICS: Final = ("min", "mean", "max", "last", "count")
_Row = tuple[str, int, dict[str, list[float]]]


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent export --from 2026-11-20 --device main-meter --output november.csv")
    def export(
        since: Annotated[
            str | None, typer.Option("--from", help="From then on: 2026-11-20, 2026-11-20T06:00 (UTC) or 24h (ago).")
        ] = None,
        until: Annotated[str | None, typer.Option("--to", help="Until then, without it; as --from.")] = None,
        device: Annotated[list[str] | None, typer.Option(help="Only this device; may be repeated.")] = None,
        quantity: Annotated[list[str] | None, typer.Option(help="Only this quantity; may be repeated.")] = None,
        statistic: Annotated[
            list[str] | None,
            typer.Option(help="min, mean, max, last, count or all; default: mean, and last of counters."),
        ] = None,
        output: Annotated[Path | None, typer.Option("--output", "-o", help="File; default: standard output.")] = None,
        evidence: Annotated[
            Path | None, typer.Option(help="Instead: the kept pictures, into this new folder, for `train defects`.")
        ] = None,
        camera: Annotated[
            list[str] | None, typer.Option(help="With --evidence: only this camera; may be repeated.")
        ] = None,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Write the history to CSV: one line per minute (UTC), one column per quantity. The daemon may run or not."""
        first, end = _minute(since, 0), _minute(until, 1 << 40)
        if evidence is not None:
            return _pictures(
                state_dir(config), evidence, (first * MINUTE_MS, end * MINUTE_MS), camera or (), as_json=json_
            )
        history = History(state_dir(config) / "spool.db", first, end, device or (), quantity or ())
        with closing(history):
            columns = history.columns(_statistics(statistic))
            if not columns:
                raise EdgeAgentError("there is no history for that", hint=history.what_there_is())
            if json_ and output is None:
                return _print_lines(history)
            with whole_file(output) as file:
                units = _units(config)
                titles = [_title(column, units, named=bool(statistic)) for column in columns]
                lines = _write(csv.writer(file), titles, columns, history)
        if json_:
            print_json({"file": str(output), "lines": lines, "columns": len(columns)})
        elif output is not None:
            print(f"{output}: {lines} minutes, {len(columns)} columns")
        return 0


def _pictures(state_dir: Path, folder: Path, times: tuple[int, int], cameras: Collection[str], *, as_json: bool) -> int:
    """Exit code 1: there is not enough to train with yet."""
    from edge_agent import relabelling, training_set  # noqa: PLC0415 - only who has cameras pays for it

    gathered = training_set.gather(state_dir, *times, cameras)
    if not gathered.examples:
        kept = sorted({each.kept.camera for each in relabelling.pictures(state_dir)})
        there_is = f"pictures are kept of {', '.join(kept)}" if kept else "none is kept"
        why = ", ".join(f"{count} {reason}" for reason, count in gathered.left_out.items())
        raise EdgeAgentError("there is no picture with a label for that", hint=why or there_is)
    training_set.write(gathered, folder)
    classes, corrected = gathered.classes(), sum(example.is_corrected for example in gathered.examples)
    parts = len({example.group for example in gathered.examples})
    train = f"edge-agent train defects {folder} --output MODEL.zip --groups '{training_set.GROUPS}'"
    answer = {"folder": str(folder), "classes": classes, "parts": parts, "corrected": corrected}
    if as_json:
        print_json({**answer, "left_out": dict(gathered.left_out), "groups": training_set.GROUPS})
    else:
        shown = ", ".join(f"{count} {label}" for label, count in classes.items())
        print(f"{folder}: {shown}; {parts} parts, {corrected} pictures labelled by people")
        for reason, count in gathered.left_out.items():
            print(f"left out: {count} {reason}")
        print(
            f"then: {train}"
            if len(classes) > 1
            else "good and bad are needed: label some with `edge-agent alarms correct`"
        )
    return 0 if len(classes) > 1 else 1


class History:
    """Read-only view of the minutes from ``first`` up to ``end``. Raises SpoolError."""

    def __init__(self, path: Path, first: int, end: int, devices: Collection[str], quantities: Collection[str]) -> None:
        self._path = path
        self._range = (first, end)
        self._devices = devices
        self._quantities = quantities
        self._db: sqlite3.Connection | None = None

    def rows(self) -> Iterator[_Row]:
        """Device, minute, quantity → [min, mean, max, last, count]; by minute, then device."""
        sql = "SELECT device, minute, body FROM history WHERE minute >= ? AND minute < ? ORDER BY minute, device"
        try:
            for device, minute, body in self._open().execute(sql, self._range):
                if self._devices and device not in self._devices:
                    continue
                found = json.loads(body)
                wanted = {name: found[name] for name in found if not self._quantities or name in self._quantities}
                if wanted:
                    yield device, minute, wanted
        except sqlite3.Error as error:
            raise spool_error(error, self._path) from error

    def columns(self, statistics: Collection[str]) -> list[tuple[str, str, str]]:
        """Every (device, quantity, statistic) that occurs."""
        names = dict.fromkeys((device, name) for device, _, values in self.rows() for name in values)
        return [
            (device, name, statistic) for device, name in sorted(names) for statistic in statistics or [_usual(name)]
        ]

    def what_there_is(self) -> str:
        """For somebody who asked for something else."""
        db = self._open()
        first, last = db.execute("SELECT min(minute), max(minute) FROM history").fetchone()
        if first is None:
            return "a minute appears here once it is over; is the daemon running?"
        devices = [row[0] for row in db.execute("SELECT DISTINCT device FROM history")]
        close = "".join(nearest(name, devices) for name in self._devices if name not in devices)
        return f"there is {', '.join(devices)} from {_iso(first)} to {_iso(last)}{close}"

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            if not self._path.exists():
                raise EdgeAgentError(f"there is no history at {self._path}", hint="has the daemon ever run here?")
            with self._path.open("rb"):
                pass  # the database would not say that it is not allowed
            self._db = Database(self._path).reader()
        return self._db

    def close(self) -> None:
        if self._db is not None:
            self._db.close()


def _usual(quantity: str) -> str:
    known = QUANTITIES.get(quantity)
    return "last" if known is not None and known.kind == COUNTER else "mean"


def _write(writer: Any, titles: list[str], columns: list[tuple[str, str, str]], history: History) -> int:
    writer.writerow(["time", *titles])
    lines = 0
    for minute, rows in groupby(history.rows(), key=lambda row: row[1]):
        values = {
            (device, name, statistic): number
            for device, _, found in rows
            for name, numbers in found.items()
            for statistic, number in zip(STATISTICS, numbers, strict=False)
        }
        writer.writerow([_iso(minute), *(values.get(column, "") for column in columns)])
        lines += 1
    return lines


def _title(column: tuple[str, str, str], units: dict[str, dict[str, str]], *, named: bool) -> str:
    device, name, statistic = column
    known = QUANTITIES.get(name)
    unit = units.get(device, {}).get(name, known.unit if known else "")
    text = f"{device}.{name}.{statistic}" if named else f"{device}.{name}"
    return f"{text} [{unit}]" if unit and statistic != "count" else text


def _print_lines(history: History) -> int:
    """One JSON object per device and minute."""
    for device, minute, values in history.rows():
        fields = {name: dict(zip(STATISTICS, numbers, strict=False)) for name, numbers in values.items()}
        print_json({"time": _iso(minute), "device": device, "values": fields})
    return 0


def _units(config: Path | None) -> dict[str, dict[str, str]]:
    """What the profiles say; nothing where the config cannot be read any more."""
    try:
        devices = load(find(config)).devices
    except ConfigError:
        return {}
    return {name: {key: quantity.unit for key, quantity in plan.quantities.items()} for name, plan in devices.items()}


def _statistics(wanted: list[str] | None) -> Collection[str]:
    for word in wanted or ():
        if word not in {*STATISTICS, "all"}:
            raise typer.BadParameter(f"{word!r} is no statistic{nearest(word, [*STATISTICS, 'all'])}")
    return STATISTICS if "all" in (wanted or ()) else wanted or ()


def _minute(text: str | None, default: int) -> int:
    """A point in time as a minute since 1970; raises a usage error."""
    if text is None:
        return default
    if re.fullmatch(r"[\d.]+ ?(s|min|h|d)", text):
        moment = _now() - timedelta(seconds=seconds(text))
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is no time; write 2026-11-20, 2026-11-20T06:00 or 24h") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000) // MINUTE_MS


def _now() -> datetime:
    return datetime.fromtimestamp(SystemClock().stamp().wall_ms / 1000, UTC)


def _iso(minute: int) -> str:
    return f"{datetime.fromtimestamp(minute * 60, UTC):%Y-%m-%dT%H:%M:%SZ}"
