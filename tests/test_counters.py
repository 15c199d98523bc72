"""Counters: whatever happens to a meter or to us, what was used is told once, in its place, and never negative."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import ManualClock, iso
from edge_agent.counters import GAP, JUMP, RESET, RESTART, ROLLOVER, SWAP, Mark, used
from edge_agent.health import Health
from edge_agent.plausibility import Gate
from edge_agent.spool import Spool
from edge_agent.stages.record import Recorder
from edge_agent.vocabulary import COUNTER, COUNTER_BACKWARDS, QUANTITIES, SLEW, Origin, Quantity, Sample

FULL = float(2**32)
ENERGY = Quantity("energy_import", "Wh", 0, 1e14, COUNTER, slew=2000.0, wraps=FULL, step=1.0)
ONE, OTHER = Origin("sdm630 x 1", "A-100"), Origin("sdm630 x 1", "B-200")


class Line:
    """A gate that may die and be born again from its marks; keeps the books as whoever reads the telemetry would."""

    def __init__(self, quantity: Quantity = ENERGY, *, synced: bool = True, origin: Origin | None = ONE) -> None:
        self.clock = ManualClock(synced=synced)
        self.quantity = quantity
        self.origin = origin
        self.marks: dict[str, Mark] = {}
        self.gate = Gate("main", {quantity.name: quantity}, self.marks)
        self.believed: float | None = None
        self.used = 0.0
        self.events: list[dict] = []

    def see(self, value: float, after_s: float = 1.0):
        self.clock.advance(after_s)
        name = self.quantity.name
        reading = self.gate.judge(Sample({name: value}, {}), self.clock.stamp(), self.origin)
        if name in reading.values:
            if self.believed is not None:
                step = used(self.believed, value, reading.events)
                assert step >= 0
                self.used += step
            self.believed = value
        self.events += reading.events
        return reading

    def restart(self, down_s: float = 0.0) -> None:
        self.marks = self.gate.marks()
        self.gate = Gate("main", {self.quantity.name: self.quantity}, self.marks)
        self.clock.advance(down_s)

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


class TrueMeter:
    """Counts what is used, in a register that holds so much."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.used = 0

    def use(self, amount: int) -> float:
        self.used += amount
        self.count = (self.count + amount) % int(FULL)
        return float(self.count)


HAPPENINGS = st.lists(
    st.tuples(st.sampled_from(["go on", "go on", "restart", "silence", "reset", "bad frame"]), st.integers(0, 1500)),
    max_size=40,
)


@given(HAPPENINGS, st.one_of(st.integers(0, 50_000), st.integers(int(FULL) - 20_000, int(FULL) - 1)))
def test_what_was_used_is_told_once_and_whole(happenings, first):
    """Over any restarts, silences, resets, roll-overs and bad frames, what is told adds up to what was used."""
    line, meter = Line(), TrueMeter(first)
    line.see(float(first))
    for what, amount in happenings:
        if what == "restart":
            line.restart(down_s=amount * 10)
        elif what == "reset" and 10_000 < meter.count < FULL / 2:  # nearly full it would look like a roll-over
            meter.count = 0
        elif what == "bad frame":
            line.see(float(meter.count ^ 1 << 30), 0.1)
        line.see(meter.use(amount), 61.0 + amount if what == "silence" else 1.0)
    line.see(meter.use(1))
    line.see(meter.use(1))
    while meter.count < 2:  # it rolled over just now, which is believed with the next one
        line.see(meter.use(1))
    assert line.believed == meter.count
    assert line.used == pytest.approx(meter.used, abs=1e-3)
    assert not {JUMP, SWAP, RESTART} & set(line.kinds())


@given(st.lists(st.tuples(st.floats(0, 1e15, allow_nan=False), st.booleans(), st.floats(0.1, 1e5)), max_size=40))
def test_nothing_that_a_meter_says_is_negative_energy(said):
    """Whatever comes, every step that is told is nothing or more, and every event names amounts of nothing or more."""
    line = Line()
    for value, restarts, after_s in said:
        if restarts:
            line.restart()
        line.see(value, after_s)
    assert all(event.get("amount", 0) >= 0 for event in line.events)


def test_what_was_used_while_we_were_down_belongs_to_the_gap():
    """The first count after a restart says from when to when how much was used, and is itself believed."""
    line = Line()
    line.see(1000.0)
    began = line.clock.stamp().wall_ms
    line.restart(down_s=3600)
    reading = line.see(6000.0)
    assert reading.values == {"energy_import": 6000.0}
    (event,) = reading.events
    assert event == {
        "event": GAP,
        "quantity": "energy_import",
        "from": iso(began),
        "to": iso(reading.at.wall_ms),
        "before": 1000.0,
        "amount": 5000.0,
    }
    assert line.see(6001.0).events == ()


def test_a_restart_in_which_nothing_was_used_is_no_event():
    """There is nothing to attribute."""
    line = Line()
    line.see(1000.0)
    line.restart(down_s=3600)
    assert line.see(1000.0).events == ()


def test_a_meter_that_was_silent_leaves_a_gap_too():
    """Also without a restart, what was used in a long silence belongs to the silence; in a short one to nobody."""
    line = Line()
    line.see(1000.0)
    assert line.see(1010.0, after_s=30).events == ()
    (event,) = line.see(2000.0, after_s=600).events
    assert (event["event"], event["amount"]) == (GAP, 990.0)


def test_where_no_clock_tells_how_long_it_was_the_gap_says_so():
    """After a start without a set clock the energy is still told, once it was seen twice, and marked."""
    line = Line(synced=False)
    line.see(1000.0)
    line.restart(down_s=86_400)
    assert line.see(901_000.0).absent == {"energy_import": SLEW}
    (event,) = line.see(901_001.0).events
    assert (event["event"], event["amount"], event["clock"]) == (GAP, 900_001.0, "unsynced")


def test_a_register_that_is_full_begins_again():
    """A fall from the end of the register to its beginning is a roll-over with the energy in between."""
    line = Line()
    line.see(FULL - 100)
    assert line.see(50.0).absent == {"energy_import": COUNTER_BACKWARDS}
    (event,) = line.see(60.0).events
    assert event == {
        "event": ROLLOVER,
        "quantity": "energy_import",
        "before": FULL - 100,
        "after": 60.0,
        "amount": 160.0,
    }


@given(
    st.integers(5, 9), st.sampled_from([1.0, 10.0, 100.0, 400.0]), st.integers(1, 9), st.integers(0, 9), st.booleans()
)
def test_a_display_that_is_full_begins_again(digits, step, before, after, restarts):
    """999999.9 kWh and then 0.0 is a roll-over of so many digits, whatever the register could hold."""
    limit = step * 10.0 ** max(digits, 7)
    line = Line(ENERGY._replace(step=step, wraps=step * 2.0**63))
    line.see(limit - before * step)
    if restarts:
        line.restart(down_s=60)
    line.see(after * step, 60.0)
    (event,) = line.see((after + 1) * step, 60.0).events
    assert (event["event"], event["amount"]) == (ROLLOVER, (before + after + 1) * step)
    assert line.used == (before + after + 1) * step


def test_a_reset_short_of_a_full_display_is_a_reset():
    """990000 kWh and then 0 is no roll-over: so much cannot have been used in between."""
    for before in (0.99e9, 9_999_999.0 / 10, 5e8):
        line = Line()
        line.see(before)
        line.see(5.0)
        assert [event["event"] for event in line.see(6.0).events] == [RESET]


def test_a_reset_is_no_roll_over():
    """From the middle of the register, or further than the power allows, a fall is a reset."""
    for before, after in ((FULL / 2, 5.0), (FULL - 100, FULL / 2)):
        line = Line()
        line.see(before)
        line.see(after)
        assert [event["event"] for event in line.see(after + 1).events] == [RESET]


def test_a_reset_while_we_were_down_says_between_when():
    """What the new count shows was used since the reset; when that was, the event bounds."""
    line = Line()
    line.see(9000.0)
    line.restart(down_s=600)
    line.see(10.0)
    (event,) = line.see(11.0).events
    assert (event["event"], event["before"], event["after"]) == (RESET, 9000.0, 11.0)
    assert event["from"] < event["to"]


def test_more_than_the_power_allows_must_come_twice():
    """One wild value is absent and forgotten; a new level that stays is followed, and no energy is made of it."""
    line = Line()
    line.see(1000.0)
    assert line.see(900_000.0).absent == {"energy_import": SLEW}
    assert line.see(1001.0).values
    assert line.see(900_000.0).absent
    reading = line.see(900_001.0)
    assert (reading.values, reading.events[0]["event"]) == ({"energy_import": 900_001.0}, JUMP)
    assert line.used == 1.0


def test_a_coarse_counter_may_take_its_own_step():
    """A register of 10 kWh per digit moves by 10 kWh at once, and that is no jump."""
    line = Line(ENERGY._replace(step=10_000.0))
    line.see(50_000.0)
    assert line.see(60_000.0).values


def test_another_meter_is_another_count():
    """A new serial number is an event that names both; its count is followed from where it stands."""
    line = Line()
    line.see(700_000.0)
    line.restart(down_s=600)
    line.origin = OTHER
    reading = line.see(12.0)
    assert reading.values == {"energy_import": 12.0}
    assert reading.events == (
        {
            "event": SWAP,
            "quantity": "energy_import",
            "serial_before": "A-100",
            "serial_after": "B-200",
            "before": 700_000.0,
            "after": 12.0,
        },
    )
    assert line.see(13.0).events == ()
    assert line.used == 1.0


def test_a_serial_number_that_was_not_to_be_had_swaps_nothing():
    """Unknown is not another; who was known before is still who it is compared with afterwards."""
    line = Line()
    line.see(1000.0)
    line.origin = Origin(ONE.basis)
    assert line.see(1001.0).events == ()
    line.origin = ONE
    assert line.see(1002.0).events == ()
    line.origin = OTHER
    assert [event["event"] for event in line.see(5.0).events] == [SWAP]


def test_other_ratios_are_another_count():
    """When the ratio was corrected in the config, the count in new units is no energy."""
    line = Line()
    line.see(1000.0)
    line.restart()
    line.origin = Origin("sdm630 x 40", "A-100")
    (event,) = line.see(40_000.0).events
    assert (event["event"], event["basis_before"], event["basis_after"]) == (RESTART, "sdm630 x 1", "sdm630 x 40")
    assert line.used == 0


class Run:
    """One life of the agent, as far as counters go: a gate, and a recorder on a disk."""

    def __init__(self, folder, clock: ManualClock) -> None:
        self.clock = clock
        health = Health(clock)
        self.spool = Spool(folder / "spool.db", clock, health, limit_bytes=1 << 30, durable=False)
        self.spool.open()
        self.marks = self.spool.marks().get("main", {})
        self.gate = Gate("main", {ENERGY.name: ENERGY}, self.marks)
        self.recorder = Recorder(
            self.spool, clock, health, commit_every_s=0.01, history_days=1, formats={}, counters={"main": [ENERGY.name]}
        )

    def see(self, count: float):
        """One reading, seven seconds after the last one, and a turn of the recorder's thread, which is then stopped."""
        self.clock.advance(7)
        reading = self.gate.judge(Sample({ENERGY.name: count}, {}), self.clock.stamp(), ONE)
        self.recorder.reading(reading)
        self.recorder.commit()
        self.recorder._look_after_disk()
        return reading

    def end(self) -> None:
        ended = threading.Event()
        ended.set()
        self.recorder.body(ended, lambda: None)
        self.recorder.close()

    def last_in_history(self) -> float:
        (body,) = self.spool._db.writer.execute("SELECT body FROM history ORDER BY minute DESC LIMIT 1").fetchone()
        return json.loads(body)[ENERGY.name][3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_minutes_and_gap_hold_all_that_was_used(tmp_path, is_killed):
    """Ended or killed, the gap begins where the last minute on the disk ends: nothing falls between, nothing twice."""
    clock, meter = ManualClock(), TrueMeter(1000)
    first = Run(tmp_path, clock)
    for _ in range(30):
        first.see(meter.use(10))
    if is_killed:
        first.spool._db._close()
    else:
        first.end()
    meter.use(5000)
    clock.advance(3600)
    second = Run(tmp_path, clock)
    mark = second.marks[ENERGY.name]
    assert mark.origin == ONE
    assert mark.value == second.last_in_history()
    assert (mark.value < 1300) == is_killed, "what was in no minute yet is counted in the gap"
    (event,) = second.see(meter.use(10)).events
    assert (event["from"], event["amount"]) == (iso(mark.wall_ms), meter.count - mark.value)
    second.end()


def test_every_energy_of_the_vocabulary_knows_how_fast_it_may_rise():
    """No counter of ours believes more than its power can deliver."""
    assert all(q.slew for q in QUANTITIES.values() if q.kind == COUNTER)
