"""A disk that fails at any write, fills up, or turns read-only: nothing recorded is lost while the process lives."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from edge_agent import database
from edge_agent.clock import ManualClock
from edge_agent.health import Health
from edge_agent.outbox import GAP, TELEMETRY, Row
from edge_agent.spool import Spool
from edge_agent.stages.record import Recorder
from edge_agent.vocabulary import AlarmChange, Reading

HERE = Path(__file__).parent
QUICK_DISK = next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None)


class Life:
    """A recorder that is given one numbered reading a second, and knows them all."""

    def __init__(self, folder: Path, **settings) -> None:
        self.clock = ManualClock()
        self.health = Health(self.clock)
        self.spool = Spool(
            folder / "spool.db", self.clock, self.health, **{"limit_bytes": 1 << 30, "floor_bytes": 0, **settings}
        )
        self.recorder = Recorder(
            self.spool, self.clock, self.health, commit_every_s=1.0, history_days=1, formats={"main": {}}
        )
        self.given = 0

    def take(self) -> None:
        self.given += 1
        self.recorder.reading(Reading("main", self.clock.stamp(), {"n": float(self.given)}))

    def live(self, seconds: int, *, each: int = 1) -> None:
        for _ in range(seconds):
            for _ in range(each):
                self.take()
            self.recorder.commit()
            self.recorder._look_after_disk()
            self.clock.advance(1)

    def rows(self) -> list:
        reader = self.spool.reader()
        found = reader.rows(-1, 1 << 60, 1 << 30, alarms=False) + reader.rows(-1, 1 << 60, 1 << 30, alarms=True)
        reader.close()
        return found

    def missing(self) -> set[int]:
        """Numbers that are in no row."""
        rows = self.rows()
        assert len({(row.stream, row.seq) for row in rows}) == len(rows)
        found = {json.loads(f"{{{row.body}}}").get("values", {}).get("n") for row in rows if row.kind != GAP}
        assert found <= {None, *range(1, self.given + 1)}, "nothing invented"
        return set(range(1, self.given + 1)) - found


def fail_each_write_in_turn() -> list[dict[str, object]]:
    """In the child, with the shim preloaded: for n = 1, 2, …: the n-th write fails, once or until mended."""
    shim = ctypes.CDLL(None)
    found = []
    for once in (1, 0):
        for error in (errno.EIO, errno.ENOSPC):
            for n in range(1, 400):
                folder = Path(tempfile.mkdtemp(dir=QUICK_DISK))
                shim.shim_arm(n, once, error)
                life = Life(folder)
                life.spool.open()
                life.live(8)
                bit = shim.shim_failed()
                life.live(12)  # long enough to go on in memory
                shim.shim_arm(0, 0, 0)
                life.live(35)  # long enough to look for the disk again
                result = {
                    "once": once,
                    "errno": error,
                    "n": n,
                    "failed": bit,
                    "missing": len(life.missing()),
                    "volatile": life.spool.volatile,
                }
                life.recorder.close()
                again = Life(folder)
                again.spool.open()
                again.given = life.given
                result["missing_after_restart"] = len(again.missing())
                again.spool.close()
                shutil.rmtree(folder)
                found.append(result)
                if not bit:
                    break
    return found


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    built = tmp_path_factory.mktemp("shim") / "disk_shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", built, HERE / "peers" / "disk_shim.c", "-ldl"], check=True)
    return built


def in_child(function: str, *, preload: Path | None = None, prefix: tuple[str, ...] = ()) -> object:
    """Run a function of this file in a process of its own; what it returned."""
    code = f"import sys, json; sys.path.insert(0, {str(HERE)!r}); import test_disk_faults as t; t.report(t.{function})"
    environment = {**os.environ, **({"LD_PRELOAD": str(preload)} if preload else {})}
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def report(function) -> None:
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    database.BUSY_TIMEOUT_S = 0.05
    sys.stdout.write(json.dumps(function()) + "\n")


def test_any_write_may_fail_once_or_until_mended(shim):
    """Whichever write or sync fails, with an error or no room: every reading is kept, and the disk is found again."""
    found = in_child("fail_each_write_in_turn", preload=shim)
    assert len(found) > 40
    assert sum(result["failed"] > 0 for result in found) > 40, "the faults bit"
    bad = [r for r in found if r["missing"] or r["missing_after_restart"] or r["volatile"]]
    assert bad == []


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="a file system of one's own needs root")


def on_full_disk() -> dict[str, object]:
    """In the child: a file system of 3 MB, filled by somebody else while telemetry and alarms come."""
    folder = Path(os.environ["SMALL_DISK"])
    life = Life(folder, limit_bytes=64 << 20, floor_bytes=64 << 10)
    life.spool.open()
    life.live(20, each=100)
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    given_before = life.given
    life.live(3)
    reserve_spent = not (folder / "reserve").exists()
    alarms = 0
    for n in range(120):
        if n % 10 == 0:
            stamp = life.clock.stamp()
            life.recorder.alarm(AlarmChange("hot", stamp, f"state-{n}", "high", stamp, "main.n > 1"))
            alarms += 1
        life.live(1, each=100)
    rows = life.rows()
    gaps = [json.loads(f"{{{row.body}}}") for row in rows if row.kind == GAP]
    result = {
        "volatile": life.spool.volatile,
        "given_after": life.given - given_before,
        "alarms": alarms,
        "alarms_kept": sum(row.topic == "alarm/hot" for row in rows),
        "reserve_spent": reserve_spent,
        "rows": len(rows),
        "faults": [f.source for f in life.health.faults()],
    }
    present = {(row.stream, row.seq) for row in rows}
    every = {(life.spool.stream, seq) for seq in range(1, life.spool.next_seq)}
    said = {(gap["of"], seq) for gap in gaps for seq in range(gap["from"], gap["to"] + 1)}
    result["unexplained"] = len(every - present - said) if not life.spool.volatile else 0
    filler.unlink()
    life.live(70)
    result["volatile_at_end"] = life.spool.volatile
    result["reserve_again"] = (folder / "reserve").exists()
    life.recorder.close()
    return result


@root_only
def test_a_full_disk_drops_old_telemetry_and_keeps_alarms(tmp_path):
    """Others fill the disk: the oldest telemetry makes room, alarms stay, losses are explained; room heals all."""
    disk = tmp_path / "disk"
    disk.mkdir()
    os.environ["SMALL_DISK"] = str(disk)
    mount = f'mount -t tmpfs -o size=3M tmpfs {disk} && exec "$0" "$@"'
    result = in_child("on_full_disk", prefix=("unshare", "-m", "sh", "-c", mount))
    assert result["alarms_kept"] == result["alarms"]
    assert result["unexplained"] == 0
    assert result["rows"] > 500
    assert not result["volatile_at_end"]
    assert result["reserve_again"]


def on_read_only_disk() -> dict[str, object]:
    """In the child: the file system turns read-only, and writable again."""
    folder = Path(os.environ["SMALL_DISK"])

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)

    life = Life(folder)
    life.spool.open()
    life.live(5)
    # Like a kernel after an I/O error: what is open stays open, and every write fails.
    life.spool.close()
    remount("ro")
    life = Life(folder)
    life.spool.open()
    volatile = life.spool.volatile
    life.live(40)
    still = life.spool.volatile
    remount("rw")
    life.live(40)
    result = {
        "volatile": volatile,
        "still": still,
        "at_end": life.spool.volatile,
        "missing": len(life.missing()),
        "rows": len(life.rows()),
    }
    life.recorder.close()
    return result


@root_only
def test_a_read_only_disk_means_memory_until_it_is_mended(tmp_path):
    """The agent starts on a read-only disk, keeps rows in memory, and moves them to the disk when it is mended."""
    disk = tmp_path / "disk"
    disk.mkdir()
    os.environ["SMALL_DISK"] = str(disk)
    mount = f'mount -t tmpfs -o size=20M tmpfs {disk} && exec "$0" "$@"'
    result = in_child("on_read_only_disk", prefix=("unshare", "-m", "sh", "-c", mount))
    assert (result["volatile"], result["still"], result["at_end"]) == (True, True, False)
    assert result["missing"] == 0
    assert result["rows"] == 85


def hang_in_a_commit() -> dict[str, object]:
    """In the child, with the shim preloaded: a sync that does not come back while readings do."""
    shim = ctypes.CDLL(None)
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as folder:
        life = Life(Path(folder))
        life.spool.open()
        life.live(3)
        life.take()
        shim.shim_hold(1)
        committing = threading.Thread(target=life.recorder.commit)
        committing.start()
        give_up = time.monotonic() + 60
        while not shim.shim_held() and time.monotonic() < give_up:
            time.sleep(0.01)
        for _ in range(1000):
            life.take()
        result = {"hung": bool(shim.shim_held()) and committing.is_alive(), "readable": len(life.rows()) >= 3}
        shim.shim_hold(0)
        committing.join(60)
        life.live(1)
        result |= {"missing": len(life.missing()), "volatile": life.spool.volatile, "given": life.given}
        life.recorder.close()
    return result


def test_a_slow_disk_costs_no_reading(shim):
    """While a commit hangs in its sync nobody else waits: readings are taken, rows can be read, then all is there."""
    found = in_child("hang_in_a_commit", preload=shim)
    assert found == {"hung": True, "readable": True, "missing": 0, "volatile": False, "given": 1005}


def open_from_a_slow_card() -> dict[str, object]:
    """In the child, with the shim preloaded: a database of which each page takes its time."""
    shim = ctypes.CDLL(None)
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as folder:
        life = Life(Path(folder))
        life.spool.open()
        life.spool.append([Row(TELEMETRY, "telemetry/main", life.clock.stamp(), f'"pad":"{"x" * 3000}"')] * 4000)
        life.recorder.close()
        database.CHECK_LIMIT_S = 0.05
        shim.shim_slow_reads(2000)
        life = Life(Path(folder))
        life.spool.open()
        reads = shim.shim_reads()
        shim.shim_slow_reads(0)
        life.live(1)
        pages = (Path(folder) / "spool.db").stat().st_size // 4096
        result = {"reads": reads, "pages": pages, "rows": len(life.rows()), "volatile": life.spool.volatile}
        life.recorder.close()
    return result


def test_a_large_database_on_a_slow_card_is_opened_in_time(shim):
    """Looking it through ends when its time is over; what was not looked at is used as it is."""
    found = in_child("open_from_a_slow_card", preload=shim)
    assert 5 < found["reads"] < found["pages"] / 2
    assert (found["rows"], found["volatile"]) == (4001, False)


def test_readings_that_wait_for_the_disk_are_bounded(tmp_path, monkeypatch):
    """Beyond the bound the oldest go, and that is said."""
    from edge_agent.stages import record

    monkeypatch.setattr(record, "_READINGS_MAX", 100)
    life = Life(tmp_path)
    life.spool.open()
    for n in range(130):
        life.recorder.reading(Reading("main", life.clock.stamp(), {"n": float(n + 1)}))
    life.given = 130
    life.recorder.commit()
    assert life.missing() == set(range(1, 31)), "the oldest went"
    (gap,) = [json.loads(f"{{{row.body}}}") for row in life.rows() if row.kind == GAP]
    assert (gap["count"], gap["reason"]) == (30, "memory")
