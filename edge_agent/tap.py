"""Every reading, for whoever asks often enough: between two questions they wait here, bounded."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final

from edge_agent.clock import NS, Clock
from edge_agent.vocabulary import Reading

_MOST: Final = 5_000  # readings of one listener; older ones go
_LISTENERS: Final = 4
_FORGOTTEN_S: Final = 30.0  # who has not asked for so long has gone


class Tap:
    """Costs nothing while nobody listens. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._waiting: dict[str, deque[Reading]] = {}
        self._asked_ns: dict[str, int] = {}

    def offer(self, reading: Reading) -> None:
        if not self._waiting:
            return
        with self._lock:
            for readings in self._waiting.values():
                readings.append(reading)
            self._forget()

    def take(self, listener: str) -> list[Reading]:
        """What came since this listener last asked; nothing the first time."""
        with self._lock:
            found = list(self._waiting.pop(listener, ()))
            self._forget()
            if len(self._waiting) < _LISTENERS:
                self._waiting[listener] = deque(maxlen=_MOST)
                self._asked_ns[listener] = self._clock.mono_ns()
        return found

    def _forget(self) -> None:
        now_ns = self._clock.mono_ns()
        for listener in [name for name in self._waiting if now_ns - self._asked_ns[name] > _FORGOTTEN_S * NS]:
            del self._waiting[listener], self._asked_ns[listener]
