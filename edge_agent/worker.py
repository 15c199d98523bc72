"""A supervised thread: what fails is logged once, restarted with back-off, and stays where it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from edge_agent.clock import Clock
from edge_agent.health import Health
from edge_agent.schedule import Backoff

log = structlog.get_logger("worker")

Body = Callable[[threading.Event, Callable[[], None]], None]
"""``body(stop, progress)`` runs until ``stop`` is set, calling ``progress`` whenever it got something done."""


class Worker:
    """One thread with a name, a heartbeat and a second life.

    ``wake``: called when it is asked to stop, for a body that waits for something else than ``stop``.
    """

    def __init__(
        self,
        name: str,
        body: Body,
        health: Health,
        clock: Clock,
        *,
        max_silence_s: float = 30.0,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._body = body
        self._health = health
        self._clock = clock
        self._max_silence_s = max_silence_s
        self._wake = wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stop.set()
        if self._wake is not None:
            self._wake()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False if it did not come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        beat = self._health.expect(self.name, self._max_silence_s)

        def progress() -> None:
            beat()
            self._health.clear(f"worker.{self.name}")

        backoff = Backoff(first_s=1.0, cap_s=60.0)
        while not self._stop.is_set():
            started_ns = self._clock.mono_ns()
            try:
                self._body(self._stop, progress)
                break
            except Exception as error:
                log.exception("worker failed", worker=self.name)
                self._health.fault(f"worker.{self.name}", f"{type(error).__name__}: {error}")
                self._health.count(f"worker.{self.name}.restarts")
            if self._clock.mono_ns() - started_ns > 60 * 1_000_000_000:
                backoff.reset()
            wait_s = backoff.fail()
            while wait_s > 0 and not self._clock.wait(self._stop, min(wait_s, 5.0)):
                beat()  # waiting on purpose is progress
                wait_s -= 5.0
        self._health.forget(self.name)


def stop_all(workers: list[Worker], clock: Clock, deadline_s: float) -> list[str]:
    """Ask all first, then wait for all; the names of those that did not end in time."""
    for worker in workers:
        worker.ask_to_stop()
    deadline_ns = clock.mono_ns() + int(deadline_s * 1e9)
    return [worker.name for worker in workers if not worker.join(max(0.0, (deadline_ns - clock.mono_ns()) / 1e9))]
