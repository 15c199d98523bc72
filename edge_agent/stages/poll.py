"""One bus, one thread: ask each device when it is due, and believe nothing without looking.

A device that does not answer is asked once more at its next tick, then backs off 2, 4, … 300 s with
one cheap probe each, never taking more than a twentieth of the bus's time. Its neighbours keep theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from edge_agent.clock import NS, Clock
from edge_agent.contracts import Bus, Device
from edge_agent.counters import Mark
from edge_agent.errors import DeviceError, WireError
from edge_agent.health import Health
from edge_agent.plausibility import QUIET_S, Gate
from edge_agent.schedule import Backoff, Periodic, phase
from edge_agent.vocabulary import Reading, Sample

log = structlog.get_logger("poll")

_DEAD_SHARE: Final = 20  # all dead devices together may take 1/20 of the bus's time
_LONGEST_WAIT_S: Final = 10.0  # between heartbeats
_LONG_SILENCE: Final = 3  # periods without a count are a gap
_FORGIVEN: Final = 1  # misses in a row before a device backs off


@dataclass(slots=True)
class _Polled:
    """A device with its schedule, its gate and its luck."""

    device: Device
    gate: Gate
    correct: Callable[[Sample], Sample] | None = None
    groups: dict[frozenset[str], Periodic] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=2.0, cap_s=300.0))
    misses: int = 0
    visits: int = 0
    busy_ns: int = 0
    probe_at_ns: int = 0  # 0: answering

    @property
    def due_ns(self) -> int:
        return self.probe_at_ns or min(periodic.due_ns for periodic in self.groups.values())


class Poll:
    """The body of a wire thread. ``sink`` gets every reading, from this thread.

    ``corrections``: by device, what its calibration makes of a sample before it is judged. ``marks``: by device,
    where its counters were before.
    """

    def __init__(
        self,
        name: str,
        bus: Bus,
        devices: Sequence[Device],
        clock: Clock,
        health: Health,
        sink: Callable[[Reading], None],
        corrections: Mapping[str, Callable[[Sample], Sample]] | None = None,
        marks: Mapping[str, Mapping[str, Mark]] | None = None,
    ) -> None:
        self.name = name
        self.started_ns = clock.mono_ns()
        self._bus = bus
        self._clock = clock
        self._health = health
        self._sink = sink
        correct, known = corrections or {}, marks or {}
        self._polled = [
            _Polled(device, _gate(device, known.get(device.name)), correct.get(device.name)) for device in devices
        ]
        self._wire_backoff = Backoff(first_s=1.0, cap_s=30.0)

    def body(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        self._schedule()
        while not stop.is_set():
            progress()
            try:
                self._bus.open()
                self._serve(stop, progress)
            except WireError as error:
                self._lose_wire(error)
                self._wait(stop, progress, self._wire_backoff.fail())
            finally:
                self._bus.close()

    def _schedule(self) -> None:
        now_ns = self.started_ns = self._clock.mono_ns()
        for polled in self._polled:
            device = polled.device
            polled.groups = {
                frozenset({group}): Periodic.every(
                    period_s, now_ns, phase(self.name + device.name, min(period_s, 10.0))
                )
                for group, period_s in device.groups.items()
            }

    def _lose_wire(self, error: WireError) -> None:
        """Every device on it is absent."""
        self._bus.close()
        self._health.fault(f"bus.{self.name}", str(error))
        self._health.count(f"bus.{self.name}.lost")
        stamp = self._clock.stamp()
        for polled in self._polled:
            self._sink(Reading(polled.device.name, stamp, {}, dict.fromkeys(polled.device.quantities, error.reason)))

    def _wait(self, stop: threading.Event, progress: Callable[[], None], wait_s: float) -> None:
        while wait_s > 0 and not self._clock.wait(stop, min(wait_s, _LONGEST_WAIT_S)):
            progress()
            wait_s -= _LONGEST_WAIT_S

    def _serve(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Poll what is due until it is time to stop; raises WireError when the wire is lost."""
        clock, polled = self._clock, self._polled
        while not stop.is_set():
            due = polled[0] if len(polled) == 1 else min(polled, key=_due)
            began_ns = clock.mono_ns()
            wait_s = (due.due_ns - began_ns) / NS
            if wait_s > 0:
                clock.wait(stop, min(wait_s, _LONGEST_WAIT_S))
                progress()
                continue
            try:
                self._visit(due, began_ns)
            except WireError:
                self._advance(due, clock.mono_ns())
                raise
            # Only an open wire that also carried something is sound: some gateways accept and hang up.
            self._wire_backoff.reset()
            self._health.clear(f"bus.{self.name}")
            due.visits += 1
            due.busy_ns += clock.mono_ns() - began_ns
            progress()

    def _visit(self, polled: _Polled, now_ns: int) -> None:
        """Read what is due of one device, or probe it when it is known to be away."""
        due = [group for group, periodic in polled.groups.items() if periodic.is_due(now_ns)]
        wanted = due[0] if len(due) == 1 else frozenset[str]().union(*due)
        try:
            if polled.probe_at_ns:
                polled.device.probe()
                wanted = frozenset().union(*polled.groups)
            sample = polled.device.read(wanted)
        except WireError:
            raise
        except DeviceError as error:
            self._missed(polled, error, now_ns)
            return
        self._answered(polled, sample)

    def _answered(self, polled: _Polled, sample: Sample) -> None:
        if polled.correct is not None:
            sample = polled.correct(sample)
        self._sink(polled.gate.judge(sample, self._clock.stamp(), getattr(polled.device, "origin", None)))
        if polled.misses:
            polled.misses = 0
            polled.backoff.reset()
            self._health.clear(f"device.{polled.device.name}")
        self._advance(polled, self._clock.mono_ns())
        polled.probe_at_ns = 0

    def _missed(self, polled: _Polled, error: DeviceError, began_ns: int) -> None:
        """Nothing came: say so, and decide when to ask again."""
        name = polled.device.name
        now_ns = self._clock.mono_ns()
        polled.misses += 1
        self._health.count(f"device.{name}.{error.reason}")
        self._sink(Reading(name, self._clock.stamp(), {}, dict.fromkeys(polled.device.quantities, error.reason)))
        self._advance(polled, now_ns)
        if polled.misses > _FORGIVEN:
            self._health.fault(f"device.{name}", error.reason, hint=error.hint)
            polled.probe_at_ns = now_ns  # it counts as dead from here on
            dead = sum(1 for other in self._polled if other.probe_at_ns)
            rest_ns = (now_ns - began_ns) * (dead * _DEAD_SHARE - 1)
            polled.probe_at_ns += max(int(polled.backoff.fail() * NS), rest_ns)

    def _advance(self, polled: _Polled, now_ns: int) -> None:
        for periodic in polled.groups.values():
            # What is left out on purpose, while it is away, is not missed.
            if periodic.is_due(now_ns) and (missed := periodic.advance(now_ns)) and not polled.probe_at_ns:
                self._health.count(f"bus.{self.name}.skipped", missed)

    def marks(self) -> dict[str, dict[str, Mark]]:
        """By device: where its counters are now."""
        return {polled.device.name: polled.gate.marks() for polled in self._polled}

    @property
    def devices(self) -> list[Device]:
        return [polled.device for polled in self._polled]

    @property
    def busy_ns(self) -> int:
        """How long the wire was in use since the start."""
        return sum(polled.busy_ns for polled in self._polled)

    def work(self) -> dict[str, tuple[int, int]]:
        """By device: how often it was read or probed since the start, and for how long in all (ns)."""
        return {polled.device.name: (polled.visits, polled.busy_ns) for polled in self._polled}

    def utilisation(self) -> float:
        """Share of the time that the wire was busy since the start, 0 to 1."""
        elapsed = self._clock.mono_ns() - self.started_ns
        return self.busy_ns / elapsed if elapsed > 0 else 0.0


def _gate(device: Device, marks: Mapping[str, Mark] | None) -> Gate:
    quiet_s = max(QUIET_S, _LONG_SILENCE * max(device.groups.values(), default=0.0))
    return Gate(device.name, device.quantities, marks, quiet_s)


def _due(polled: _Polled) -> int:
    return polled.due_ns
