"""The spool keeps its order and its count whatever happens to the disk, and says aloud what it had to let go."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent import database, rescue, spool
from edge_agent.clock import ManualClock
from edge_agent.counters import Mark
from edge_agent.errors import SpoolError
from edge_agent.health import Health
from edge_agent.outbox import ALARM, GAP, TELEMETRY, VERDICT, Row, Stored
from edge_agent.spool import Spool
from edge_agent.vocabulary import Origin


def make(folder: Path, clock: ManualClock | None = None, **settings) -> Spool:
    clock = clock or ManualClock()
    made = Spool(folder / "spool.db", clock, Health(clock), **{"limit_bytes": 1 << 30, "floor_bytes": 0, **settings})
    made.open()
    return made


def row(clock: ManualClock, number: int, kind: int = TELEMETRY, size: int = 20) -> Row:
    topic = {TELEMETRY: "telemetry/main", VERDICT: "verdict/eye", ALARM: "alarm/hot"}[kind]
    return Row(kind, topic, clock.stamp(), f'"n":{number},"pad":"{"x" * size}"', kind == ALARM)


def all_rows(of: Spool) -> list[Stored]:
    reader = of.reader()
    found = reader.rows(-1, 1 << 60, 1 << 30, alarms=True) + reader.rows(-1, 1 << 60, 1 << 30, alarms=False)
    reader.close()
    return sorted(found)


def number(stored: Stored) -> int | None:
    return json.loads(f"{{{stored.body}}}").get("n")


def said_lost(rows: list[Stored]) -> set[tuple[str, int]]:
    lost: set[tuple[str, int]] = set()
    for gap in rows:
        if gap.kind == GAP:
            said = json.loads(f"{{{gap.body}}}")
            lost |= {(said["of"], seq) for seq in range(said["from"], said["to"] + 1)}
    return lost


class Model(RuleBasedStateMachine):
    """Random lives of a spool beside a list: rows come, are confirmed, parked, evicted; the disk goes and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.clock = ManualClock()
        self.given: dict[tuple[str, int], int] = {}  # identity → number
        self.done: set[tuple[str, int]] = set()  # confirmed
        self.heard: list[Stored] = []  # gaps that were confirmed, which an integrator has seen
        self.next = 0
        self.limit = 0

    @initialize(limit=st.sampled_from([6_000, 20_000, 1 << 30]))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.spool = make(self.folder, self.clock, limit_bytes=limit)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
        shutil.rmtree(self.folder)

    def keep(self, kinds: list[int], settled: list[int] = (), parked: list[tuple[int, str]] = ()) -> None:
        rows = [row(self.clock, self.next + n, kind) for n, kind in enumerate(kinds)]
        expected, stream = self.spool.next_seq, self.spool.stream
        kept = self.spool.append(rows, settled, parked)
        assert [s.seq for s in kept] == list(range(expected, expected + len(kept))), "seq is contiguous"
        assert {s.stream for s in kept} <= {stream}
        assert [number(s) for s in kept[: len(rows)]] == [self.next + n for n in range(len(rows))]
        self.given.update({(s.stream, s.seq): self.next + n for n, s in enumerate(kept[: len(rows)])})
        self.next += len(rows)

    @rule(kinds=st.lists(st.sampled_from([TELEMETRY, TELEMETRY, TELEMETRY, VERDICT, ALARM]), max_size=30))
    def append(self, kinds: list[int]) -> None:
        self.keep(kinds)

    @rule(share=st.floats(0, 1), kinds=st.lists(st.just(TELEMETRY), max_size=3), seed=st.integers(0, 99))
    def settle(self, share: float, kinds: list[int], seed: int) -> None:
        rows = all_rows(self.spool)
        some = random.Random(seed).sample(rows, int(len(rows) * share))
        self.keep(kinds, [s.id for s in some])
        self.done |= {(s.stream, s.seq) for s in some}
        self.heard += [s for s in some if s.kind == GAP]

    @rule(seed=st.integers(0, 99), unknown=st.booleans())
    def park(self, seed: int, unknown: bool) -> None:
        rows = [s for s in all_rows(self.spool) if s.kind != GAP]
        some = random.Random(seed).sample(rows, min(3, len(rows)))
        parked = [(s.id, "poison") for s in some] + ([(1 << 50, "evicted meanwhile")] if unknown else [])
        self.keep([], (), parked)

    @rule(seconds=st.floats(0.1, 90))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def enforce(self) -> None:
        before = all_rows(self.spool)
        self.spool.enforce_limit()
        after = all_rows(self.spool)
        gone = {s[1:3]: s for s in before if s[1:3] not in {left[1:3] for left in after}}
        if any(s.kind == ALARM for s in gone.values()):
            assert all(s.kind in (ALARM, GAP) for s in after), "alarms go last"
        if any(s.kind == VERDICT for s in gone.values()):
            assert not any(s.kind == TELEMETRY for s in after), "telemetry goes before verdicts"

    @rule()
    def close_and_open(self) -> None:
        volatile = self.spool.volatile
        if not volatile:
            self.spool.close()
            self.spool = make(self.folder, self.clock, limit_bytes=self.limit)

    @precondition(lambda self: hasattr(self, "spool") and not self.spool.volatile)
    @rule()
    def disk_goes(self) -> None:
        self.waiting = all_rows(self.spool)
        self.spool.fall_back(SpoolError("pulled"))

    @precondition(lambda self: hasattr(self, "spool") and self.spool.volatile)
    @rule()
    def disk_returns(self) -> None:
        memory = all_rows(self.spool)
        assert self.spool.return_to_disk()
        expected = [s[1:] for s in self.waiting + memory]
        assert [s[1:] for s in all_rows(self.spool)] == expected, "what was on the disk first, then what was in memory"

    @invariant()
    def nothing_is_invented_and_every_loss_is_said(self) -> None:
        if not hasattr(self, "spool"):
            return
        rows = all_rows(self.spool)
        on_disk = self.waiting if self.spool.volatile else []
        ids = [s.id for s in rows]
        assert ids == sorted(set(ids))
        present = {(s.stream, s.seq): number(s) for s in rows + on_disk if s.kind != GAP}
        assert all(self.given[key] == n for key, n in present.items()), "nothing invented, nothing changed"
        lost = said_lost(rows + on_disk + self.heard)
        missing = set(self.given) - set(present) - self.done
        assert missing <= lost, "what is gone unconfirmed was said aloud"

    @invariant()
    def the_count_of_bytes_is_true(self) -> None:
        if hasattr(self, "spool"):
            usage = self.spool.usage()
            rows = all_rows(self.spool)
            assert usage["rows"] == len(rows)
            assert usage["bytes"] == sum(len(s.body) + 96 for s in rows)


Model.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase


@pytest.fixture
def clock():
    return ManualClock()


def test_never_more_than_the_limit(tmp_path, clock):
    """However much comes, after each commit the spool is at most one bite over its limit, then below it again."""
    kept = make(tmp_path, clock, limit_bytes=100_000)
    for n in range(200):
        kept.append([row(clock, n * 20 + i, size=200) for i in range(20)])
        kept.enforce_limit()
        clock.advance(1)
        assert kept.usage()["bytes"] <= 100_000


def test_old_telemetry_is_thinned_before_any_is_dropped(tmp_path, clock):
    """At the limit each device keeps one row a minute of the oldest part while the newest part stays whole."""
    kept = make(tmp_path, clock, limit_bytes=60_000)
    for n in range(600):
        kept.append([row(clock, n, size=10)])
        clock.advance(1)
        if kept.enforce_limit():
            break
    rows = [s for s in all_rows(kept) if s.kind == TELEMETRY]
    minutes = [s.wall_ms // 60_000 for s in rows]
    holes = [b.seq - a.seq for a, b in pairwise(rows)]
    assert len(set(minutes)) == len({n // 60_000 for n in range(minutes[0] * 60_000, minutes[-1] * 60_000 + 1, 60_000)})
    assert rows[0].seq == 1
    assert max(holes) > 1
    assert holes[-100:] == [1] * 100


def test_classes_go_in_their_order(tmp_path, clock):
    """Smaller and smaller limits take telemetry, then verdicts, and alarms only when nothing else is left."""
    kept = make(tmp_path, clock)
    for n in range(60):
        kept.append([row(clock, n, kind, 200) for kind in (ALARM, VERDICT, TELEMETRY)])
    left = []
    for limit in (45_000, 25_000, 10_000):
        kept._room._limit_bytes = limit
        while kept.enforce_limit():
            pass
        kinds = [s.kind for s in all_rows(kept)]
        left.append([kinds.count(kind) for kind in (TELEMETRY, VERDICT, ALARM)])
    assert 0 < left[0][0] < 60
    assert left[0][1:] == [60, 60]
    assert left[1][0] == 0
    assert 0 < left[1][1] < 60
    assert left[1][2] == 60
    assert left[2][:2] == [0, 0]
    assert 0 < left[2][2] < 60


def test_a_gap_says_which_how_many_and_why(tmp_path, clock):
    """Dropped verdicts are reported with stream, first, last, count and reason."""
    kept = make(tmp_path, clock, limit_bytes=20_000)
    kept.append([row(clock, n, VERDICT, 100) for n in range(100)])
    gaps = kept.enforce_limit()
    said = json.loads(f"{{{gaps[0].body}}}")
    assert said == {"of": kept.stream, "from": 1, "to": said["count"], "count": said["count"], "reason": "quota"}
    assert said["count"] == 100 - sum(s.kind == VERDICT for s in all_rows(kept))


def test_gaps_of_gaps_do_not_pile_up(tmp_path, clock):
    """When nothing but gaps is left to drop they are told anew, together, and still cover every loss."""
    kept = make(tmp_path, clock, limit_bytes=30_000)
    given = []
    for n in range(400):
        given += kept.append([row(clock, n)])
        kept.append([], (), [(given[-1].id, f"reason {n}")])
        kept.enforce_limit()
    rows = all_rows(kept)
    assert kept.usage()["bytes"] <= 30_000
    assert {(s.stream, s.seq) for s in given} <= said_lost(rows)


def test_a_lowered_limit_is_reached_in_bites(tmp_path, clock, monkeypatch):
    """A config with a much smaller limit is obeyed step by step, never in one long transaction."""
    monkeypatch.setattr(spool, "LARGEST_BITE", 10_000)
    kept = make(tmp_path, clock)
    kept.append([row(clock, n, size=100) for n in range(500)])
    kept.close()
    kept = make(tmp_path, clock, limit_bytes=20_000)
    sizes = [kept.usage()["bytes"]]
    while kept.enforce_limit():
        sizes.append(kept.usage()["bytes"])
    assert len(sizes) > 5
    assert max(a - b for a, b in pairwise(sizes)) <= 20_000
    assert sizes[-1] <= 20_000


def test_others_filling_the_disk_do_not_empty_the_spool(tmp_path, clock, monkeypatch):
    """Below the free-space floor the file lives on the room inside it: old rows make room, most rows stay."""
    kept = make(tmp_path, clock)
    kept.append([row(clock, n, size=1000) for n in range(2000)])
    kept._room._floor_bytes = 1 << 60
    for n in range(2000):
        kept.append([row(clock, 2000 + n, size=1000)])
        kept.enforce_limit()
    assert 1500 < kept.usage()["rows"] < 2200


def test_a_small_spool_is_left_alone_below_the_floor(tmp_path, clock):
    """A few rows in flight are not what fills a disk."""
    kept = make(tmp_path, clock, floor_bytes=1 << 60)
    kept.append([row(clock, n) for n in range(100)])
    assert kept.enforce_limit() == []


def test_restamp_needs_the_offset_once(tmp_path):
    """When the clock becomes right, the offset of this boot is written down for all its rows."""
    clock = ManualClock(synced=False)
    kept = make(tmp_path, clock)
    (first,) = kept.append([row(clock, 1)])
    kept.anchor()
    reader = kept.reader()
    assert reader.offset_ms(first.boot) is None
    clock.step_wall(3600, synced=True)
    kept.anchor()
    assert reader.offset_ms(first.boot) == clock.stamp().wall_ms - clock.mono_ns() // 1_000_000


def test_history_of_a_minute_that_was_cut_is_one_minute(tmp_path, clock):
    """Two parts of one minute, as a restart makes them, add up."""
    kept = make(tmp_path, clock)
    kept.history([("main", 7, '{"p":[1,2,3,3,2]}')], 0)
    kept.history([("main", 7, '{"p":[0,5,9,4,4],"q":[1,1,1,1,1]}')], 0)
    (body,) = kept._db.writer.execute("SELECT body FROM history").fetchone()
    assert json.loads(body) == {"p": [0, 4, 9, 4, 6], "q": [1, 1, 1, 1, 1]}


def test_where_counters_stood_is_remembered(tmp_path, clock):
    """Marks are written with the minutes, the newest counts, and they are there after a restart."""
    kept = make(tmp_path, clock)
    old, new = Mark(1.5, 1000, True, None), Mark(7.25, 2000, False, Origin("table x 1", "A-1"))
    kept.history([], 0, [("main", "energy_import", old), ("sub", "energy_import", old)])
    kept.history([], 0, [("main", "energy_import", new)])
    kept.close()
    again = make(tmp_path, clock)
    assert again.marks() == {"main": {"energy_import": new}, "sub": {"energy_import": old}}


def test_a_database_from_before_counters_learns_them(tmp_path, clock):
    """A file without the table is used as it is, and has it afterwards."""
    kept = make(tmp_path, clock)
    kept._db.writer.execute("DROP TABLE counters")
    kept.close()
    assert make(tmp_path, clock).marks() == {}


def test_a_database_that_was_not_counted_is_counted(tmp_path, clock):
    """A file in which nobody noted how many rows wait tells the same as before."""
    kept = make(tmp_path, clock)
    kept.append([row(clock, n) for n in range(7)])
    before = kept.usage()
    kept._db.writer.execute("DELETE FROM meta WHERE key IN ('rows', 'bytes')")
    kept.close()
    again = make(tmp_path, clock).usage()
    assert (again["rows"], again["bytes"]) == (before["rows"], before["bytes"]) != (0, 0)


# --- the file is damaged


def fill(folder: Path, clock: ManualClock, count: int = 3000) -> tuple[str, list[Stored]]:
    kept = make(folder, clock)
    rows = kept.append([row(clock, n, size=100) for n in range(count)])
    stream = kept.stream
    kept.close()
    return stream, rows


def damage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def damage_pages(path: Path) -> None:
    chance = random.Random(5)
    size = path.stat().st_size
    with path.open("r+b") as file:
        for _ in range(4):
            file.seek(chance.randrange(20, size // 4096) * 4096)
            file.write(chance.randbytes(4096))


def damage_cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 1000)


def damage_nothing_left(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be taken for one" * 500)


@pytest.mark.parametrize("damage", [damage_header, damage_pages, damage_cut, damage_nothing_left, damage_text])
def test_a_damaged_file_is_put_aside_and_the_agent_goes_on(tmp_path, clock, damage):
    """Whatever the card did to the file: a new stream begins, what is readable is salvaged, the rest is said lost."""
    stream, rows = fill(tmp_path, clock)
    damage(tmp_path / "spool.db")
    kept = make(tmp_path, clock)
    assert not kept.volatile
    assert kept.stream != stream
    (fresh,) = kept.append([row(clock, 9999)])
    assert fresh.stream == kept.stream
    found = {(s.stream, s.seq): s.body for s in all_rows(kept) if s.kind != GAP}
    assert all(found.get((s.stream, s.seq), s.body) == s.body for s in rows), "nothing invented"
    saved = sum(key[0] == stream for key in found)
    if damage is damage_nothing_left:
        return  # as good as new: nothing to put aside
    assert list(tmp_path.glob("spool.db.corrupt-*"))
    if damage is damage_pages:
        assert 2000 < saved < 3000, "the damage bit, and most was salvaged"
        assert {(stream, s.seq) for s in rows} <= set(found) | said_lost(all_rows(kept))
    kept.close()
    again = make(tmp_path, clock)
    assert {(s.stream, s.seq): s.body for s in all_rows(again) if s.kind != GAP} == found


def test_what_was_lost_is_said_before_anybody_reads_the_new_file(tmp_path, clock, monkeypatch):
    """Nobody is offered these gaps: a session that began without them would not send them before its end."""
    fill(tmp_path, clock)
    kept = make(tmp_path, clock)
    before, seen, append = kept.generation, [], Spool.append

    def watched(spool: Spool, rows: list) -> list[Stored]:
        seen.append(spool.generation)
        return append(spool, rows)

    damage_pages(tmp_path / "spool.db")
    monkeypatch.setattr(Spool, "append", watched)
    kept.open_again()
    assert seen == [before]
    assert kept.generation == before + 1
    assert said_lost(all_rows(kept))


def test_salvage_is_bounded_in_time(tmp_path, clock, monkeypatch):
    """A large damaged file does not keep the agent from starting; what it could not save it says."""
    stream, rows = fill(tmp_path, clock)
    damage_pages(tmp_path / "spool.db")
    monkeypatch.setattr(rescue, "_LIMIT_S", 0.0)
    kept = make(tmp_path, clock)
    assert {(stream, s.seq) for s in rows} <= said_lost(all_rows(kept))


def test_quarantined_files_do_not_fill_the_disk(tmp_path, clock):
    """A card that damages the file at every boot leaves two of them, not two hundred."""
    for _ in range(5):
        fill(tmp_path, clock, 10)
        damage_header(tmp_path / "spool.db")
        make(tmp_path, clock).close()
        clock.advance(10)
    assert len(list(tmp_path.glob("spool.db.corrupt-*[0-9]"))) == database.QUARANTINED_MAX


def killed_after(folder: Path, commits: int, *, checkpoint_at: int = -1) -> None:
    """A process that writes so many rows, one commit each, and is killed."""
    code = f"""
import os, signal, sys
from pathlib import Path
from edge_agent.clock import SystemClock
from edge_agent.health import Health
from edge_agent.outbox import Row
from edge_agent.spool import Spool
clock = SystemClock()
kept = Spool(Path({str(folder / "spool.db")!r}), clock, Health(clock), limit_bytes=1 << 30, floor_bytes=0)
kept.open()
for n in range({commits}):
    if n == {checkpoint_at}:
        kept._db.checkpoint()
    kept.append([Row(0, "telemetry/main", clock.stamp(), '"n":%d' % n)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


def test_a_killed_process_loses_no_commit_and_no_number(tmp_path, clock):
    """After SIGKILL every committed row is there and the count goes on where it was."""
    killed_after(tmp_path, 50)
    kept = make(tmp_path, clock)
    assert [s.seq for s in all_rows(kept)] == list(range(1, 51))
    assert kept.next_seq == 51


def test_numbers_never_return_after_a_lost_wal(tmp_path, clock):
    """The WAL of a killed process is deleted: its rows are gone, said lost, and their numbers not given again."""
    killed_after(tmp_path, 50, checkpoint_at=30)
    (tmp_path / "spool.db-wal").unlink()
    kept = make(tmp_path, clock)
    rows = all_rows(kept)
    assert [s.seq for s in rows if s.kind != GAP] == list(range(1, 31))
    assert {(kept.stream, seq) for seq in range(31, 51)} <= said_lost(rows)
    assert kept.next_seq > 51


def test_a_wal_of_another_database_is_no_crash(tmp_path, clock):
    """Whatever a foreign WAL makes of the file, the agent starts and gives no number twice in one stream."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    killed_after(tmp_path / "a", 400, checkpoint_at=200)
    killed_after(tmp_path / "b", 40)
    shutil.copy(tmp_path / "b" / "spool.db-wal", tmp_path / "a" / "spool.db-wal")
    kept = make(tmp_path / "a", clock)
    assert not kept.volatile
    (fresh,) = kept.append([row(clock, 1)])
    identities = [(s.stream, s.seq) for s in all_rows(kept)]
    assert len(identities) == len(set(identities))
    assert (fresh.stream, fresh.seq) == identities[-1]


def test_without_forced_writes_a_power_cut_costs_numbers_not_truth(tmp_path):
    """durability crash: after another boot's unclean end numbering goes on far up, with a gap that says so."""
    before = ManualClock()
    kept = make(tmp_path, before, durable=False)
    kept.append([row(before, n) for n in range(5)])
    for name in ("spool.db", "spool.db-wal", "spool.db-running"):  # what the next boot finds
        (tmp_path / "cut").mkdir(exist_ok=True)
        shutil.copy(tmp_path / name, tmp_path / "cut" / name)
    after = ManualClock()
    after.boot_id = "00000000-0000-0000-0000-000000000002"
    found = make(tmp_path / "cut", after, durable=False)
    assert found.stream == kept.stream
    assert found.next_seq > 1_000_000
    assert (found.stream, 6) in said_lost(all_rows(found))


# --- the disk refuses


def test_locked_by_a_curious_human(tmp_path, clock, monkeypatch):
    """While another program holds the database, nothing is lost and the caller is told; then it goes on."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    kept = make(tmp_path, clock)
    kept.append([row(clock, 1)])
    human = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    human.execute("BEGIN IMMEDIATE")
    with pytest.raises(SpoolError, match="another program"):
        kept.append([row(clock, 2)])
    other = make(tmp_path, clock)
    assert other.volatile, "a locked file never keeps the agent from starting"
    human.execute("ROLLBACK")
    assert [s.seq for s in kept.append([row(clock, 2)])] == [2]
    other.append([row(clock, 3)])
    assert other.return_to_disk()
    assert [number(s) for s in all_rows(other)] == [1, 2, 3]


def test_a_disk_that_refuses_the_first_write_is_left_in_good_order(tmp_path, clock, monkeypatch):
    """Rows live in memory; and whoever opens the file later does not take it for the leftover of a crash."""
    make(tmp_path, clock).close()

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("edge_agent.ledger.transaction", refuse)
        patch.setattr(Spool, "fall_back", lambda self, _error: None)
        make(tmp_path, clock)
    kept = make(tmp_path, clock)
    assert not kept.volatile
    assert all_rows(kept) == []
    kept.close()


def test_a_newer_schema_is_left_alone(tmp_path, clock):
    """After a downgrade the agent runs in memory, says why, and does not touch the newer file."""
    fill(tmp_path, clock, 5)
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute("PRAGMA user_version=99")
    before = (tmp_path / "spool.db").read_bytes()
    kept = make(tmp_path, clock)
    assert kept.volatile
    assert "newer" in kept._health.faults()[0].reason
    assert (tmp_path / "spool.db").read_bytes() == before
    assert not list(tmp_path.glob("*corrupt*"))


@pytest.mark.parametrize("place", ["a file where the folder should be", "a folder where the file should be"])
def test_an_impossible_place_means_memory(tmp_path, clock, place):
    """The agent starts, keeps rows in memory, and comes back by itself once the place is possible."""
    folder = tmp_path / "state"
    if "folder should" in place:
        folder.write_text("in the way")
    else:
        (folder / "spool.db").mkdir(parents=True)
    kept = make(folder, clock)
    assert kept.volatile
    stream = kept.stream
    kept.append([row(clock, n) for n in range(5)])
    assert not kept.return_to_disk()
    if folder.is_file():
        folder.unlink()
    else:
        (folder / "spool.db").rmdir()
    assert kept.return_to_disk()
    assert not kept.volatile
    assert [(s.stream, s.seq) for s in all_rows(kept)] == [(stream, seq) for seq in range(1, 6)]
    kept.append([row(clock, 5)])
    assert [number(s) for s in all_rows(kept)] == list(range(6))


def test_a_reader_never_locks_the_writer_out_of_memory(tmp_path, clock):
    """In memory too, publish may read while record writes."""
    (tmp_path / "spool.db").mkdir()
    kept = make(tmp_path, clock)
    kept.append([row(clock, n) for n in range(2000)])
    stop = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        reader = kept.reader()
        while not stop.is_set():
            try:
                reader.rows(0, 1 << 60, 500, alarms=False)
            except SpoolError as error:
                failures.append(error)
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for n in range(300):
        kept.append([row(clock, n)], [n + 1])
    stop.set()
    thread.join()
    assert failures == []
