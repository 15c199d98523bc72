"""What a bus suffers from, said from its counters: every rule bites on its own fault and on no healthy bus."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent import Agent
from edge_agent.bus_health import ECHO, KINDS, SECOND_ANSWER, BusFacts, UnitFacts, diagnose, load
from edge_agent.bus_watch import BusWatch, Seen, seen
from edge_agent.clock import NS, ManualClock
from edge_agent.config import loads
from edge_agent.errors import DeviceError
from edge_agent.parts import wanted
from edge_agent.vocabulary import CRC, TIMEOUT, WRONG_REPLY


def unit(number: int, requests: int = 600, answers: int | None = None, **more) -> UnitFacts:
    errors = more.pop("errors", {})
    good = requests - sum(errors.values()) if answers is None else answers
    more = {"latency_ms": (12.0, 20.0), "has_answered": good > 0} | more
    return UnitFacts(f"meter-{number}", number, requests, good, errors, **more)


def bus(*units: UnitFacts, is_serial: bool = True, shares=((0.1, 1.0),)) -> BusFacts:
    return BusFacts(is_serial, units, load(shares, len(units)))


def dead(number: int, kind: str = TIMEOUT, **more) -> UnitFacts:
    return unit(number, 12, 0, errors={kind: 12}, latency_ms=None, **more)


HEALTHY = unit(8), unit(9)
CASES = {
    "echo": (bus(dead(1)._replace(errors={TIMEOUT: 12, ECHO: 12})), "12 times only our own request", "echo: true"),
    "nobody-answers": (bus(dead(1), dead(2), dead(3)), "A and B swapped?", "all 3 units silent, 36 requests"),
    "noise": (
        bus(
            unit(1, errors={CRC: 12}, registers=20, damaged_registers=40),
            unit(2, errors={CRC: 30}, registers=40, damaged_registers=60),
            unit(3),
        ),
        "termination or noise? damaged answers from 2 of 3 units, 42 of 1200 (3.5%)",
        "the longer the worse: 50 registers where 30 are usual",
    ),
    "one-damaged": (
        bus(unit(7, errors={CRC: 60}), *HEALTHY),
        "two devices at one address, or a bad stub? unit 7 (meter-7): 60 of 600",
    ),
    "two-at-one-address": (
        bus(unit(7, answers=600, errors={SECOND_ANSWER: 40}), *HEALTHY),
        "two devices answer at the address of unit 7 (meter-7)",
        "40 times",
    ),
    "another-master": (
        bus(unit(1, errors={WRONG_REPLY: 5}), unit(2, errors={WRONG_REPLY: 4})),
        "another master on the line? 9 times 2 units",
    ),
    "unit-silent": (bus(dead(5), *HEALTHY), "unit 5 (meter-5) has never answered, its neighbours do"),
    "unit-slow": (
        bus(unit(5, latency_ms=(310.0, 400.0)), *HEALTHY),
        "unit 5 (meter-5) is slow",
        "more than 310 ms, those of its neighbours 12 ms",
    ),
    "unit-refuses": (bus(unit(5, errors={"exception-02": 300}), *HEALTHY), "exception-02 300 times", "profile"),
    "full": (bus(*HEALTHY, shares=[(3.7, 5.0), (3.7, 5.0)]), "cycle 7.4 s is longer than 5 s"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_is_named_with_what_it_is_seen_from(kind):
    """The planted fault is suspected, alone, with its numbers."""
    facts, *words = CASES[kind]
    (suspicion,) = diagnose(facts)
    assert suspicion.kind == kind
    assert all(word in suspicion.says for word in words), suspicion.says


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(1, 40), st.integers(0, 2)), min_size=1, max_size=30),
    st.booleans(),
)
def test_a_healthy_bus_is_never_suspected(units, is_serial):
    """Any number of meters that answer, with at most two accidents each: nothing is said."""
    facts = bus(
        *(unit(n, requests, latency_ms=(ms, 2 * ms)) for n, (requests, ms, _) in enumerate(units)),
        is_serial=is_serial,
    )
    assert diagnose(facts) == []
    accidents = [
        each._replace(requests=each.requests + 1000, answers=1000, errors={CRC: accident})
        for each, (_, _, accident) in zip(facts.units, units, strict=True)
    ]
    assert diagnose(facts._replace(units=accidents)) == []


def test_who_answered_before_has_its_wires_the_right_way_round():
    """When everybody falls silent at once the cable is suspected, not A and B."""
    (suspicion,) = diagnose(bus(dead(1, has_answered=True), dead(2)))
    assert suspicion.kind == "nobody-answers"
    assert suspicion.says.startswith("cable or power?")


def test_garbage_is_the_wrong_speed_first():
    """Where something comes and nothing fits, baud rate and parity are named before the wires."""
    (suspicion,) = diagnose(bus(dead(1, WRONG_REPLY), dead(2)))
    assert suspicion.says.startswith("baud rate or parity wrong, or A and B swapped? garbage to 12 of 24 requests")


def test_on_tcp_no_wire_is_suspected():
    """Swapped wires, termination and second masters are things of serial lines."""
    for kind in ("nobody-answers", "noise", "one-damaged", "another-master"):
        facts = CASES[kind][0]._replace(is_serial=False)
        assert not {"nobody-answers", "noise", "one-damaged", "another-master"} & {s.kind for s in diagnose(facts)}


def test_what_a_gateway_cannot_reach_is_behind_it():
    """Exceptions 0A and 0B are about the wire behind the gateway."""
    gone = unit(3, 50, 0, errors={"exception-0B": 50}, latency_ms=None)
    (suspicion,) = diagnose(bus(gone, *HEALTHY, is_serial=False))
    assert suspicion.says.startswith("the gateway does not reach unit 3 (meter-3): exception-0B 50 times")


def test_who_answers_damaged_is_not_silent():
    """A unit of which only damaged answers ever came is suspected of that, and of nothing else."""
    (suspicion,) = diagnose(bus(dead(5, CRC), *HEALTHY))
    assert suspicion.kind == "one-damaged"


def test_who_misses_answers_is_named():
    """A unit that loses one answer in ten is told from one that was never there."""
    (suspicion,) = diagnose(bus(unit(3, errors={TIMEOUT: 60}), *HEALTHY))
    assert suspicion.says.startswith("unit 3 (meter-3) misses answers: 60 of 600")


def test_a_bus_that_nobody_was_asked_on_is_not_suspected():
    """Before the first request there is nothing to say."""
    assert diagnose(bus(unit(1, 0, latency_ms=None))) == []
    assert diagnose(BusFacts(True, [])) == []


# --- room


@given(st.floats(0.01, 0.5), st.sampled_from([1.0, 2.0, 5.0]), st.integers(1, 20))
def test_the_room_that_is_told_is_there(busy_s, period_s, meters):
    """With so many more meters the line is at most as full as it may be; with one more, fuller."""
    now = load([(busy_s, period_s)] * meters, meters)
    assert now is not None
    then = load([(busy_s, period_s)] * (meters + now.room), meters + now.room)
    assert now.room == 0 or then.share <= 0.8 + 1e-6
    if now.share < 0.8:
        one_more = load([(busy_s, period_s)] * (meters + now.room + 1), meters + now.room + 1)
        assert one_more.share > 0.8 - 1e-6


def test_room_and_overload_are_said_in_words():
    """The two sentences that a line engineer reads."""
    assert load([(0.1, 1.0)] * 5, 5).spare() == "room for 3 more meters at 1 s"
    assert load([(3.7, 5.0)] * 2, 2).overload() == "cycle 7.4 s is longer than 5 s"
    assert load([(0.79, 1.0)], 1).spare() == ""
    assert load([], 0) is None


# --- the last minutes


class Meter:
    def __init__(self, name: str) -> None:
        self.name = name
        self.groups = {"all": 1.0}
        self.unit = SimpleNamespace(number=1, errors={}, requests=0, answers=0, crc_registers=0)

    def latency_ms(self):
        return (10.0, 30.0) if self.unit.answers else None


def test_old_errors_are_counted_but_no_longer_suspected():
    """What went wrong more than ten minutes ago stands in the counts; the suspicion goes."""
    good, bad = Meter("good"), Meter("bad")
    watch, busy = BusWatch([good, bad], 0, is_serial=True), 0
    reports = []
    for second in range(0, 1500, 5):
        for meter in (good, bad):
            meter.unit.requests += 5
            fails = meter is bad and second < 60
            meter.unit.answers += 0 if fails else 5
            if fails:
                meter.unit.errors = {CRC: meter.unit.requests}
        busy += NS // 2
        counters = {meter.name: seen(meter, (second + 5, busy), {}) for meter in (good, bad)}
        watch.look(second * NS, counters)
        reports.append(watch.report(second * NS, counters, 0.2))
    assert "one-damaged" in {suspicion["kind"] for suspicion in reports[12]["suspicions"]}
    assert reports[-1]["suspicions"] == []
    assert reports[-1]["units"]["bad"] == {
        "unit": 1,
        "requests": 1500,
        "errors": {CRC: 60},
        "latency_ms": [10.0, 30.0],
    }
    assert reports[-1]["last_minute"] == pytest.approx(0.2, rel=0.1)
    assert (reports[-1]["cycle_s"], reports[-1]["wanted_s"], reports[-1]["room"]) == (0.2, 1.0, 6)


def test_a_request_that_is_under_way_is_no_answer():
    """A dead unit does not count as answering while it is being asked once more."""
    meter = Meter("dead")
    meter.unit.requests, meter.unit.errors = 5, {TIMEOUT: 4}
    watch = BusWatch([meter], 0, is_serial=True)
    (suspicion,) = diagnose(watch.facts({"dead": seen(meter, (4, NS), {})}))
    assert suspicion.kind == "nobody-answers"


def test_a_sensor_without_counters_is_told_from_its_readings():
    """What its driver does not count, the reasons of absent readings tell."""
    sensor = SimpleNamespace(name="cabinet", groups={"all": 1.0})
    assert seen(sensor, (10, NS), {"not-found": 4}) == Seen(10, 6, {"not-found": 4}, 0, 10, NS)


# --- in the daemon


LINE = """\
site: a
line: b
state_dir: state
buses: {panel: {kind: simulated-modbus-tcp, timeout_ceiling: 200ms}}
devices:
  main: {bus: panel, profile: eastron-sdm630, unit: 1, every: 1s}
  sub: {bus: panel, profile: eastron-sdm120, unit: 2, every: 1s, twin: {faults: [{kind: silent}]}}
"""


def test_the_broker_is_told_once_a_minute(tmp_path, monkeypatch):
    """The retained state has how each bus fares; it is sent anew for that at most once a minute."""
    clock = ManualClock()
    agent = Agent(loads(LINE, tmp_path / "config.yaml"), clock)
    told = []
    agent.publisher = SimpleNamespace(state_changed=lambda: told.append(clock.mono_ns() // NS), broker=None)
    _, make = wanted(agent, agent.config, agent.report.state)["bus.panel"]
    agent.parts["bus.panel"] = part = make()
    poll = part.detail
    monkeypatch.setattr(agent.spool, "usage", dict)
    agent.look()
    told.clear()
    assert "buses" not in agent.report.state("online")
    with contextlib.closing(poll._bus) as wire:
        wire.open()
        for _ in range(40):
            for polled in poll._polled:
                with contextlib.suppress(DeviceError):
                    polled.device.read(frozenset(polled.device.groups))
                polled.visits += 1
                polled.busy_ns += NS // 10
            clock.advance(5)
            agent.look()
    assert len(told) == 3, "two hundred seconds"
    panel = agent.report.state("online")["buses"]["panel"]
    assert panel["last_minute"] == 0.04
    assert panel["units"]["sub"]["errors"].keys() == {TIMEOUT}
    assert [suspicion["kind"] for suspicion in panel["suspicions"]] == ["unit-silent"]
    assert "main" in panel["units"]
    assert agent.report.status()["buses"]["panel"]["units"]["main"]["latency_ms"]
