"""The alarm state machine and the lamps: ISA-18.2, checked against a model that a person can read at a glance."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from edge_agent.alarms import CHATTERING, AlarmError, AlarmSettings, Memory
from edge_agent.annunciator import Annunciator
from edge_agent.clock import NS, ManualClock
from edge_agent.lamps import SEVERITIES, STATES, lit, next_toggle_ns, picture

BOOT = ManualClock().boot_id


def alarm(**keys) -> AlarmSettings:
    return AlarmSettings.model_validate({"when": "m.p > 45 kW", **keys})


class Desk:
    """An annunciator with its clock, and every change that it made."""

    def __init__(self, **alarms: AlarmSettings) -> None:
        self.clock = ManualClock()
        self.annunciator = Annunciator(alarms)
        self.changes = []

    def judge(self, name, condition, after_s=0.0, missing=()):
        self.clock.advance(after_s)
        return self._note(self.annunciator.judge(name, condition, self.clock.stamp(), "because", missing))

    def tick(self, after_s):
        self.clock.advance(after_s)
        return self._note(self.annunciator.tick(self.clock.stamp()))

    def acknowledge(self, name=None):
        return self._note(self.annunciator.acknowledge(name, "kim", self.clock.stamp()))

    def shelve(self, name, seconds):
        return self._note(self.annunciator.shelve(name, seconds, "kim", self.clock.stamp()))

    def _note(self, changes):
        self.changes += changes
        return [change.state for change in changes]

    def states(self):
        return {row["alarm"]: row["state"] for row in self.annunciator.snapshot(self.clock.stamp())}

    def lamps(self, *, measuring=True):
        shown = self.annunciator.lamps(measuring=measuring)
        return {name: pattern for name, pattern in shown.items() if pattern != "off" and name not in SEVERITIES}


# --- one alarm's life


def test_an_alarm_is_raised_acknowledged_and_ends():
    """normal → active-unacknowledged → active-acknowledged → normal."""
    desk = Desk(a=alarm())

    assert desk.judge("a", condition=True) == ["active-unacknowledged"]
    assert desk.acknowledge() == ["active-acknowledged"]
    assert desk.judge("a", condition=False) == ["normal"]


def test_an_alarm_that_is_not_latched_ends_by_itself():
    """Unacknowledged or not, it is normal when its condition is gone."""
    desk = Desk(a=alarm())
    desk.judge("a", condition=True)

    assert desk.judge("a", condition=False) == ["normal"]


def test_a_latched_alarm_waits_for_its_acknowledgement():
    """A latched alarm that went while nobody looked stays cleared-unacknowledged until somebody does."""
    desk = Desk(a=alarm(latch=True))
    desk.judge("a", condition=True)

    assert desk.judge("a", condition=False) == ["cleared-unacknowledged"]
    assert desk.acknowledge("a") == ["normal"]


def test_a_change_says_when_the_condition_began_and_why():
    """``since`` is the beginning of the condition, before its delay; ``at`` is the change itself."""
    desk = Desk(a=alarm(**{"for": "10s", "severity": "high"}))
    began = desk.clock.stamp()
    desk.judge("a", condition=True)
    desk.judge("a", condition=True, after_s=10)
    (change,) = desk.changes

    assert (change.since, change.at) == (began, desk.clock.stamp())
    assert (change.severity, change.cause) == ("high", "because")


def test_what_does_not_last_does_not_raise():
    """``for``: the condition must still hold at a reading so long after it began."""
    desk = Desk(a=alarm(**{"for": "10s"}))

    assert desk.judge("a", condition=True) == []
    assert desk.judge("a", condition=True, after_s=9) == []
    assert desk.judge("a", condition=False, after_s=0.5) == []
    assert desk.judge("a", condition=True, after_s=0.5) == []
    assert desk.tick(after_s=100) == []  # no reading says so
    assert desk.judge("a", condition=True) == ["active-unacknowledged"]


def test_a_state_raises_when_its_time_is_over_without_another_reading():
    """That a device is offline lasts: its delay ends by the clock, and ``deadline_ns`` says when."""
    desk = Desk(a=alarm(when="m is offline", **{"for": "60s"}))
    desk.judge("a", condition=True)

    assert desk.annunciator.deadline_ns() == desk.clock.mono_ns() + 60 * NS
    assert desk.tick(after_s=59.9) == []
    assert desk.tick(after_s=0.2) == ["active-unacknowledged"]
    assert desk.annunciator.deadline_ns() is None


def test_an_alarm_ends_only_when_its_condition_stays_away():
    """``off_delay``: coming back in between starts it again."""
    desk = Desk(a=alarm(off_delay="5s"))
    desk.judge("a", condition=True)

    assert desk.judge("a", condition=False) == []
    assert desk.judge("a", condition=True, after_s=4) == []
    assert desk.judge("a", condition=False, after_s=4) == []
    assert desk.judge("a", condition=False, after_s=5) == ["normal"]


def test_a_dead_meter_clears_no_alarm_and_says_so():
    """Nothing known keeps the state; an alarm in sight says that its input is absent, once, and that it is back."""
    desk = Desk(a=alarm())
    desk.judge("a", condition=True)
    desk.changes.clear()
    for _ in range(3):
        desk.judge("a", condition=None, missing=("m.p",))
    desk.judge("a", condition=True)

    assert [(change.state, change.details.get("input_absent")) for change in desk.changes] == [
        ("active-unacknowledged", ["m.p"]),
        ("active-unacknowledged", None),
    ]


def test_a_dead_meter_raises_no_alarm_unless_it_is_told_to():
    """``on_absent: raise`` takes a value that is not there as the condition; the default does not."""
    desk = Desk(kept=alarm(), careful=alarm(on_absent="raise"))

    assert desk.judge("kept", condition=None, missing=("m.p",)) == []
    assert desk.judge("careful", condition=None, missing=("m.p",)) == ["active-unacknowledged"]
    assert desk.judge("careful", condition=None) == []  # not asked yet is not absent


def test_an_acknowledged_alarm_that_goes_on_sounds_again():
    """``re_alarm``: nobody forgets an alarm by acknowledging it."""
    desk = Desk(a=alarm(re_alarm="30min"))
    desk.judge("a", condition=True)
    desk.acknowledge()

    assert desk.tick(after_s=1799) == []
    assert desk.tick(after_s=2) == ["active-unacknowledged"]
    assert desk.changes[-1].details["re_alarm"] is True


def test_a_shelved_alarm_is_out_of_sight_and_comes_back_by_itself():
    """On the shelf an alarm goes on underneath, announces nothing, lights nothing, and returns as what it is then."""
    desk = Desk(a=alarm(severity="high", latch=True))

    assert desk.shelve("a", 600) == ["shelved"]
    assert desk.changes[-1].details["by"] == "kim"
    assert desk.changes[-1].details["until"].endswith("Z")
    assert desk.judge("a", condition=True) == []
    assert desk.acknowledge() == []  # what is not in sight cannot be seen
    assert desk.lamps() == {"green": "on"}
    assert desk.tick(after_s=600) == ["active-unacknowledged"]


def test_a_shelf_can_be_ended_early_and_has_a_limit():
    """Nobody shelves an alarm for ever."""
    desk = Desk(a=alarm(shelve_max="1h"))
    desk.shelve("a", 3600)

    assert desk.shelve("a", 0) == ["normal"]
    with pytest.raises(AlarmError, match="at most 3600 s"):
        desk.shelve("a", 3601)


def test_an_unknown_alarm_is_an_error_that_names_the_nearest():
    """Who acknowledges something must mean something."""
    desk = Desk(overload=alarm())

    with pytest.raises(AlarmError, match="did you mean 'overload'"):
        desk.acknowledge("overlod")


def test_the_first_of_a_burst_is_marked_until_all_are_normal():
    """First-out: among many alarms the one that began it is the one to look at."""
    desk = Desk(a=alarm(), b=alarm(), c=alarm())
    for name in ("b", "a", "c"):
        desk.judge(name, condition=True)
    desk.judge("b", condition=False)
    desk.judge("b", condition=True)
    firsts = [change.alarm for change in desk.changes if change.details.get("first_out")]
    for name in ("a", "b", "c"):
        desk.judge(name, condition=False)
    desk.changes.clear()
    desk.judge("c", condition=True)

    assert firsts == ["b", "b", "b"]
    assert desk.changes[-1].details["first_out"] is True


def test_an_alarm_that_chatters_is_counted_per_hour():
    """An alarm that comes too often says so, and stops saying so an hour later."""
    desk = Desk(a=alarm())
    for _ in range(CHATTERING):
        desk.judge("a", condition=True, after_s=1)
        desk.judge("a", condition=False)
    (chattering,) = desk.annunciator.snapshot(desk.clock.stamp())
    desk.tick(after_s=3601)
    (calm,) = desk.annunciator.snapshot(desk.clock.stamp())

    assert (chattering["began_last_hour"], chattering["chattering"]) == (CHATTERING, True)
    assert (calm["began_last_hour"], "chattering" in calm) == (0, False)


# --- settings


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        ({"when": "m.p >"}, "when"),
        ({"clear": "< 46 kW"}, "clear"),
        ({"for": 10}, "for"),
        ({"severity": "urgent"}, "severity"),
        ({"shelve_max": "0s"}, "shelve_max"),
        ({"foor": "10s"}, "foor"),
    ],
)
def test_a_wrong_setting_is_named_by_its_key(keys, at):
    """Rules are read when the config is; the mistake stands at its own key."""
    with pytest.raises(ValidationError) as caught:
        alarm(**keys)

    assert [error["loc"] for error in caught.value.errors()] == [(at,)]


# --- lamps


@pytest.mark.parametrize(
    ("alarms", "measuring", "shown"),
    [
        ([], True, {"green": "on"}),
        ([], False, {"amber": "blink-slow"}),
        ([("high", "normal"), ("low", "shelved")], True, {"green": "on"}),
        ([("critical", "active-unacknowledged")], True, {"red": "blink-fast", "buzzer": "on"}),
        ([("high", "active-acknowledged")], True, {"red": "on"}),
        ([("high", "cleared-unacknowledged")], True, {"red": "blink-slow", "buzzer": "on"}),
        ([("medium", "active-unacknowledged")], True, {"amber": "blink-fast"}),
        ([("low", "active-acknowledged")], False, {"amber": "on"}),
        ([("low", "cleared-unacknowledged")], True, {"amber": "blink-slow"}),
        ([("high", "active-acknowledged"), ("high", "cleared-unacknowledged")], True, {"red": "on", "buzzer": "on"}),
        (
            [("high", "active-acknowledged"), ("critical", "active-unacknowledged")],
            True,
            {"red": "blink-fast", "buzzer": "on"},
        ),
        (
            [("high", "active-acknowledged"), ("low", "active-unacknowledged")],
            True,
            {"red": "on", "amber": "blink-fast"},
        ),
    ],
)
def test_the_lamps_follow_the_table(alarms, measuring, shown):
    """The stack light shows what the table in the documentation says."""
    lamps = picture(alarms, measuring=measuring)

    assert {name: pattern for name, pattern in lamps.items() if pattern != "off" and name not in SEVERITIES} == shown


pictures = st.lists(st.tuples(st.sampled_from(SEVERITIES), st.sampled_from(STATES)), max_size=6)


@given(pictures, st.booleans())
def test_green_is_never_a_lie(alarms, measuring):
    """Green is lit exactly when no alarm is in sight and everything is measured, and then nothing else is lit."""
    lamps = picture(alarms, measuring=measuring)
    calm = all(state in ("normal", "shelved") for _, state in alarms)

    assert (lamps["green"] == "on") is (calm and measuring)
    assert lamps["green"] == "off" or [name for name, pattern in lamps.items() if pattern != "off"] == ["green"]


@given(pictures)
def test_a_relay_sees_every_severity_that_is_not_normal(alarms):
    """The names of the severities stand beside the lamps."""
    lamps = picture(alarms, measuring=True)

    assert {name for name in SEVERITIES if lamps[name] == "on"} == {
        severity for severity, state in alarms if state not in ("normal", "shelved")
    }


def test_a_lamp_test_lights_every_lamp_and_moves_no_relay():
    """The lamp test ends by itself and then shows what is."""
    desk = Desk(a=alarm())
    desk.annunciator.lamp_test(5, desk.clock.stamp())

    assert desk.lamps() == {"red": "on", "amber": "on", "green": "on", "buzzer": "on"}
    assert desk.annunciator.lamps(measuring=True)["high"] == "off"
    assert desk.annunciator.deadline_ns() == desk.clock.mono_ns() + 5 * NS
    desk.tick(after_s=5)
    assert desk.lamps() == {"green": "on"}


@given(
    st.fixed_dictionaries({name: st.sampled_from(["off", "on", "blink-slow", "blink-fast"]) for name in "abc"}),
    st.integers(0, 10**10),
)
def test_nothing_toggles_before_the_blink_clock_says_so(lamps, elapsed_ns):
    """Between two toggles every lamp stays as it is; at the toggle one changes; without blinking there is none."""
    due_ns = next_toggle_ns(lamps, elapsed_ns)
    if due_ns is None:
        assert not any(pattern.startswith("blink") for pattern in lamps.values())
        return

    assert lit(lamps, elapsed_ns) == lit(lamps, due_ns - 1) != lit(lamps, due_ns)


def test_blinking_is_that_of_the_standard():
    """IEC 60073: slow 0.4 to 0.8 Hz, normal 1.4 to 2.8 Hz; and a lamp begins lit."""
    periods = {name: 2 * next_toggle_ns({"red": name}, 0) / NS for name in ("blink-slow", "blink-fast")}

    assert 1.25 <= periods["blink-slow"] <= 2.5
    assert 1 / 2.8 <= periods["blink-fast"] <= 1 / 1.4
    assert lit({"red": "blink-fast"}, 0) == {"red": True}


# --- across a restart


def restarted(desk: Desk, gone_s: float, *, boot: str = BOOT, synced: bool = True, **alarms: AlarmSettings) -> Desk:
    """The desk of the next process: same clock, a state file in between."""
    text = desk.annunciator.remember(desk.clock.stamp(), BOOT).model_dump_json()
    after = Desk(**alarms)
    after.clock = desk.clock
    after.clock.advance(gone_s)
    after.clock.step_wall(0, synced=synced)
    after.changes = after.annunciator.recall(Memory.model_validate_json(text), after.clock.stamp(), boot)
    return after


def test_latch_acknowledgement_and_first_out_survive_a_restart():
    """A restart neither forgets an alarm nor asks for an acknowledgement twice."""
    alarms = {"a": alarm(), "b": alarm(latch=True), "c": alarm()}
    desk = Desk(**alarms)
    for name in "ba":
        desk.judge(name, condition=True)
    desk.acknowledge("a")
    desk.judge("b", condition=False)
    after = restarted(desk, 60, **alarms)

    assert after.changes == []
    assert after.states() == desk.states()
    assert after.annunciator.snapshot(after.clock.stamp())[1]["first_out"] is True


@pytest.mark.parametrize(
    ("boot", "synced", "left_s"),
    [(BOOT, True, 540), (BOOT, False, 540), ("another", True, 540), ("another", False, 600)],
)
def test_a_shelf_runs_on_while_nobody_runs(boot, synced, left_s):
    """The shelf ends when it was said to; after a reboot without a clock it begins again, and so ends too."""
    desk = Desk(a=alarm())
    desk.shelve("a", 600)
    after = restarted(desk, 60, boot=boot, synced=synced, a=alarm())

    assert after.annunciator.deadline_ns() == after.clock.mono_ns() + left_s * NS


def test_an_alarm_that_the_config_lost_is_ended_aloud():
    """An alarm that was removed, or whose rule is another one now, does not stay active at the broker for ever."""
    desk = Desk(gone=alarm(severity="high"), other=alarm(), same=alarm())
    for name in ("gone", "other", "same"):
        desk.judge(name, condition=True)
    after = restarted(desk, 1, other=alarm(when="m.p > 50 kW"), same=alarm())

    assert [(change.alarm, change.state, change.severity) for change in after.changes] == [
        ("gone", "normal", "high"),
        ("other", "normal", "medium"),
    ]
    assert after.states() == {"other": "normal", "same": "active-unacknowledged"}


# --- the model

NAMES = {
    "plain": {"severity": "high"},
    "latched": {"latch": True, "severity": "critical"},
    "slow": {"for": "10s", "off_delay": "5s", "severity": "low"},
    "lasting": {"when": "m is offline", "for": "10s", "latch": True},
    "again": {"re_alarm": "30s"},
}
names = st.sampled_from(sorted(NAMES))


@dataclass
class Known:
    """All that the model knows of one alarm: three facts and two clocks."""

    active: bool = False
    unseen: bool = False
    shelf_until: float | None = None
    turned: float | None = None
    seen_at: float = 0.0

    def state(self) -> str:
        if self.shelf_until is not None:
            return "shelved"
        return {
            (False, False): "normal",
            (True, True): "active-unacknowledged",
            (True, False): "active-acknowledged",
            (False, True): "cleared-unacknowledged",
        }[self.active, self.unseen]


class AnnunciatorAgainstItsModel(RuleBasedStateMachine):
    """Any order of conditions, time, acknowledgements, shelves and restarts."""

    @initialize()
    def begin(self):
        self.alarms = {name: alarm(**keys) for name, keys in NAMES.items()}
        self.desk = Desk(**self.alarms)
        self.known = {name: Known() for name in NAMES}
        self.now = 0.0
        self.recorded = dict.fromkeys(NAMES, "normal")

    def turn(self, name, known):
        settings_ = self.alarms[name]
        delay = settings_.off_delay if known.active else settings_.on_delay
        if known.turned is not None and self.now - known.turned >= delay:
            known.active, known.turned = not known.active, None
            known.unseen = known.active or (known.unseen and settings_.latch)

    @rule(name=names, condition=st.sampled_from([True, False, None]))
    def judge(self, name, condition):
        known = self.known[name]
        if condition is known.active:
            known.turned = None
        elif condition is not None:
            known.turned = self.now if known.turned is None else known.turned
            self.turn(name, known)
        self.desk.judge(name, condition)

    @rule(seconds=st.sampled_from([1, 4, 5, 6, 10, 31, 100]))
    def time_goes_by(self, seconds):
        self.now += seconds
        for name, known in self.known.items():
            if known.shelf_until is not None and self.now >= known.shelf_until:
                known.shelf_until = None
            if name == "lasting":
                self.turn(name, known)
            if name == "again" and known.active and not known.unseen and self.now - known.seen_at >= 30:
                known.unseen = True
        self.desk.tick(seconds)

    @rule(name=names | st.none())
    def acknowledge(self, name):
        for known in self.known.values() if name is None else [self.known[name]]:
            if known.unseen and known.shelf_until is None:
                known.unseen, known.seen_at = False, self.now
        self.desk.acknowledge(name)

    @rule(name=names, seconds=st.sampled_from([0, 7, 50]))
    def shelve(self, name, seconds):
        self.known[name].shelf_until = self.now + seconds if seconds else None
        self.desk.shelve(name, seconds)

    @rule()
    def restart(self):
        for known in self.known.values():
            known.turned, known.seen_at = None, self.now
        before = self.desk
        self.desk = restarted(before, 0, **self.alarms)
        assert self.desk.changes == []
        self.desk.changes = before.changes

    @invariant()
    def states_are_those_of_the_model(self):
        assert self.desk.states() == {name: known.state() for name, known in self.known.items()}

    @invariant()
    def the_record_ends_where_the_light_is(self):
        for change in self.desk.changes:
            self.recorded[change.alarm] = change.state
        self.desk.changes.clear()
        assert self.recorded == self.desk.states()

    @invariant()
    def somebody_is_first_exactly_while_something_is_in_sight(self):
        rows = self.desk.annunciator.snapshot(self.desk.clock.stamp())
        in_sight = any(row["state"] not in ("normal", "shelved") for row in rows)
        assert sum(bool(row.get("first_out")) for row in rows) == in_sight

    @invariant()
    def nothing_that_is_due_was_left(self):
        assert self.desk.tick(0) == []
        due_ns = self.desk.annunciator.deadline_ns()
        assert due_ns is None or due_ns > self.desk.clock.mono_ns()


TestAnnunciatorAgainstItsModel = AnnunciatorAgainstItsModel.TestCase
TestAnnunciatorAgainstItsModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
