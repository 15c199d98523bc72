"""One line while it runs: what its parts share, and what flows between them.

bus threads ─┬──────────────▶ recorder ──▶ publisher ──▶ broker
eye processes┤                   ▲
             └──▶ alarm stage ───┘ (lights first)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_agent.bus_watch import BusWatch
from edge_agent.clock import Clock
from edge_agent.corrections import Corrections
from edge_agent.counters import Mark
from edge_agent.health import Health
from edge_agent.plan import Config
from edge_agent.shifts import Tally
from edge_agent.spool import Spool
from edge_agent.stages.record import Recorder
from edge_agent.tap import Tap
from edge_agent.vocabulary import Reading, Verdict
from edge_agent.worker import Worker


@dataclass(slots=True)
class Part:
    """Threads that were made from the same settings. ``close`` runs after they ended."""

    fingerprint: str
    workers: list[Worker]
    close: Callable[[], None] | None = None
    detail: Any = None


class Line:
    """``parts``: by name, what runs. ``stage``, ``judge``, ``publisher``: where the config asks for them, else None."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.health = Health(clock)
        self.since = clock.stamp()
        self.parts: dict[str, Part] = {}
        self.stage: Any = None
        self.judge: Any = None
        self.publisher: Any = None
        self.on_command: Callable[[str, bytes], dict[str, object] | None] = lambda _name, _payload: None
        self.corrections = Corrections(clock, self.health)
        self.tap = Tap(clock)
        self.latest: dict[str, Reading] = {}
        self.oddities: dict[str, Any] = {}  # by device
        self.watches: dict[str, BusWatch] = {}
        self.marks: dict[str, dict[str, Mark]] = {}  # where its counters stood, by device
        self.formats: dict[str, dict[str, str]] = {}
        self.counters: dict[str, list[str]] = {}
        settings = config.spool
        self.spool = Spool(
            config.state_dir / "spool.db",
            clock,
            self.health,
            limit_bytes=settings.limit,
            durable=settings.durability == "power-cut",
            floor_bytes=settings.free_floor,
        )
        self.tally = Tally()
        self.recorder = Recorder(
            self.spool,
            clock,
            self.health,
            commit_every_s=settings.commit_every,
            history_days=settings.history / 86400,
            formats=self.formats,
            counters=self.counters,
            tally=self.tally,
        )

    def on_reading(self, reading: Reading) -> None:
        if (oddities := self.oddities.get(reading.device)) is not None:
            oddities.note(reading)
        self.latest[reading.device] = reading
        self.tap.offer(reading)
        if self.stage is not None:
            self.stage.offer(reading)
        if self.judge is not None:
            self.judge.offer(reading)
        self.recorder.reading(reading)

    def on_verdict(self, verdict: Verdict) -> None:
        self.alarm_about(verdict)
        self.recorder.verdict(verdict)

    def alarm_about(self, verdict: Verdict) -> None:
        if self.stage is not None:
            self.stage.offer(verdict)

    def alarms(self) -> list[dict[str, object]]:
        return list(self.stage.snapshot()) if self.stage is not None else []
