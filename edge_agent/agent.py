"""The daemon: how the parts of a line are started, exchanged by a reload, and ended.

A part is a named group of threads with the settings it was made from; a reload restarts only the
parts whose settings changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from edge_agent import shifts
from edge_agent.clock import Clock
from edge_agent.errors import EdgeAgentError
from edge_agent.line import Line, Part
from edge_agent.parts import wanted
from edge_agent.payload import number_format
from edge_agent.plan import Config
from edge_agent.report import Report, product_version
from edge_agent.vocabulary import COUNTER
from edge_agent.worker import Worker, stop_all

log = structlog.get_logger("agent")

STOP_DEADLINE_S: Final = 8.0
_SAYS: Final = {"publish": ("mqtt",), "alarms": ("alarm", "output")}  # part → other names that its faults have


class Agent(Line):
    """A line with a life: ``start``, then ``stop``; ``reload`` in between."""

    def __init__(self, config: Config, clock: Clock) -> None:
        super().__init__(config, clock)
        self.report = Report(self)

    def start(self) -> None:
        """Open the spool and start every part. Nothing outside (broker, meters, disk) can make it fail."""
        self.spool.open()
        self.marks = self.spool.marks()
        self.tally.recall(self.spool.notes(shifts.NOTE))
        recorder = Worker("record", self.recorder.body, self.health, self.clock, wake=self.recorder.wake)
        self.parts["record"] = Part("", [recorder])
        recorder.start()
        self._apply(self.config)
        log.info(
            "started",
            version=product_version(),
            line=f"{self.config.site}/{self.config.line}",
            stream=self.spool.stream,
        )

    def reload(self, config: Config) -> list[str]:
        """Go over to another config: parts whose settings are the same are not touched; those that changed."""
        changed = self._apply(config)
        self.config = config
        self.report.tell_anew()
        log.info("reloaded", changed=changed)
        return changed

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> list[str]:
        """Producers first, then what keeps and sends; outputs go safe. Names of threads that did not end."""
        hanging: list[str] = []
        groups = [[name for name in self.parts if name not in ("record", "publish")], ["record"], ["publish"]]
        for names, share in zip(groups, (0.4, 0.3, 0.3), strict=True):
            hanging += self._stop_parts(names, deadline_s * share)
        if "record" not in hanging:
            self.recorder.close()
        log.info("stopped", hanging=hanging or None)
        return hanging

    def safe(self) -> None:
        """Outputs to their safe state, whatever else hangs."""
        if self.stage is not None:
            self.stage.safe()

    def look(self) -> None:
        """What changes by itself is noticed and told. Called every few seconds."""
        self.corrections.look()
        self.report.look()

    def models_changed(self) -> None:
        """Another release was installed, offered or left: whoever judges with models looks again."""
        for part in self.parts.copy().values():
            if (roster := getattr(part.detail, "roster", None)) is not None:
                roster.look_again()

    def _apply(self, config: Config) -> list[str]:
        self.corrections.load(config)
        self.tally.follow(config.cameras, shifts.Shifts(config.shifts))
        plans = wanted(self, config, self.report.state)
        changed = [
            name
            for name in {*self.parts, *plans} - {"record"}
            if name not in plans or name not in self.parts or self.parts[name].fingerprint != plans[name][0]
        ]
        self._stop_parts(changed, STOP_DEADLINE_S)
        self._forget_faults(changed)
        for device in config.devices.values():
            self.formats[device.name] = {name: number_format(q) for name, q in device.quantities.items()}
            self.counters[device.name] = [name for name, q in device.quantities.items() if q.kind == COUNTER]
        # Alarms before what they watch; the publisher first of all, so that it connects meanwhile.
        for name in sorted(changed, key=_starting_order):
            if name not in plans:
                continue
            _, make = plans[name]
            try:
                part = make()
            except (EdgeAgentError, OSError) as error:
                self.health.fault(name, str(error))
                continue
            self.health.clear(name)
            self.parts[name] = part
            for worker in part.workers:
                worker.start()
        return sorted(changed)

    def _stop_parts(self, names: list[str], deadline_s: float) -> list[str]:
        parts = [self.parts.pop(name) for name in names if name in self.parts]
        hanging = stop_all([worker for part in parts for worker in part.workers], self.clock, deadline_s)
        for part in parts:
            if part.close is not None:
                part.close()
        return hanging

    def _forget_faults(self, names: Iterable[str]) -> None:
        """What a part said of itself ends with it; its successor says what is still so."""
        sources = {source for name in names for source in (name, f"worker.{name}", *_SAYS.get(name, ()))}
        sources |= {
            f"device.{device.name}" for device in self.config.devices.values() if f"bus.{device.bus}" in sources
        }
        for fault in self.health.faults():
            if any(f"{fault.source}.".startswith(f"{source}.") for source in sources):
                self.health.clear(fault.source)


def _starting_order(name: str) -> tuple[int, str]:
    order: Mapping[str, int] = {"publish": 0, "alarms": 1}
    return (order.get(name.partition(".")[0], 2), name)
