"""Normal running, watched: the readings of several devices of the running daemon, for as long as it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from threading import Event
from typing import Any, Final

from edge_agent import control
from edge_agent.clock import NS, Clock
from edge_agent.lamps import NORMAL
from edge_agent.vocabulary import COUNTER, Quantity

_ASK_EVERY_S: Final = 0.5
_ENERGIES: Final = ("Wh", "varh", "VAh")
_QUIET_S: Final = 30.0  # nothing new for so long: something is wrong


@dataclass(slots=True)
class Watched:
    """What was seen. ``series``: ``device.quantity`` → times in seconds since 1970, and values, NaN where absent.

    ``alarms``: those that were active meanwhile; ``silent``: devices that gave nothing new for long; ``remarks``: what
    a person should know of the source.
    """

    series: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    alarms: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0

    def note(self, name: str, at_s: float, value: float) -> None:
        times, values = self.series.setdefault(name, ([], []))
        times.append(at_s)
        values.append(value)


def judged(quantities: Mapping[str, Quantity]) -> list[str]:
    """Which quantities of a device a line model can judge: not what only sums up."""
    return [name for name, quantity in quantities.items() if not is_sum(quantity)]


def is_sum(quantity: Quantity) -> bool:
    """Counters, and energies that are sums of counters."""
    return quantity.kind == COUNTER or quantity.unit in _ENERGIES


def watch(
    state_dir: Path,
    devices: Mapping[str, Iterable[str]],
    seconds: float,
    clock: Clock,
    show: Callable[[Watched], None],
    stop: Event,
) -> Watched:
    """Ask the daemon until the time is over. ``devices``: name → quantities. Raises EdgeAgentError."""
    path, listener = control.socket_path(state_dir), f"calibrate-line-{os.getpid()}"
    seen = Watched()
    wanted = {name: frozenset(quantities) for name, quantities in devices.items()}
    began_ns = clock.mono_ns()
    heard_ns = dict.fromkeys(devices, began_ns)
    while seen.elapsed_s < seconds and not stop.is_set():
        now_ns = clock.mono_ns()
        for reading in control.ask(path, {"ask": "readings", "listener": listener})["readings"]:
            if reading["device"] in wanted:
                heard_ns[reading["device"]] = now_ns
                _take(seen, reading, wanted[reading["device"]])
        seen.silent |= {name for name in devices if now_ns - heard_ns[name] > _QUIET_S * NS}
        alarms = control.ask(path, {"ask": "alarms"})["alarms"]
        seen.alarms |= {alarm["alarm"] for alarm in alarms if alarm["state"] != NORMAL}
        seen.elapsed_s = (now_ns - began_ns) / NS
        show(seen)
        clock.wait(stop, _ASK_EVERY_S)
    return seen


def _take(seen: Watched, reading: Mapping[str, Any], wanted: frozenset[str]) -> None:
    for quantity, value in reading["values"].items():
        if quantity in wanted:
            seen.note(f"{reading['device']}.{quantity}", reading["at_s"], value)
    for quantity in reading["absent"]:
        if quantity in wanted:
            seen.note(f"{reading['device']}.{quantity}", reading["at_s"], nan)
