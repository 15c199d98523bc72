"""Everything that happened becomes a numbered row; what could not be kept is said."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest

from edge_agent.clock import ManualClock, SystemClock
from edge_agent.errors import SpoolError
from edge_agent.health import Health
from edge_agent.outbox import ALARM, GAP, TELEMETRY
from edge_agent.spool import Spool
from edge_agent.stages import record as record_module
from edge_agent.stages.record import Recorder
from edge_agent.vocabulary import AlarmChange, Evidence, Reading, Verdict


class Desk:
    """A recorder whose commits are made by the test."""

    def __init__(self, folder, clock=None) -> None:
        self.clock = clock or ManualClock()
        self.health = Health(self.clock)
        self.spool = Spool(folder / "spool.db", self.clock, self.health, limit_bytes=1 << 30, durable=False)
        self.spool.open()
        self.recorder = Recorder(
            self.spool, self.clock, self.health, commit_every_s=0.05, history_days=1, formats={"main": {"n": "%.1f"}}
        )
        self.kept = []
        self.recorder.on_kept = lambda rows, generation: self.kept.extend((generation, row) for row in rows)

    def reading(self, n: float = 1.0) -> None:
        self.recorder.reading(Reading("main", self.clock.stamp(), {"n": n}))

    def alarm(self) -> None:
        stamp = self.clock.stamp()
        self.recorder.alarm(AlarmChange("hot", stamp, "normal", "high", stamp, "main.n > 1"))

    def break_disk(self, monkeypatch) -> None:
        def refuse(*_: object) -> None:
            raise SpoolError("broken")

        monkeypatch.setattr(self.spool, "append", refuse)

    def bodies(self) -> list[dict]:
        return [json.loads(f"{{{row.body}}}") for _, row in self.kept]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_one_commit_holds_all_that_waited_in_order(desk):
    """Readings, verdicts, evidence and alarms of one interval become rows of one commit, each told once."""
    desk.reading(1.26)
    stamp = desk.clock.stamp()
    desk.recorder.verdict(Verdict("eye", stamp, "defect", "rule/dark-spot@1", 0.5, 0.2))
    desk.recorder.evidence(Evidence("eye", stamp, "e1", "/nowhere/e1.jpg", "00", 5))
    desk.alarm()
    desk.recorder.commit()
    assert [row.topic for _, row in desk.kept] == ["telemetry/main", "verdict/eye", "evidence/eye", "alarm/hot"]
    assert [row.seq for _, row in desk.kept] == [1, 2, 3, 4]
    assert desk.bodies()[0] == {"values": {"n": 1.3}}
    desk.recorder.commit()
    assert len(desk.kept) == 4


def test_nothing_waiting_writes_nothing(desk):
    """An idle interval costs no write."""
    changes = desk.spool._db.writer.total_changes
    for _ in range(10):
        desk.recorder.commit()
    assert desk.spool._db.writer.total_changes == changes


def test_a_failing_commit_is_held_and_made_later(desk, monkeypatch):
    """While the disk refuses, everything waits in order, settled rows included; then it is there, once."""
    desk.reading(1)
    desk.recorder.commit()
    with monkeypatch.context() as broken:
        desk.break_disk(broken)
        desk.recorder.settle([1], desk.recorder.generation)
        for n in range(2, 6):
            desk.reading(n)
            desk.recorder.commit()
            desk.clock.advance(1)
        assert desk.health.faults()[0].source == "spool.write"
    desk.reading(6)
    desk.recorder.commit()
    assert [body["values"]["n"] for body in desk.bodies()] == [1, 2, 3, 4, 5, 6]
    assert [row.seq for _, row in desk.kept] == [1, 2, 3, 4, 5, 6]
    assert desk.health.faults() == []
    assert desk.spool.usage()["rows"] == 5


def test_a_disk_that_stays_broken_is_given_up_and_found_again(desk, monkeypatch):
    """After ten seconds rows go on in memory as a stream of their own; half a minute later the disk is tried again."""
    on_disk = desk.spool.stream
    with monkeypatch.context() as broken:
        desk.break_disk(broken)
        for n in range(12):
            desk.reading(n)
            desk.recorder.commit()
            desk.recorder._look_after_disk()
            desk.clock.advance(1)
        assert desk.spool.volatile
        assert desk.spool.stream != on_disk
    for n in range(12, 60):
        desk.reading(n)
        desk.recorder.commit()
        desk.recorder._look_after_disk()
        desk.clock.advance(1)
    assert desk.spool.stream == on_disk
    assert [body["values"]["n"] for body in desk.bodies()] == list(range(60))
    assert desk.spool.usage()["rows"] == 60


def test_what_was_confirmed_of_another_database_is_not_confirmed_of_this_one(desk):
    """PUBACKs and refusals that arrive after the database was exchanged do not touch rows of the new one."""
    desk.reading()
    desk.recorder.commit()
    before = desk.recorder.generation
    desk.spool.fall_back(SpoolError("pulled"))
    desk.reading()
    desk.recorder.commit()
    ids = [row.id for _, row in desk.kept]
    desk.recorder.settle(ids, before)
    desk.recorder.park(ids[1], "poison", before)
    desk.recorder.commit()
    assert desk.spool.usage()["rows"] == 1


def test_when_memory_is_full_too_telemetry_goes_first_and_the_count_is_said(desk, monkeypatch):
    """Beyond the bound the oldest readings go, alarms stay, and a gap says how many readings went."""
    monkeypatch.setattr(record_module, "_READINGS_MAX", 10)
    with monkeypatch.context() as broken:
        desk.break_disk(broken)
        desk.alarm()
        for n in range(40):
            desk.reading(n)
            desk.recorder.commit()
    desk.recorder.commit()
    rows = [row for _, row in desk.kept]
    gaps = [json.loads(f"{{{row.body}}}") for row in rows if row.kind == GAP]
    telemetry = [row for row in rows if row.kind == TELEMETRY]
    assert sum(row.kind == ALARM for row in rows) == 1
    assert telemetry
    assert json.loads(f"{{{telemetry[-1].body}}}")["values"]["n"] == 39
    assert sum(gap["count"] for gap in gaps) + len(telemetry) == 40
    assert {gap["reason"] for gap in gaps} == {"memory"}
    assert desk.health.counters()["record.dropped"] == 40 - len(telemetry)


def test_drops_of_many_threads_are_all_counted(tmp_path, monkeypatch):
    """Eight producers over a full queue: what was kept and what was said lost add up."""
    monkeypatch.setattr(record_module, "_ROWS_MAX", 50)
    desk = Desk(tmp_path, SystemClock())
    stamp = desk.clock.stamp()

    def produce() -> None:
        for _ in range(200):
            desk.recorder.verdict(Verdict("eye", stamp, "good", "rule"))

    threads = [threading.Thread(target=produce) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.recorder.commit()
    bodies = desk.bodies()
    lost = sum(body["count"] for body in bodies if "count" in body)
    assert lost + sum("label" in body for body in bodies) == 1600
    assert lost > 0


def test_an_alarm_is_committed_at_once(tmp_path):
    """With a commit interval of a minute an alarm is on the disk in a moment, and the readings before it too."""
    desk = Desk(tmp_path, SystemClock())
    desk.recorder._wait_s = 60.0
    stop, seen = threading.Event(), threading.Event()
    desk.recorder.on_kept = lambda rows, _: seen.set() if rows[-1].kind == ALARM else None
    thread = threading.Thread(target=desk.recorder.body, args=(stop, lambda: None))
    thread.start()
    desk.reading()
    desk.alarm()
    assert seen.wait(10)
    stop.set()
    desk.recorder.wake()
    thread.join(10)
    assert desk.spool.usage()["rows"] == 2


def test_the_end_commits_what_waits_and_closes_the_minute(tmp_path):
    """Told to stop, the thread commits the last readings and writes the running minute of the history."""
    desk = Desk(tmp_path, SystemClock())
    desk.recorder._wait_s = 60.0
    stop = threading.Event()
    thread = threading.Thread(target=desk.recorder.body, args=(stop, lambda: None))
    thread.start()
    desk.reading(7)
    stop.set()
    desk.recorder.wake()
    thread.join(10)
    assert desk.spool.usage()["rows"] == 1
    desk.recorder.settle([1], desk.recorder.generation)
    history = desk.spool._db.writer.execute("SELECT device, body FROM history").fetchall()
    assert history == [("main", '{"n":[7,7.0,7,7,1]}')]
    desk.recorder.close()
    again = Desk(tmp_path)
    assert again.spool.usage()["rows"] == 0, "what was confirmed after the last commit is not sent again"


def test_history_is_written_minute_by_minute_and_kept_so_long(desk):
    """Minutes that are over are written; those older than the setting go; an unsynced clock deletes nothing."""
    for _ in range(130):
        desk.reading(2)
        desk.recorder.commit()
        desk.recorder._look_after_disk()
        desk.clock.advance(1)
    (count,) = desk.spool._db.writer.execute("SELECT count(*) FROM history").fetchone()
    assert count == 2
    desk.clock.step_wall(400 * 86400, synced=False)
    for _ in range(70):
        desk.reading(2)
        desk.recorder.commit()
        desk.recorder._look_after_disk()
        desk.clock.advance(1)
    minutes = [row[0] for row in desk.spool._db.writer.execute("SELECT minute FROM history ORDER BY minute")]
    assert len(minutes) >= 4, "a clock that may be wrong by a year decides nothing"
    desk.clock.step_wall(0, synced=True)
    for _ in range(70):
        desk.reading(2)
        desk.recorder.commit()
        desk.recorder._look_after_disk()
        desk.clock.advance(1)
    left = [row[0] for row in desk.spool._db.writer.execute("SELECT minute FROM history ORDER BY minute")]
    assert left[0] > minutes[1]


def test_history_waits_while_rows_live_in_memory(desk):
    """A minute that ends while the disk is away is in the history afterwards."""
    desk.spool.fall_back(SpoolError("pulled"))
    desk.recorder._disk_tried_ns = desk.clock.mono_ns() + 70 * 10**9
    for _ in range(130):
        desk.reading(2)
        desk.recorder.commit()
        desk.recorder._look_after_disk()
        desk.clock.advance(1)
    assert not desk.spool.volatile
    (count,) = desk.spool._db.writer.execute("SELECT count(*) FROM history").fetchone()
    assert count == 2


def test_the_limit_is_a_fault_while_it_bites_and_cleared_after(tmp_path):
    """At the byte limit the fault stands and gaps are told live; with room again it is cleared."""
    desk = Desk(tmp_path)
    desk.spool._room._limit_bytes = 20_000
    for n in range(300):
        desk.reading(n)
        desk.recorder.commit()
    assert [fault.source for fault in desk.health.faults()] == ["spool.limit"]
    told = [row for _, row in desk.kept if row.kind == GAP]
    assert told
    desk.recorder.settle([row.id for _, row in desk.kept], desk.recorder.generation)
    desk.reading()
    desk.recorder.commit()
    desk.clock.advance(60)
    desk.reading()
    desk.recorder.commit()
    assert desk.health.faults() == []


def _edges(monkeypatch) -> list[str]:
    """What the log says of faults from now on: a source that went wrong, or ``recovered``."""
    said: list[str] = []
    log = SimpleNamespace(
        warning=lambda _event, **fields: said.append(fields["source"]), info=lambda event, **_: said.append(event)
    )
    monkeypatch.setattr("edge_agent.health.log", log)
    return said


def test_a_broker_that_comes_and_goes_at_the_limit_makes_one_fault(tmp_path, monkeypatch):
    """The room that it makes every twenty seconds is gone seconds later: no end of the fault, no new one."""
    desk, said = Desk(tmp_path), _edges(monkeypatch)
    desk.spool._room._limit_bytes = 50_000
    for second in range(300):
        desk.clock.advance(1)
        for n in range(40):
            desk.reading(n)
        desk.recorder.commit()
        if second % 20 == 19:
            desk.recorder.settle([row.id for _, row in desk.kept[-2000:]], desk.recorder.generation)
    assert desk.health.counters()["spool.evicted"] > 2000
    assert said == ["spool.limit"]


def test_a_disk_that_others_fill_and_clean_makes_one_fault(tmp_path, monkeypatch):
    """Free space that goes to and fro over the floor is one fault, which ends a minute after the last loss."""
    desk, said = Desk(tmp_path), _edges(monkeypatch)
    free = 1 << 40
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    for second in range(300):
        desk.clock.advance(1)
        desk.recorder.evidence(Evidence("eye", desk.clock.stamp(), "x" * 20_000, "/nowhere", "00", 5))
        desk.recorder._rows.extend(desk.recorder._rows[0] for _ in range(20))
        free = 1 << 40 if second % 10 < 5 else 0
        desk.recorder.commit()
    assert desk.health.counters()["spool.evicted"] > 200
    assert said == ["spool.limit"]
    free = 1 << 40
    for _ in range(61):
        desk.clock.advance(1)
        desk.reading()
        desk.recorder.commit()
    assert said == ["spool.limit", "recovered"]
