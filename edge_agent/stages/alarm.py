"""The alarm stage: readings and verdicts in, lamps first, then the record.

::

    wire and eye threads ──offer──▶ judge (at once, in their thread: nothing can queue up or be dropped)
    control socket, button ───────▶ acknowledge, shelve, lamp test
                                        │ wakes, only when something changed
                                        ▼
                                 alarm thread: what is due, then the lamps ──▶ outputs
                                        │ handed over when the lamps are set
                                        ▼
                                 recording thread: on_change, then the state file

The alarm thread does no disk or network I/O and waits for nobody, so that a light goes on blinking, and the
next alarm is shown, while a disk hangs. It sleeps until something changed or a delay, a shelf, a re-alarm or a
lamp is due; beyond that it wakes only to say that it lives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Final

from edge_agent.alarms import AlarmSettings, Memory
from edge_agent.annunciator import Annunciator
from edge_agent.clock import NS, Clock, Stamp
from edge_agent.conditions import BLIND, Facts
from edge_agent.contracts import Outputs
from edge_agent.health import Health
from edge_agent.panel import Panel
from edge_agent.stages.alarm_record import Recording
from edge_agent.vocabulary import AlarmChange, Reading, Verdict

LONGEST_LAMP_TEST_S: Final = 30.0  # while it runs, the light does not tell the truth
_SIGN_OF_LIFE_S: Final = 10.0


class AlarmStage:
    """Judges what is offered, drives the outputs, then hands every change to ``on_change``.

    ``on_change`` is called from a thread of its own; it may block, and what it refuses with a retryable
    error is offered again. ``quiet_s``: nothing measured for so long, and green goes out.
    """

    def __init__(
        self,
        alarms: Mapping[str, AlarmSettings],
        outputs: Sequence[Outputs],
        clock: Clock,
        health: Health,
        on_change: Callable[[AlarmChange], None],
        state_file: Path,
        *,
        quiet_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._health = health
        self._panel = Panel(outputs, health, self._button)
        self._recording = Recording(on_change, self._remember, state_file, clock, health)
        self._annunciator = Annunciator(alarms)
        self._rules = {name: settings.rule() for name, settings in alarms.items()}
        self._facts = Facts(self._rules.values())
        self._alarms_of: dict[str, list[str]] = {}
        for name, rule in self._rules.items():
            for subject in rule.inputs:
                self._alarms_of.setdefault(subject, []).append(name)
        self._lock = Lock()  # over the annunciator, the facts and what follows
        self._changes: list[AlarmChange] = []
        self._sees: dict[str, bool] = {}  # device, camera or model → whether it last gave anything
        self._measuring = False
        self._heard_ns: int | None = None
        self._quiet_ns = int(quiet_s * NS)
        self._is_recalled = False
        self._wake = Event()

    # --- for any thread

    def offer(self, item: Reading | Verdict) -> None:
        """Judge what arrived. Takes microseconds, never blocks on I/O; what no rule names costs nothing."""
        if isinstance(item, Reading):
            name, sees = item.device, bool(item.values)
            if not sees and not item.absent:
                return
        else:
            name, sees = item.subject, item.label not in BLIND
        if sees:
            self._heard_ns = item.at.mono_ns
        if name not in self._alarms_of and self._sees.get(name) is sees and self._measuring:
            return
        with self._lock:
            self._sees[name] = sees
            due_ns = self._annunciator.deadline_ns()
            changes = self._judge(name, item)
            self._changes += changes
            is_news = self._is_measuring(item.at) is not self._measuring or due_ns != self._annunciator.deadline_ns()
        if changes or is_news:
            self._wake.set()

    def acknowledge(self, name: str | None, who: str) -> list[AlarmChange]:
        """Acknowledge one alarm, or all in sight; returns what changed. Raises AlarmError: no such alarm."""
        return self._told(lambda at: self._annunciator.acknowledge(name, who, at))

    def shelve(self, name: str, seconds: float, who: str) -> list[AlarmChange]:
        """Shelve an alarm for so long, ``0``: end it now; returns what changed. Raises AlarmError."""
        return self._told(lambda at: self._annunciator.shelve(name, seconds, who, at))

    def lamp_test(self, seconds: float = 5.0) -> None:
        """Light every lamp and sound the buzzer; relays stay as they are."""
        with self._lock:
            self._annunciator.lamp_test(min(seconds, LONGEST_LAMP_TEST_S), self._clock.stamp())
        self._wake.set()

    def snapshot(self) -> list[dict[str, Any]]:
        """Every alarm as plain values, in the order of the config."""
        with self._lock:
            return self._annunciator.snapshot(self._clock.stamp())

    def lamps(self) -> dict[str, str]:
        """What every lamp shows: name → ``off``, ``on``, ``blink-slow``, ``blink-fast``."""
        with self._lock:
            return self._annunciator.lamps(measuring=self._measuring)

    def wake(self) -> None:
        """For the worker: look whether it is time to stop."""
        self._wake.set()

    def safe(self) -> None:
        """Outputs to their safe state for good, when the process is about to go."""
        self._panel.safe()

    # --- the thread

    def body(self, stop: Event, progress: Callable[[], None]) -> None:
        self.recall()
        ended = Event()
        recording = Thread(target=self._recording.run, args=(ended,), name="alarm-record", daemon=True)
        recording.start()
        try:
            while not stop.is_set():
                wait_s = self.step()
                progress()
                self._clock.wait(self._wake, min(wait_s, _SIGN_OF_LIFE_S))
                self._wake.clear()
        finally:
            self._panel.close()
            with self._lock:
                changes, self._changes = self._changes, []
            self._recording.take(changes)
            ended.set()
            self._recording.wake()
            recording.join(timeout=2.0)

    def step(self) -> float:
        """Everything that is due; returns the seconds until something will be."""
        now = self._clock.stamp()
        with self._lock:
            self._changes += self._annunciator.tick(now)
            self._measuring = self._is_measuring(now)
            lamps = self._annunciator.lamps(measuring=self._measuring)
            due = [self._annunciator.deadline_ns()]
            if self._measuring and self._heard_ns is not None:
                due.append(self._heard_ns + self._quiet_ns)
            changes, self._changes = self._changes, []
        try:
            self._panel.show(lamps, now.mono_ns)
        finally:
            self._recording.take(changes)
        due.append(self._panel.deadline_ns(now.mono_ns))
        next_ns = min((instant for instant in due if instant is not None), default=None)
        return float("inf") if next_ns is None else max(0.0, (next_ns - self._clock.mono_ns()) / NS)

    def recall(self) -> None:
        """Go on where the last process left off. Once; a state file that cannot be read is reported."""
        if self._is_recalled:
            return
        self._is_recalled = True
        memory = self._recording.load()
        if memory is not None:
            with self._lock:
                self._changes += self._annunciator.recall(memory, self._clock.stamp(), self._clock.boot_id)

    # --- within

    def _judge(self, name: str, item: Reading | Verdict) -> list[AlarmChange]:
        self._facts.take(item)
        changes: list[AlarmChange] = []
        for alarm in self._alarms_of.get(name, ()):
            rule = self._rules[alarm]
            held = self._annunciator.is_active(alarm)
            holds = rule.holds(self._facts, held=held)
            cause = "" if holds is held else rule.cause(self._facts)
            missing = rule.missing(self._facts) if holds is None else ()
            changes += self._annunciator.judge(alarm, holds, item.at, cause, missing)
        return changes

    def _told(self, act: Callable[[Stamp], list[AlarmChange]]) -> list[AlarmChange]:
        with self._lock:
            changes = act(self._clock.stamp())
            self._changes += changes
        self._wake.set()
        return changes

    def _button(self) -> None:
        self.acknowledge(None, "button")

    def _is_measuring(self, now: Stamp) -> bool:
        heard = self._heard_ns is not None and now.mono_ns - self._heard_ns < self._quiet_ns
        return heard and all(self._sees.values())

    def _remember(self) -> Memory:
        with self._lock:
            return self._annunciator.remember(self._clock.stamp(), self._clock.boot_id)
