"""One wire, one thread: a dead device costs its neighbours nothing, and time that jumps makes no burst."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import pairwise

import pytest

from edge_agent.clock import NS, ManualClock
from edge_agent.errors import DeviceError, WireError
from edge_agent.health import Health
from edge_agent.stages.poll import Poll
from edge_agent.vocabulary import CRC, QUANTITIES, TIMEOUT, WIRE, Sample


class FakeDevice:
    """Answers in ``takes_s``, or does not within ``timeout_s``; what happens is written to ``asked``."""

    def __init__(self, name, clock, *, every=1.0, takes_s=0.01, timeout_s=0.5, groups=None) -> None:
        self.name = name
        self.quantities = {"active_power": QUANTITIES["active_power"], "energy_import": QUANTITIES["energy_import"]}
        self.groups = groups or {"all": every}
        self.clock = clock
        self.takes_s = takes_s
        self.timeout_s = timeout_s
        self.error: Exception | None = None
        self.asked: list[tuple[str, float]] = []
        self.busy_s = 0.0

    def _ask(self, what: str) -> None:
        self.asked.append((what, self.clock.mono_ns() / NS))
        seconds = self.takes_s if self.error is None else self.timeout_s
        self.busy_s += seconds
        self.clock.advance(seconds)
        if self.error is not None:
            raise self.error

    def probe(self) -> None:
        self._ask("probe")

    def read(self, due: frozenset[str]) -> Sample:
        assert due, "something is due when a device is read"
        assert due <= set(self.groups)
        self._ask("read " + ",".join(sorted(due)))
        return Sample({"active_power": 1.0}, {})

    def reads(self) -> int:
        return sum(what != "probe" for what, _ in self.asked)


class FakeBus:
    def __init__(self) -> None:
        self.error: WireError | None = None
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


class Wire:
    """A poll stage that runs in this thread until imagined time is over."""

    def __init__(self, count: int = 5, **device) -> None:
        self.clock = ManualClock()
        self.health = Health(self.clock)
        self.bus = FakeBus()
        self.devices = [FakeDevice(f"meter-{n}", self.clock, **device) for n in range(count)]
        self.readings = []
        self.poll = Poll("rs485", self.bus, self.devices, self.clock, self.health, self.readings.append)
        self.at: dict[float, list] = {}

    def run(self, seconds: float, *events) -> None:
        """Let time pass; ``events``: (after so many seconds, what to do)."""
        began = self.clock.mono_ns() / NS
        waiting = sorted(((began + after, act) for after, act in events), key=lambda event: event[0])
        stop = threading.Event()

        def progress() -> None:
            now = self.clock.mono_ns() / NS
            while waiting and waiting[0][0] <= now:
                waiting.pop(0)[1]()
            if now - began >= seconds:
                stop.set()

        self.poll.body(stop, progress)

    def of(self, device) -> list:
        return [reading for reading in self.readings if reading.device == device.name]


def test_every_device_keeps_its_period():
    """Five meters at one second for a minute are read sixty times each, with nothing skipped."""
    wire = Wire()
    wire.run(60)
    assert all(59 <= device.reads() <= 61 for device in wire.devices)
    assert wire.health.counters() == {}
    assert 0 < wire.poll.utilisation() < 0.1


def test_one_dead_of_five_costs_the_others_nothing():
    """While one meter times out for ten minutes the other four keep their period."""
    wire = Wire()
    dead, *healthy = wire.devices
    dead.error = DeviceError(TIMEOUT)
    wire.run(600)
    assert all(device.reads() >= 597 for device in healthy)
    assert dead.busy_s <= 0.05 * 600
    assert wire.health.faults()[0].source == "device.meter-0"
    assert {tuple(reading.absent.values()) for reading in wire.of(dead)} == {(TIMEOUT, TIMEOUT)}
    assert all(reading.values == {} for reading in wire.of(dead)), "no value is better than a wrong one"


@pytest.mark.parametrize("dead", [1, 3, 10])
def test_all_dead_units_together_take_a_twentieth(dead):
    """However many units are dead and however long their timeout, they share one twentieth of the wire's time."""
    wire = Wire(dead + 1, timeout_s=3.0)
    *gone, healthy = wire.devices
    for device in gone:
        device.error = DeviceError(TIMEOUT)
    wire.run(20 * 3 * dead * 3)  # until the first tries are over
    before = sum(device.busy_s for device in gone)
    wire.run(7200)
    assert sum(device.busy_s for device in gone) - before <= 0.055 * 7200
    assert healthy.reads() > 0


def test_it_is_asked_once_more_then_less_and_less_often():
    """Two ordinary tries, then probes that double their distance up to five minutes, within the jitter."""
    wire = Wire(1)
    (dead,) = wire.devices
    dead.error = DeviceError(TIMEOUT)
    wire.run(3600)
    whats = [what for what, _ in dead.asked]
    assert whats[:2] == ["read all", "read all"]
    assert set(whats[2:]) == {"probe"}
    waits = [later - earlier for (_, earlier), (_, later) in pairwise(dead.asked[2:])]
    assert all(later > 1.4 * earlier for earlier, later in pairwise(waits[1:5]))
    assert max(waits) <= 331


def test_back_from_the_dead_it_is_read_at_once_and_nothing_was_missed_on_purpose():
    """The first probe that is answered brings a whole reading, then the period; backing off is no miss."""
    wire = Wire(2)
    away, _ = wire.devices

    def die() -> None:
        away.error = DeviceError(TIMEOUT)

    def heal() -> None:
        away.error = None

    wire.run(400, (10, die), (100, heal))
    whats = [what for what, _ in away.asked]
    first = whats.index("probe")
    probes = whats.count("probe")
    assert 2 < probes < 10
    assert set(whats[first : first + probes]) == {"probe"}
    assert set(whats[first + probes :]) == {"read all"}
    assert 200 < whats[first + probes :].count("read all") <= 301
    assert wire.health.faults() == []
    assert wire.health.counters().get("bus.rs485.skipped", 0) <= 2


def test_a_single_miss_is_forgiven():
    """One damaged reply is an absent reading, not a fault, and the next tick comes as ever."""
    wire = Wire(1)
    (device,) = wire.devices

    def spoil() -> None:
        device.error = DeviceError(CRC)

    def mend() -> None:
        device.error = None

    wire.run(20, (5, spoil), (6.2, mend))
    assert wire.health.faults() == []
    absent = [reading for reading in wire.of(device) if reading.absent]
    assert 1 <= len(absent) <= 2
    assert 18 <= device.reads() <= 21


def test_a_slow_device_skips_ticks_and_counts_them():
    """A reply that takes three seconds at a period of one: every third tick, never a queue of polls."""
    wire = Wire(1, takes_s=2.9)
    wire.run(90)
    assert 29 <= wire.devices[0].reads() <= 31
    assert 55 <= wire.health.counters()["bus.rs485.skipped"] <= 62


def test_a_jump_of_time_makes_no_burst():
    """Ten minutes asleep: each device is read once, then at its period again."""
    wire = Wire(3)
    wire.run(720, (60, lambda: wire.clock.advance(600)))
    for device in wire.devices:
        seconds = Counter(int(at) for _, at in device.asked)
        assert max(seconds.values()) <= 2, "the overdue one, and the next in step"
        assert 118 <= device.reads() <= 122


def test_groups_have_their_own_periods():
    """Power every second, energy every ten: together where they fall together, in one visit."""
    wire = Wire(1, groups={"fast": 1.0, "slow": 10.0})
    wire.run(100)
    asked = Counter(what for what, _ in wire.devices[0].asked)
    assert 98 <= sum(n for what, n in asked.items() if "fast" in what) <= 101
    assert 9 <= sum(n for what, n in asked.items() if "slow" in what) <= 11


# --- the wire itself


def test_a_lost_wire_is_closed_said_for_all_and_found_again():
    """The adapter is pulled for a minute: everybody absent with the reason, then everybody back."""
    wire = Wire(3)

    def pull() -> None:
        wire.bus.error = WireError(WIRE, "/dev/ttyUSB0 is gone")
        for device in wire.devices:
            device.error = WireError(WIRE, "/dev/ttyUSB0 is gone")
            device.timeout_s = 0.0

    def plug() -> None:
        wire.bus.error = None
        for device in wire.devices:
            device.error = None

    wire.run(200, (60, pull), (120, plug))
    for device in wire.devices:
        lost = [reading for reading in wire.of(device) if WIRE in reading.absent.values()]
        assert lost
        assert all(reading.values == {} for reading in lost)
        assert sum(at > 1150 for _, at in device.asked) >= 48
    assert wire.health.faults() == []
    assert wire.bus.closed >= wire.health.counters()["bus.rs485.lost"]


def test_an_absent_wire_is_asked_for_less_and_less_often():
    """No port for an hour: a bounded number of tries, one log edge, no busy loop."""
    wire = Wire(2)
    wire.bus.error = WireError(WIRE, "no such port")
    wire.run(3600)
    assert 100 < wire.bus.opened < 160
    assert len(wire.readings) == 2 * wire.bus.opened


def test_a_gateway_that_accepts_and_hangs_up_is_not_stormed(monkeypatch):
    """Open works, the first question never does: the wire backs off and the fault stays one fault."""
    wire = Wire(1, every=0.05, timeout_s=0.0)
    wire.devices[0].error = WireError(WIRE, "connection reset")
    edges = []
    monkeypatch.setattr(wire.health, "clear", edges.append)
    wire.run(600)
    assert wire.bus.opened < 40
    assert edges == []


def test_told_to_stop_it_closes_the_wire():
    """The wire is closed when the stage ends, however it ends."""
    wire = Wire(1)
    stop = threading.Event()
    stop.set()
    wire.poll.body(stop, lambda: None)
    wire.run(1)
    assert wire.bus.closed >= 1
