"""What is counted per camera and shift, and when a shift begins."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import ManualClock, Stamp
from edge_agent.config import loads
from edge_agent.errors import ConfigError
from edge_agent.health import Health
from edge_agent.shifts import NOTE, Shifts, Tally
from edge_agent.spool import Spool
from edge_agent.stages.record import Recorder
from edge_agent.vocabulary import Evidence, Verdict

TIMES = ("06:00", "14:00", "22:00")
BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def around(shifts: Shifts, text: str) -> list[str]:
    return [f"{datetime.fromtimestamp(edge / 1000, UTC):%d %H:%M}" for edge in shifts.around(ms(text))]


# --- when a shift begins


def test_a_shift_begins_by_the_clock_of_the_place():
    """Winter and summer, in Ulsan and in Berlin; a shift over midnight is one shift."""
    assert around(Shifts(TIMES, ZoneInfo("Asia/Seoul")), "2026-11-20T05:30:00Z") == ["20 05:00", "20 13:00"]
    assert around(Shifts(TIMES, BERLIN), "2026-11-20T05:30:00Z") == ["20 05:00", "20 13:00"]
    assert around(Shifts(TIMES, BERLIN), "2026-07-20T05:30:00Z") == ["20 04:00", "20 12:00"]
    assert around(Shifts(TIMES, BERLIN), "2026-11-20T00:30:00Z") == ["19 21:00", "20 05:00"]


@pytest.mark.parametrize(
    ("night", "hours"), [("2026-03-29T00:30:00Z", 7), ("2026-10-25T00:30:00Z", 9), ("2026-11-20T00:30:00Z", 8)]
)
def test_the_night_in_which_clocks_change_is_one_shift(night, hours):
    """An hour shorter in spring, an hour longer in autumn."""
    begin, end = Shifts(TIMES, BERLIN).around(ms(night))
    assert (end - begin) / 3_600_000 == hours


def test_a_shift_may_begin_in_an_hour_that_is_there_twice_or_not_at_all():
    """The first of the two; the same moment as an hour later, where it is left out."""
    shifts = Shifts(["02:30", "14:00"], BERLIN)
    assert around(shifts, "2026-10-25T00:45:00Z") == ["25 00:30", "25 13:00"]
    assert around(shifts, "2026-10-25T01:45:00Z") == ["25 00:30", "25 13:00"]
    assert around(shifts, "2026-03-29T01:45:00Z") == ["29 01:30", "29 12:00"]


@given(
    st.integers(1_600_000_000, 2_000_000_000),
    st.lists(st.sampled_from([f"{hour:02}:{minute}" for hour in range(24) for minute in ("00", "30")]), min_size=1),
    st.sampled_from(["Europe/Berlin", "Asia/Seoul", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_every_instant_belongs_to_exactly_one_shift(second, times, zone):
    """No gap and no overlap, whatever the times and wherever the place."""
    shifts = Shifts(times, ZoneInfo(zone))
    begin, end = shifts.around(second * 1000)
    assert begin <= second * 1000 < end
    fresh = Shifts(times, ZoneInfo(zone))
    assert fresh.around(end)[0] == end
    assert fresh.around(begin - 1)[1] == begin
    assert fresh.around(begin) == (begin, end)


@pytest.mark.parametrize(
    ("written", "message"), [("[]", "at least"), ("['6 o clock']", "06:00"), ("['25:00']", "06:00"), ("[06:00]", None)]
)
def test_a_time_of_day_is_written_as_people_do(tmp_path, written, message):
    """Wrong ones are named; quotes are not needed."""
    text = f"site: a\nline: b\nshifts: {written}\n"
    if message is None:
        assert loads(text, tmp_path / "config.yaml").shifts == ("06:00",)
        return
    with pytest.raises(ConfigError, match=message):
        loads(text, tmp_path / "config.yaml")


# --- what is counted


class Desk:
    """A tally of the camera ``cam`` in Berlin, and a clock."""

    def __init__(self, start="2026-11-20T12:59:00Z") -> None:
        self.clock = ManualClock(ms(start))
        self.tally = Tally()
        self.tally.follow(["cam"], Shifts(TIMES, BERLIN))
        self.told = []

    def say(self, *labels: str, at: Stamp | None = None) -> None:
        for label in labels:
            self.told += self.tally.add(Verdict("cam", at or self.clock.stamp(), label, "rule"))

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.told += self.tally.due(self.clock.stamp())

    def said(self) -> list[tuple[int, int, int, bool]]:
        """Good, bad, not inspected, final: what was told since this was last asked."""
        rows, self.told = [json.loads("{" + row.body + "}") for row in self.told], []
        return [(row["good"], row["bad"], row["not_inspected"], row["final"]) for row in rows]


def test_good_bad_and_not_inspected():
    """What nobody could decide was not inspected; what is said about other things is not counted."""
    desk = Desk()
    desk.say("good", "defect", "good", "anomaly", "not-inspected", "unknown", "good")
    desk.tally.add(Verdict("line", desk.clock.stamp(), "anomaly", "normal@1"))
    count = desk.tally.summary("cam")["shift"]
    assert (count["good"], count["bad"], count["not_inspected"]) == (3, 2, 2)
    assert (count["from"], count["to"]) == ("2026-11-20T05:00:00.000Z", "2026-11-20T13:00:00.000Z")
    assert count["since"] == "2026-11-20T12:59:00.000Z", "what came before is not claimed"
    assert desk.tally.summary("line") == {}


def test_a_shift_is_told_while_it_lasts_and_when_it_is_over():
    """Once a minute what has changed; at its end once more, for good; the next one begins with nothing, complete."""
    desk = Desk()
    desk.wait(0)
    assert desk.said() == [(0, 0, 0, False)]
    desk.say("good", "defect")
    desk.wait(30)
    assert desk.said() == []
    desk.wait(31)
    assert desk.said() == [(1, 1, 0, True), (0, 0, 0, False)]
    desk.wait(60)
    assert desk.said() == []
    assert desk.tally.summary("cam")["shift"]["since"] == "2026-11-20T13:00:00.000Z"
    assert desk.tally.summary("cam")["last_shift"]["bad"] == 1


def test_a_verdict_that_comes_late_belongs_to_its_own_shift():
    """It was judged before the end and recorded after it: the end is told again."""
    desk = Desk()
    late = desk.clock.stamp()
    desk.say("good")
    desk.wait(120)
    desk.said()
    desk.say("defect", at=late)
    assert desk.said() == [(1, 1, 0, True)]
    assert desk.tally.summary("cam")["shift"]["bad"] == 0


def test_a_clock_that_is_set_ends_the_shift():
    """By years at the first synchronisation: nothing goes on in a shift that is not."""
    desk = Desk()
    desk.say("good")
    desk.clock.step_wall(-400 * 86_400)
    desk.say("defect")
    count = desk.tally.summary("cam")["shift"]
    assert (count["good"], count["bad"], count["from"][:4]) == (0, 1, "2025")


def test_other_times_of_shifts_begin_another_count():
    """After a reload; the old one is told as it was."""
    desk = Desk()
    desk.say("good")
    desk.tally.follow(["cam"], Shifts(["00:00", "12:00"], BERLIN))
    desk.wait(1)
    assert desk.said()[0] == (1, 0, 0, True)
    assert desk.tally.summary("cam")["shift"]["from"] == "2026-11-20T11:00:00.000Z"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        "{",
        '{"now": {"good": 1}}',
        '{"now": 7}',
        '{"now": {"begin_ms": "a", "end_ms": 1, "since_ms": 1}}',
        "[" * 5000,
    ],
)
def test_a_note_that_cannot_be_read_counts_nothing(note):
    """A damaged database begins anew, and says since when."""
    tally = Tally()
    tally.recall({NOTE + "cam": note})
    assert tally.summary("cam") == {}


# --- what survives


class Run:
    """One life of the recorder on a database."""

    def __init__(self, path, clock) -> None:
        self.tally = Tally()
        self.tally.follow(["cam"], Shifts(TIMES, BERLIN))
        self.spool = Spool(path / "spool.db", clock, Health(clock), limit_bytes=1 << 24)
        self.spool.open()
        self.tally.recall(self.spool.notes(NOTE))
        more = {"commit_every_s": 1.0, "history_days": 1.0, "formats": {}, "tally": self.tally}
        self.recorder = Recorder(self.spool, clock, Health(clock), **more)
        self.clock = clock

    def say(self, *labels: str) -> None:
        for label in labels:
            self.recorder.verdict(Verdict("cam", self.clock.stamp(), label, "rule"))

    def rows(self) -> list[str]:
        reader = self.spool.reader()
        found = [row.topic for row in reader.rows(0, 1 << 40, 1000, alarms=False)]
        reader.close()
        return found


def test_the_counts_are_those_of_the_verdicts_that_were_kept(tmp_path):
    """A run that ends without a word (SIGKILL) loses what was not committed, in both alike."""
    clock = ManualClock(ms("2026-11-20T12:00:00Z"))
    first = Run(tmp_path, clock)
    first.say("good", "good", "defect")
    first.recorder.commit()
    first.say("good")
    first.recorder.evidence(Evidence("cam", clock.stamp(), "a", "/a.jpg", "0" * 64, 1))
    assert first.rows().count("verdict/cam") == 3
    first.spool.close()  # as the kernel does, without a commit
    clock.advance(60)
    second = Run(tmp_path, clock)
    second.say("defect")
    second.recorder.commit()
    count = second.tally.summary("cam")["shift"]
    assert (count["good"], count["bad"]) == (2, 2)
    assert count["since"] == "2026-11-20T12:00:00.000Z"
    assert second.rows().count("verdict/cam") == 4
    second.recorder.close()


def test_a_shift_that_ended_while_nobody_ran_is_told_at_the_start(tmp_path):
    """With its counts; the present one does not claim the time in between."""
    clock = ManualClock(ms("2026-11-20T12:00:00Z"))
    first = Run(tmp_path, clock)
    first.say("good")
    first.recorder.close()
    clock.advance(20 * 3600)
    second = Run(tmp_path, clock)
    second.recorder.commit()
    summary = second.tally.summary("cam")
    assert summary["last_shift"]["good"] == 1
    assert summary["shift"]["since"] == "2026-11-21T08:00:00.000Z"
    assert second.rows().count("shift/cam") >= 2
    second.recorder.close()


def test_a_commit_that_fails_is_counted_once(tmp_path, monkeypatch):
    """The verdicts wait in memory, counted; when the disk is back both are written."""
    clock = ManualClock(ms("2026-11-20T12:00:00Z"))
    run = Run(tmp_path, clock)
    run.spool.close()
    run.say("good", "defect")
    run.recorder.commit()
    run.spool.open()
    run.say("good")
    run.recorder.commit()
    run.recorder.commit()
    run.spool.close()
    again = Run(tmp_path, clock)
    count = again.tally.summary("cam")["shift"]
    assert (count["good"], count["bad"]) == (2, 1)
    assert again.rows().count("verdict/cam") == 3
    again.recorder.close()


def test_days_of_shifts_add_up():
    """Over a change of clocks, a verdict every ten minutes: none is lost, none counted twice."""
    desk = Desk("2026-10-23T00:00:00Z")
    for _ in range(4 * 24 * 6):
        desk.say("good")
        desk.wait(600)
    final = [json.loads("{" + row.body + "}") for row in desk.told if '"final":true' in row.body]
    assert sum(row["good"] for row in final) + desk.tally.summary("cam")["shift"]["good"] == 4 * 24 * 6
    assert all(earlier["to"] == later["from"] for earlier, later in pairwise(final))
    assert {row["good"] for row in final[1:]} == {48, 54}
