"""Where live readings come from: the running daemon, or a wire of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final, NamedTuple, Protocol

from edge_agent import control
from edge_agent.clock import NS, Clock
from edge_agent.commissioning.finding import Snapshot
from edge_agent.errors import DeviceError, EdgeAgentError, WireError
from edge_agent.plan import Config, DevicePlan
from edge_agent.plausibility import Gate

_ASK_EVERY_S: Final = 0.25
_MOST_MISSES: Final = 5
_LONGEST_S: Final = 30.0


class Source(Protocol):
    """Gives one new reading after the other; raises EdgeAgentError when there is none to be had."""

    @property
    def told(self) -> str:
        """Where the readings come from, for people."""
        ...

    def read(self) -> Snapshot: ...


class Daemon:
    """Readings of the running daemon: it holds the port. ``applied``: how it corrects each quantity."""

    def __init__(self, state_dir: Path, device: str, clock: Clock, every_s: float) -> None:
        self.told = "read by the running daemon"
        self._path = control.socket_path(state_dir)
        self._device = device
        self._clock = clock
        self._began_ns = clock.mono_ns()
        self._last: object = None
        self._longest_s = max(_LONGEST_S, 3 * every_s)
        self.applied: dict[str, Any] = {}

    def read(self) -> Snapshot:
        """Wait for the next reading."""
        waited_s = 0.0
        while waited_s < self._longest_s:
            said = self.ask()
            at = said.get("at")
            if at is not None and at != self._last:
                self._last = at
                elapsed_s = (self._clock.mono_ns() - self._began_ns) / NS
                return Snapshot(elapsed_s, said.get("values", {}), said.get("absent", {}))
            self._clock.wait(Event(), _ASK_EVERY_S)
            waited_s += _ASK_EVERY_S
        raise EdgeAgentError(f"the daemon has no new reading of {self._device}", hint="edge-agent status says why")

    def ask(self) -> dict[str, Any]:
        """What the daemon says of the device now."""
        devices = control.ask(self._path, {"ask": "status"})["devices"]
        if self._device not in devices:
            raise EdgeAgentError(
                f"the running daemon does not know {self._device} yet", hint="systemctl reload edge-agent"
            )
        said: dict[str, Any] = devices[self._device]
        self.applied = said.get("calibration", {})
        return said


class Wire:
    """Readings over a bus of our own, every ``every_s``."""

    def __init__(self, bus: Any, plan: DevicePlan, clock: Clock, every_s: float) -> None:
        self.told = f"read over {plan.bus}"
        self.bus = bus
        self._device = bus.device(plan.name, plan.settings, plan.profile)
        self._gate = Gate(plan.name, self._device.quantities)
        self._clock = clock
        self._every_ns = int(every_s * NS)
        self._began_ns = self._due_ns = clock.mono_ns()
        self._misses = 0

    def read(self) -> Snapshot:
        """Wait until it is time, then read every group; a device that stays silent raises DeviceError."""
        while True:
            self._clock.wait(Event(), max(0, self._due_ns - self._clock.mono_ns()) / NS)
            self._due_ns = max(self._due_ns + self._every_ns, self._clock.mono_ns())
            try:
                sample = self._device.read(frozenset(self._device.groups))
            except WireError:
                raise
            except DeviceError:
                self._misses += 1
                if self._misses >= _MOST_MISSES:
                    raise
                continue
            self._misses = 0
            stamp = self._clock.stamp()
            reading = self._gate.judge(sample, stamp)
            return Snapshot((stamp.mono_ns - self._began_ns) / NS, reading.values, reading.absent)


class Opened(NamedTuple):
    """``bus``: ours and open, or None where the daemon has it."""

    source: Daemon | Wire
    bus: Any


@contextmanager
def opened(config: Config, plan: DevicePlan, clock: Clock, every_s: float) -> Iterator[Opened]:
    """The daemon if one runs with this config, else the wire itself; closed in the end. Raises EdgeAgentError."""
    daemon = Daemon(config.state_dir, plan.name, clock, every_s)
    try:
        daemon.ask()
    except control.UnreachableError as error:
        if "not allowed" in str(error):
            raise
    else:
        yield Opened(daemon, None)
        return
    bus_plan = config.buses[plan.bus]
    bus = bus_plan.kind(bus_plan.name, bus_plan.settings, clock)
    source = Wire(bus, plan, clock, every_s)
    bus.open()
    try:
        yield Opened(source, bus)
    finally:
        bus.close()


def collect(
    source: Source,
    seconds: float,
    show: Callable[[list[Snapshot]], None] = lambda _: None,
    enough: Callable[[list[Snapshot]], bool] = lambda _: False,
) -> list[Snapshot]:
    """Readings for so long, at least three; ``show`` sees them grow, ``enough`` may end it earlier."""
    window: list[Snapshot] = []
    while len(window) < 3 or (window[-1].at_s - window[0].at_s < seconds and not enough(window)):
        window.append(source.read())
        show(window)
    return window
