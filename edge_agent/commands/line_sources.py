"""Where ``calibrate line`` finds normal running: the daemon, live; its history; a table."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import closing
from math import inf, nan
from pathlib import Path
from threading import Event

import typer

from edge_agent.clock import SystemClock
from edge_agent.commands.export import STATISTICS, History
from edge_agent.commissioning.watching import Watched, is_sum, judged, watch
from edge_agent.errors import EdgeAgentError
from edge_agent.history import MINUTE_MS
from edge_agent.plan import Config
from edge_agent.vocabulary import QUANTITIES, nearest

_LAST = STATISTICS.index("last")
_MINUTE_S = MINUTE_MS / 1000


def live(plan: Config, devices: list[str] | None, for_s: float, show: Callable[[Watched], None]) -> Watched:
    """What the daemon reads from now on. ``devices``: None: those of the line models, or all."""
    return watch(plan.state_dir, _chosen(plan, devices), for_s, SystemClock(), show, Event())


def history(plan: Config, devices: list[str] | None, past_s: float) -> Watched:
    """The last reading of each minute: a model that looks once per minute sees just these, means it would never see."""
    chosen = _chosen(plan, devices)
    end = SystemClock().stamp().wall_ms // MINUTE_MS
    minutes = History(plan.state_dir / "spool.db", end - round(past_s / _MINUTE_S), end, list(chosen), ())
    seen, first, last = Watched(), inf, -inf
    with closing(minutes):
        for device, minute, values in minutes.rows():
            at_s = (minute + 1) * _MINUTE_S
            first, last = min(first, at_s), max(last, at_s)
            for quantity in chosen[device]:
                seen.note(f"{device}.{quantity}", at_s, values[quantity][_LAST] if quantity in values else nan)
        if not seen.series:
            raise EdgeAgentError("there is no history for that", hint=minutes.what_there_is())
    seen.silent = {device for device in chosen if not any(name.startswith(f"{device}.") for name in seen.series)}
    seen.elapsed_s = last - first
    seen.remarks += [
        "the history has one reading per minute: what lasts for some minutes only stays unseen",
        "the history does not say whether alarms were active meanwhile",
    ]
    return seen


def table(path: Path, devices: Collection[str] | None) -> Watched:
    from models import rows  # noqa: PLC0415 - only where there is a table

    seen = Watched()
    with rows.opened(path) as read:
        names = [
            name for name in read.quantities if not _is_sum(name) and (not devices or name.partition(".")[0] in devices)
        ]
        for _, row in read.rows:
            for name in names:
                seen.note(name, row.time_s, row.values.get(name, nan))
    if not seen.series:
        raise EdgeAgentError(f"{path} has no readings{' of these devices' if devices else ''}")
    times = next(iter(seen.series.values()))[0]
    seen.elapsed_s = times[-1] - times[0]
    return seen


def _is_sum(column: str) -> bool:
    """Whether a column is one that the vocabulary knows as a sum."""
    known = QUANTITIES.get(column.rpartition(".")[2])
    return known is not None and is_sum(known)


def _chosen(plan: Config, wanted: list[str] | None) -> dict[str, list[str]]:
    """The devices with their quantities: the wanted, those of the line models, or all."""
    names = wanted or [name for model in plan.models.values() for name in model.devices] or list(plan.devices)
    for name in names:
        if name not in plan.devices:
            raise typer.BadParameter(f"{name!r} is no device of the config{nearest(name, plan.devices)}")
    return {name: judged(plan.devices[name].quantities) for name in names}
