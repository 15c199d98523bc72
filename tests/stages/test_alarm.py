"""The alarm stage: lamps first, then the record; a light that nobody can hold up; and no wake-up without a reason."""

from __future__ import annotations

import json
from queue import Queue
from threading import Event, Thread, current_thread
from threading import enumerate as enumerate_threads

import pytest

from drivers.gpio import SimulatedStackLight, StackLightSettings
from edge_agent.alarms import AlarmError, AlarmSettings
from edge_agent.clock import NS, ManualClock, SystemClock
from edge_agent.errors import OutputError, SpoolError
from edge_agent.health import Health
from edge_agent.stages.alarm import AlarmStage
from edge_agent.vocabulary import Reading, Verdict
from edge_agent.worker import Worker

PATIENCE_S = 20.0  # a bound for what never comes; nothing waits that long when it works

ALARMS = {
    "overload": {"when": "meter.active_power > 45 kW", "clear": "< 42 kW", "severity": "high", "latch": True},
    "defect": {"when": "outfeed is defect", "severity": "medium"},
    "silent": {"when": "meter is offline", "for": "60s", "severity": "low"},
}


class Lights:
    """An output that notes what it was told, and fails when it is told to."""

    def __init__(self, name: str = "lights") -> None:
        self.name = name
        self.shown: list[dict[str, bool]] = []
        self.told: Queue[dict[str, bool]] = Queue()
        self.broken = False
        self.events: list[str] = []
        self.press = lambda: None

    def open(self):
        self.events.append("open")
        if self.broken:
            raise OutputError("GPIO 17 is in use by 'somebody'", hint="stop that")

    def show(self, lit):
        if self.broken:
            raise OutputError("GPIO 17: gone")
        self.shown.append(dict(lit))
        self.told.put(dict(lit))

    def when_acknowledged(self, act):
        self.press = act

    def safe(self):
        self.events.append("safe")

    def close(self):
        self.events.append("close")

    def until(self, **lamps):
        """Wait until the lamps were shown like that."""
        while not all(self.now.get(name) is lit for name, lit in lamps.items()):
            self.told.get(timeout=PATIENCE_S)

    @property
    def now(self):
        return self.shown[-1] if self.shown else {}


class Stand:
    """The stage on a clock that only moves when told to, without a thread."""

    def __init__(self, folder, *outputs, alarms=ALARMS, clock=None, on_change=None, **keys):
        self.clock = clock or ManualClock()
        self.health = Health(self.clock)
        self.changes = []
        self.stage = AlarmStage(
            {name: AlarmSettings.model_validate(entry) for name, entry in alarms.items()},
            outputs,
            self.clock,
            self.health,
            on_change or self.changes.append,
            folder / "alarms.json",
            **keys,
        )

    def power(self, kilowatts, device="meter"):
        self.stage.offer(Reading(device, self.clock.stamp(), {"active_power": kilowatts * 1000.0}))

    def dead(self, device="meter"):
        self.stage.offer(Reading(device, self.clock.stamp(), {}, {"active_power": "timeout"}))

    def sees(self, label, subject="outfeed"):
        self.stage.offer(Verdict(subject, self.clock.stamp(), label, "rule/test"))

    def step(self, after_s=0.0):
        self.clock.advance(after_s)
        return self.stage.step()

    def recorded(self):
        self.stage._recording.step(over=True)
        return [(change.alarm, change.state) for change in self.changes]

    def lamps(self):
        return {name: pattern for name, pattern in self.stage.lamps().items() if pattern != "off"}

    @property
    def is_woken(self):
        woken = self.stage._wake.is_set()
        self.stage._wake.clear()
        return woken


class Running:
    """The stage in its worker, with the machine's clock."""

    def __init__(self, stand):
        self.worker = Worker("alarms", stand.stage.body, stand.health, stand.clock, wake=stand.stage.wake)

    def __enter__(self):
        self.worker.start()
        return self

    def __exit__(self, *_):
        self.worker.ask_to_stop()
        assert self.worker.join(PATIENCE_S)


def running(folder, *outputs, **keys):
    stand = Stand(folder, *outputs, clock=SystemClock(), **keys)
    return stand, Running(stand)


# --- lamps first


def test_the_lamps_are_set_before_the_change_is_recorded(tmp_path):
    """When the record hears of an alarm, its lamp is lit already."""
    lights = Lights()
    heard: Queue = Queue()
    stand, run = running(tmp_path, lights, on_change=lambda change: heard.put((change.state, lights.now["red"])))
    with run:
        stand.power(50)

        assert heard.get(timeout=PATIENCE_S) == ("active-unacknowledged", True)


def test_a_record_that_hangs_does_not_hold_up_the_light(tmp_path):
    """The next alarm is shown, and the lamp goes on blinking, while the record of the first one blocks."""
    lights, hangs, go_on = Lights(), Event(), Event()

    def record(_change):
        hangs.set()
        go_on.wait(PATIENCE_S)

    stand, run = running(tmp_path, lights, on_change=record)
    with run:
        try:
            stand.power(50)
            assert hangs.wait(PATIENCE_S)
            lights.until(red=False)
            lights.until(red=True)
            stand.sees("defect")
            lights.until(amber=True)
        finally:
            go_on.set()


def test_a_record_that_fails_is_reported_and_the_next_change_still_comes(tmp_path):
    """An error in the record loses one change, counted; the light and the others go on."""
    failed = []

    def record(change):
        if not failed:
            failed.append(change)
            raise RuntimeError("no")
        stand.changes.append(change)

    stand = Stand(tmp_path, on_change=record)
    stand.power(50)
    stand.sees("defect")
    stand.step()

    assert stand.recorded() == [("defect", "active-unacknowledged")]
    assert stand.health.counters()["alarm.changes.lost"] == 1


def test_a_record_that_asks_for_time_is_offered_the_change_again(tmp_path):
    """A retryable refusal keeps the order and loses nothing."""
    refusals = [SpoolError("full"), SpoolError("full")]

    def record(change):
        if refusals:
            raise refusals.pop()
        stand.changes.append(change)

    stand = Stand(tmp_path, on_change=record)
    stand.power(50)
    stand.sees("defect")
    stand.step()

    assert [stand.stage._recording.step() for _ in range(2)] == [1.0, 1.0]
    assert [fault.source for fault in stand.health.faults()] == ["alarm.record"]
    assert stand.recorded() == [("overload", "active-unacknowledged"), ("defect", "active-unacknowledged")]
    assert stand.health.faults() == []


def test_changes_that_nobody_records_are_bounded_and_the_loss_is_said(tmp_path):
    """The oldest of a thousand waiting changes is lost, counted, and a fault says so."""
    stand = Stand(tmp_path, alarms={"defect": ALARMS["defect"]})
    for _ in range(510):
        stand.sees("defect")
        stand.sees("good")
    stand.step()

    assert stand.health.counters()["alarm.changes.lost"] == 20
    assert [fault.source for fault in stand.health.faults()] == ["alarm.record"]
    assert len(stand.recorded()) == 1000


# --- what a reading does


def test_an_overload_lives_its_life_through_the_stage(tmp_path):
    """Readings raise, hysteresis holds, the latch waits, the acknowledgement ends it."""
    stand = Stand(tmp_path)
    for kilowatts in (44, 46, 43, 41):
        stand.power(kilowatts)
    stand.step()
    stand.stage.acknowledge("overload", "kim")
    stand.step()

    assert stand.recorded() == [
        ("overload", "active-unacknowledged"),
        ("overload", "cleared-unacknowledged"),
        ("overload", "normal"),
    ]
    assert [change.cause for change in stand.changes[:2]] == [
        "meter.active_power is 46 kW",
        "meter.active_power is 41 kW",
    ]


def test_a_meter_that_dies_while_an_alarm_is_active_does_not_end_it(tmp_path):
    """The alarm stays, says that its input is absent, and after its time the silence is an alarm itself."""
    stand = Stand(tmp_path, quiet_s=3600)
    stand.power(50)
    stand.clock.advance(1)
    stand.dead()
    stand.step()

    assert stand.step(after_s=58.9) == pytest.approx(1.1)
    stand.step(after_s=1.2)

    assert stand.recorded() == [
        ("overload", "active-unacknowledged"),
        ("overload", "active-unacknowledged"),
        ("silent", "active-unacknowledged"),
    ]
    assert stand.changes[1].details["input_absent"] == ["meter.active_power"]


def test_a_blind_camera_does_not_end_a_defect(tmp_path):
    """``not-inspected`` is not ``good``."""
    stand = Stand(tmp_path)
    for label in ("defect", "not-inspected", "unknown"):
        stand.sees(label)
    states = {row["alarm"]: row["state"] for row in stand.stage.snapshot()}

    assert states["defect"] == "active-unacknowledged"


# --- no wake-up without a reason


def test_a_reading_that_changes_nothing_wakes_nobody(tmp_path):
    """Only a change wakes the thread, whether the device that is read is named by a rule or not."""
    stand = Stand(tmp_path)
    for device in ("meter", "neighbour"):
        stand.power(40, device)
    stand.step()
    assert stand.is_woken
    for _ in range(100):
        stand.power(40)
        stand.power(99, "neighbour")

    assert not stand.is_woken
    stand.power(50)
    assert stand.is_woken


def test_a_calm_line_sleeps(tmp_path):
    """Without an alarm the stage sleeps until it would notice that nothing is measured any more."""
    stand = Stand(tmp_path, Lights(), quiet_s=60)
    stand.power(40)

    assert stand.step() == 60.0


@pytest.mark.parametrize(("after", "wakes"), [("unacknowledged", 40), ("acknowledged", 0)])
def test_a_blinking_lamp_costs_four_wakes_a_second_and_a_steady_one_none(tmp_path, after, wakes):
    """The one blink clock runs only while something blinks."""
    lights = Lights()
    stand = Stand(tmp_path, lights, quiet_s=3600)
    stand.power(50)
    stand.step()
    if after == "acknowledged":
        stand.stage.acknowledge(None, "kim")
    count, wait_s = 0, stand.step()
    end_ns = stand.clock.mono_ns() + 10 * NS
    while stand.clock.mono_ns() + wait_s * NS <= end_ns:
        wait_s = stand.step(after_s=wait_s)
        count += 1

    assert count == wakes
    assert len(lights.shown) == (1 + wakes if after == "unacknowledged" else 2)


def test_nothing_blinks_where_there_is_no_light(tmp_path):
    """Without outputs an alarm costs no blink clock."""
    stand = Stand(tmp_path, quiet_s=3600)
    stand.power(50)

    assert stand.step() > 3000


def test_a_new_alarm_is_lit_at_once(tmp_path):
    """A pattern begins lit, whatever the blink clock was doing before."""
    lights = Lights()
    stand = Stand(tmp_path, lights)
    stand.sees("defect")
    stand.step()
    stand.step(after_s=0.3)
    assert lights.now["amber"] is False
    stand.power(50)
    stand.step(after_s=0.1)

    assert (lights.now["red"], lights.now["buzzer"]) == (True, True)


# --- green


def test_green_means_measured_and_calm(tmp_path):
    """Green needs a value from everything that ever gave one, and lately; else amber blinks slowly."""
    stand = Stand(tmp_path, quiet_s=60)
    seen = []

    def look(after_s=0.0):
        stand.step(after_s)
        seen.append(stand.lamps())

    look()  # nothing was measured yet
    stand.power(40)
    look()
    stand.dead("neighbour")
    look()
    stand.power(1, "neighbour")
    look()
    stand.sees("not-inspected")
    look()
    stand.sees("good")
    look()
    look(after_s=61)  # nobody says anything any more
    assert stand.is_woken
    stand.power(1, "neighbour")
    assert stand.is_woken
    look()

    unseen, green = {"amber": "blink-slow"}, {"green": "on"}
    assert seen == [unseen, green, unseen, green, unseen, green, unseen, green]


def test_an_empty_reading_says_nothing_about_a_device(tmp_path):
    """A reading at which nothing was due neither proves nor disproves that a device is there."""
    stand = Stand(tmp_path)
    stand.stage.offer(Reading("meter", stand.clock.stamp(), {}))
    stand.step()

    assert stand.lamps() == {"amber": "blink-slow"}


# --- outputs that fail


def test_an_output_that_fails_leaves_the_others_lit_and_comes_back(tmp_path):
    """A busy line is a fault with its hint; it is tried again with back-off, and shows what is then."""
    good, bad = Lights("good"), Lights("bad")
    bad.broken = True
    stand = Stand(tmp_path, bad, good, quiet_s=3600)
    stand.power(50)
    stand.stage.acknowledge(None, "kim")
    wait_s = stand.step()
    (fault,) = stand.health.faults()

    assert good.now["red"] is True
    assert (fault.source, fault.reason, fault.hint) == ("output.bad", "GPIO 17 is in use by 'somebody'", "stop that")
    assert 1.7 < wait_s < 2.3
    bad.broken = False
    stand.step(after_s=wait_s)
    assert bad.now["red"] is True
    assert stand.health.faults() == []


def test_an_output_that_stays_broken_is_not_hammered(tmp_path):
    """While a lamp blinks, a lost output is opened a few times a minute and not at every blink."""
    bad = Lights()
    bad.broken = True
    stand = Stand(tmp_path, bad, Lights("good"), quiet_s=3600)
    stand.power(50)
    for _ in range(240):
        stand.step(after_s=0.25)

    assert bad.events.count("open") <= 6


# --- people


def test_the_button_acknowledges_everything_in_sight(tmp_path):
    """The button of any output, pressed in a thread of its library, acknowledges and silences."""
    lights = Lights()
    stand = Stand(tmp_path, lights)
    stand.power(50)
    stand.step()
    presser = Thread(target=lights.press)
    presser.start()
    presser.join()
    stand.step()

    assert stand.recorded()[-1] == ("overload", "active-acknowledged")
    assert stand.changes[-1].details["by"] == "button"
    assert (lights.now["red"], lights.now["buzzer"]) == (True, False)


def test_who_asks_is_told_what_changed_or_why_not(tmp_path):
    """Acknowledging and shelving return the changes; an unknown name and a too long shelf are errors."""
    stand = Stand(tmp_path)
    stand.power(50)

    assert [change.state for change in stand.stage.acknowledge("overload", "kim")] == ["active-acknowledged"]
    assert stand.stage.acknowledge("overload", "kim") == []
    assert [change.state for change in stand.stage.shelve("overload", 60, "kim")] == ["shelved"]
    with pytest.raises(AlarmError, match="did you mean 'overload'"):
        stand.stage.acknowledge("overlod", "kim")
    with pytest.raises(AlarmError, match="at most"):
        stand.stage.shelve("overload", 1e6, "kim")


def test_a_lamp_test_is_short(tmp_path):
    """While it runs the light does not tell the truth, so nobody can make it run for long."""
    lights = Lights()
    stand = Stand(tmp_path, lights)
    stand.stage.lamp_test(1e9)
    stand.step()
    assert all(lights.now[name] for name in ("red", "amber", "green", "buzzer"))
    stand.step(after_s=30)

    assert not any(lights.now[name] for name in ("red", "green", "buzzer"))


# --- the end, and after it


def test_a_stage_that_stops_leaves_its_lights_safe_and_its_record_complete(tmp_path):
    """The worker ends at once, closes the outputs, hands on what waits and saves."""
    lights = Lights()
    stand, run = running(tmp_path, lights)
    with run:
        lights.until(amber=True)
        stand.power(50)

    assert lights.events[-1] == "close"
    assert [change.state for change in stand.changes] == ["active-unacknowledged"]
    assert json.loads((tmp_path / "alarms.json").read_text())["alarms"]["overload"]["active"] is True
    assert "alarm-record" not in [thread.name for thread in enumerate_threads()]


def test_nothing_is_shown_after_the_safe_state(tmp_path):
    """On the way out a late blink cannot switch a lamp again."""
    lights = Lights()
    stand = Stand(tmp_path, lights)
    stand.power(50)
    stand.step()
    stand.stage.safe()
    before = len(lights.shown)
    for _ in range(5):
        stand.step(after_s=0.25)

    assert lights.events[-1] == "safe"
    assert len(lights.shown) == before


def test_a_restart_goes_on_where_it_left_off(tmp_path):
    """Latch, acknowledgement, shelf and first-out are read back from the state file; nothing is announced twice."""
    stand = Stand(tmp_path)
    stand.power(50)
    stand.sees("defect")
    stand.stage.shelve("silent", 600, "kim")
    stand.stage.acknowledge("overload", "kim")
    stand.step()
    stand.recorded()
    before = stand.stage.snapshot()
    after = Stand(tmp_path, clock=stand.clock)
    after.stage.recall()
    after.step()

    assert after.recorded() == []
    assert [(row["state"], row["since"], row.get("first_out")) for row in after.stage.snapshot()] == [
        (row["state"], row["since"], row.get("first_out")) for row in before
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot_id": 1}', "\x00\xff"])
def test_a_state_file_that_cannot_be_read_is_said_and_does_not_stop_the_start(tmp_path, text):
    """A broken file is a fault and a counter; the next save replaces it."""
    (tmp_path / "alarms.json").write_text(text, encoding="latin-1")
    stand = Stand(tmp_path)
    stand.stage.recall()

    assert [fault.source for fault in stand.health.faults()] == ["alarm.state"]
    stand.power(50)
    stand.step()
    stand.recorded()
    assert stand.health.faults() == []
    assert json.loads((tmp_path / "alarms.json").read_text())["alarms"].keys() == {"overload"}


def test_a_disk_that_takes_no_state_file_is_said_and_tried_again(tmp_path):
    """Alarms go on without their file, and the file comes when it can."""
    stand = Stand(tmp_path / "later")
    stand.power(50)
    stand.step()

    assert stand.recorded() == [("overload", "active-unacknowledged")]
    assert [fault.source for fault in stand.health.faults()] == ["alarm.state"]
    (tmp_path / "later").mkdir()
    stand.recorded()
    assert stand.health.faults() == []


def test_a_flapping_alarm_is_saved_once_a_second(tmp_path):
    """The state file does not wear out the card."""
    stand = Stand(tmp_path)
    written = []
    for _ in range(40):
        stand.sees("defect")
        stand.sees("good")
        stand.step(after_s=0.1)
        stand.stage._recording.step()
        written.append((tmp_path / "alarms.json").stat().st_mtime_ns)

    assert len(stand.changes) == 80
    assert len(set(written)) <= 5


def test_many_threads_may_offer_at_once(tmp_path):
    """Wires and eyes judge in their own threads: every change is recorded, in the order in which it happened."""
    names = [f"m{number}" for number in range(4)]
    alarms = {name: {"when": f"{name}.active_power > 45 kW"} for name in names}
    stand, run = running(tmp_path, alarms=alarms)

    def wire():
        for count in range(200):
            stand.power(50 if count % 2 == 0 else 40, device=current_thread().name)

    with run:
        wires = [Thread(target=wire, name=name) for name in names]
        for thread in wires:
            thread.start()
        for thread in wires:
            thread.join()

    for name in names:
        states = [change.state for change in stand.changes if change.alarm == name]
        assert states == ["active-unacknowledged", "normal"] * 100


# --- the whole of it, on pins


def test_the_whole_chain_from_a_reading_to_the_pins(tmp_path):
    """Overload, acknowledgement at the button, and the end, as the pins of a stack light see them."""
    lines = {"kind": "simulated", "red": 17, "amber": 27, "green": 22, "buzzer": 23, "acknowledge": 24}
    light = SimulatedStackLight("light", StackLightSettings.model_validate(lines))
    stand = Stand(tmp_path, light)
    stand.power(40)
    stand.step()
    for after_s, act in ((1, lambda: stand.power(50)), (0.25, None), (0.25, light.press), (1, lambda: stand.power(41))):
        stand.clock.advance(after_s)
        if act:
            act()
        stand.step()
    factory = light._factory
    stand.stage._panel.close()

    factory.pin(17).assert_states([False, True, False, True, False, True])  # blinks, steady, ends; then safe: red
    factory.pin(22).assert_states([False, True, False, True, False])
    factory.pin(23).assert_states([False, True, False])
    assert [len(factory.pin(line).states) for line in (17, 22, 23)] == [6, 5, 3]
