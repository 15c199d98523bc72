"""A wall clock that is wrong, jumps and is set right, under the real daemon."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.brokers import Ear, Mosquitto, Relay, until
from tests.daemon import Daemon, Oracle

SHIM = Path(__file__).parent / "peers" / "clock_shim.c"
YEAR_S = 365 * 86400


class WallClock:
    """What the daemon's wall clock says: the true time plus ``set`` seconds, disciplined or not."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = folder / "clock_shim.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", self._library, SHIM], check=True)
        self.set(0)

    def set(self, seconds: int, *, synced: bool = True) -> None:
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("=qq", seconds, not synced))

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_PRELOAD": str(self._library), "CLOCK_SHIM": str(self._file)}


@pytest.fixture
def wall(tmp_path):
    return WallClock(tmp_path)


@pytest.fixture
def mosquitto(tmp_path):
    with Mosquitto(tmp_path) as broker:
        yield broker


def at(message) -> float:
    return datetime.fromisoformat(message.fields["at"]).timestamp()


def test_jumps_of_the_clock_cost_nothing(tmp_path, wall, mosquitto):
    """A year forward, a year back, an hour back again and again: no fault, no burst, nothing missing, order kept."""
    with Ear(mosquitto.port) as ear, Daemon(tmp_path, mosquitto.url, environment=wall.environment) as daemon:
        oracle = Oracle(ear)
        oracle.wait_for(5)
        began, heard = time.monotonic(), oracle.readings()
        for seconds in (YEAR_S, -YEAR_S, *(-3600 * hour for hour in range(1, 5))):
            wall.set(seconds)
            oracle.wait_for(12)
        took_s = time.monotonic() - began
        assert oracle.readings() - heard < 32 * took_s + 20, "no burst: two meters and a sensor give 32 a second"
        assert max(at(message) for message in ear.of("telemetry")) > time.time() + YEAR_S / 2, "the jumps bit"
        assert daemon.end() == 0
        until(lambda: ear.of("agent")[-1].fields["state"] == "offline")
        found = oracle.judge(daemon.numbered())
    assert {found[name] for name in ("missing", "invented", "repeats", "disorder")} == {0}
    events = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert not [event for event in events if event["event"] in ("fault", "stalled")]


def test_what_was_taken_before_the_clock_was_right_gets_its_true_time(tmp_path, wall, mosquitto):
    """Started in another century without a broker, set right in the same boot: each row leaves with its true time."""
    wall.set(-30 * YEAR_S, synced=False)
    began = time.time()
    with Relay(mosquitto.port) as relay, Ear(mosquitto.port) as ear:
        relay.cut()
        with Daemon(tmp_path, relay.url, environment=wall.environment) as daemon:
            until((tmp_path / "state" / "control.sock").exists, "it runs")
            until(lambda: daemon.waiting() > 20, "rows wait")
            with closing(sqlite3.connect(tmp_path / "state" / "spool.db")) as database:
                assert database.execute("SELECT max(wall_ms), max(synced) FROM outbox").fetchone() < (10**12, 0)
            wall.set(0)
            time.sleep(6)  # the kernel is asked every five seconds
            relay.mend()
            until(lambda: any(message.fields["late"] for message in ear.of("telemetry")), "the backlog")
            Oracle(ear).wait_for(20)
            assert daemon.end() == 0
        rows = ear.of("telemetry")
    assert {message.fields["clock"] for message in rows} == {"synced"}
    assert all(began - 1 < at(message) < time.time() + 1 for message in rows)
    assert datetime.fromtimestamp(min(map(at, rows)), UTC).year > 2020
