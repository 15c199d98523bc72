"""A part sensor that exists nowhere: it sees the parts of the simulated conveyor, each in the middle of the picture."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_agent.clock import NS, Clock


class SimulatedPartSensor:
    """Sees one part per period; its time counts from the start of the agent, as that of the simulated camera."""

    def __init__(self, period_s: float, clock: Clock, since_ns: int, stop: threading.Event) -> None:
        self._period_ns = int(period_s * NS)
        self._clock = clock
        self._since_ns = since_ns
        self._stop = stop

    def open(self) -> None:
        """Nothing to claim."""

    def when_part(self, act: Callable[[], None]) -> None:
        threading.Thread(target=self._run, args=(act,), name="sensor", daemon=True).start()

    def _run(self, act: Callable[[], None]) -> None:
        while True:
            into_ns = (self._clock.mono_ns() - self._since_ns - self._period_ns // 2) % self._period_ns
            if self._clock.wait(self._stop, (self._period_ns - into_ns) / NS):
                return
            act()
