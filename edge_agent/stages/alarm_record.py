"""The recording side of the alarm stage: what may wait for a disk, away from the thread that drives the light."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event, Lock
from typing import Final

from edge_agent.alarms import Memory
from edge_agent.clock import NS, Clock
from edge_agent.health import Health
from edge_agent.vocabulary import AlarmChange
from edge_agent.whole import whole

_SAVE_EVERY_NS: Final = NS  # a flapping alarm must not wear out the card
_RETRY_S: Final = 1.0
_IDLE_S: Final = 3600.0
_WAITING: Final = 1000  # changes that may wait; beyond, the oldest is lost, counted and said


class Recording:
    """Hands changes on in order, one by one, and keeps the state file.

    ``remember``: the state as it is now; called after the changes that led to it were handed on.
    """

    def __init__(
        self,
        on_change: Callable[[AlarmChange], None],
        remember: Callable[[], Memory],
        state_file: Path,
        clock: Clock,
        health: Health,
    ) -> None:
        self._on_change = on_change
        self._remember = remember
        self._state_file = state_file
        self._clock = clock
        self._health = health
        self._waiting: deque[AlarmChange] = deque()
        self._lock = Lock()
        self._wake = Event()
        self._is_saved = True
        self._saved_ns = 0

    def take(self, changes: Iterable[AlarmChange]) -> None:
        """Queue them; never blocks."""
        with self._lock:
            before = len(self._waiting)
            self._waiting.extend(changes)
            lost = max(0, len(self._waiting) - _WAITING)
            for _ in range(lost):
                self._waiting.popleft()
        if lost:
            self._health.count("alarm.changes.lost", lost)
            self._health.fault("alarm.record", "changes are lost because nobody records them")
        if len(self._waiting) != before:
            self.wake()

    def wake(self) -> None:
        self._wake.set()

    def run(self, ended: Event) -> None:
        """Until ``ended`` is set, and then what still waits; a refusal at the end is not waited for."""
        while True:
            over = ended.is_set()
            wait_s = self.step(over=over)
            if over:
                return
            self._clock.wait(self._wake, wait_s)
            self._wake.clear()

    def step(self, *, over: bool = False) -> float:
        """Hand on what waits and save when that is due; the seconds until there is something to do by itself."""
        refused = self._hand_on()
        wait_s = _RETRY_S if refused else _IDLE_S
        since_ns = self._clock.mono_ns() - self._saved_ns
        if not self._is_saved and (over or since_ns >= _SAVE_EVERY_NS):
            self._save()
        return wait_s if self._is_saved else min(wait_s, max(_SAVE_EVERY_NS - since_ns, NS // 10) / NS)

    def load(self) -> Memory | None:
        """What the last process left; None if there is nothing, or nothing that can be read."""
        try:
            return Memory.model_validate_json(self._state_file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._health.count("alarm.state.lost")
            self._health.fault("alarm.state", f"{self._state_file} cannot be read: {type(error).__name__}")
            return None

    def _hand_on(self) -> bool:
        """True when the record refused a change that it may take later."""
        while self._waiting:
            change = self._waiting[0]
            try:
                self._on_change(change)
            except Exception as error:
                self._health.fault("alarm.record", f"{type(error).__name__}: {error}")
                if getattr(error, "retryable", False):
                    return True
                self._health.count("alarm.changes.lost")
            else:
                self._health.clear("alarm.record")
            with self._lock:
                if self._waiting and self._waiting[0] is change:
                    self._waiting.popleft()
            self._is_saved = False
        return False

    def _save(self) -> None:
        """Replace the file in one step, so that a power cut leaves the old one or the new one."""
        self._saved_ns = self._clock.mono_ns()
        try:
            with whole(self._state_file) as file:
                file.write(self._remember().model_dump_json().encode())
        except OSError as error:
            self._health.fault("alarm.state", f"{self._state_file} cannot be written: {error.strerror}")
        else:
            self._is_saved = True
            self._health.clear("alarm.state")
