"""History as CSV: what was measured, minute by minute, with times and units that others can read."""

from __future__ import annotations

import csv
import io
import json
import sqlite3

import pytest

from edge_agent.clock import ManualClock
from edge_agent.health import Health
from edge_agent.spool import Spool

MINUTE = 29_400_000  # 2025-11-24T16:00Z


@pytest.fixture
def history(place):
    """Three minutes of a sensor, one of them also of a meter that the config no longer has."""
    state = place.folder / "state"
    state.mkdir()
    clock = ManualClock()
    spool = Spool(state / "spool.db", clock, Health(clock), limit_bytes=1 << 24)
    spool.open()
    rows = [
        ("cabinet", MINUTE + n, json.dumps({"temperature": [20 + n, 21.5 + n, 23 + n, 22 + n, 60]})) for n in range(3)
    ]
    rows.append(("old-meter", MINUTE + 1, json.dumps({"energy_import": [10, 12, 14, 14, 60], "flow": [1, 2, 3, 2, 9]})))
    spool.history(rows, 0)
    spool.close()
    return place


def table(text):
    return list(csv.reader(io.StringIO(text)))


def test_one_line_per_minute_one_column_per_quantity(history):
    """Times are UTC, units stand in the header, a counter is what it was last, absence is empty."""
    done = history.call("export")
    assert done.returncode == 0, done.stderr
    assert table(done.stdout) == [
        ["time", "cabinet.temperature [°C]", "old-meter.energy_import [Wh]", "old-meter.flow"],
        ["2025-11-24T16:00:00Z", "21.5", "", ""],
        ["2025-11-24T16:01:00Z", "22.5", "14", "2"],
        ["2025-11-24T16:02:00Z", "23.5", "", ""],
    ]


def test_a_part_of_it_with_every_statistic(history):
    """From, to, device, quantity and statistic choose."""
    options = ["--device", "cabinet", "--quantity", "temperature", "--statistic", "all"]
    done = history.call("export", "--from", "2025-11-24T16:01", "--to", "2025-11-24T17:02+01:00", *options)
    assert table(done.stdout) == [
        [
            "time",
            *(f"cabinet.temperature.{name} [°C]" for name in ("min", "mean", "max", "last")),
            "cabinet.temperature.count",
        ],
        ["2025-11-24T16:01:00Z", "21", "22.5", "24", "23", "60"],
    ]


def test_a_file_is_whole_or_untouched(history):
    """The output file appears at once, with RFC 4180 line ends; no other file is left."""
    target = history.folder / "out.csv"
    assert history.json("export", "--output", target) == {"file": str(target), "lines": 3, "columns": 3}
    assert target.read_bytes().startswith(b"time,cabinet.temperature [\xc2\xb0C]")
    assert target.read_bytes().count(b"\r\n") == 4
    assert sorted(path.name for path in history.folder.iterdir()) == ["config.yaml", "out.csv", "state"]
    missing = history.call("export", "--output", history.folder / "no" / "out.csv")
    assert missing.returncode == 3
    assert "cannot write" in missing.stderr


def test_json_lines_carry_everything(history):
    """One object per device and minute."""
    lines = [json.loads(line) for line in history.call("export", "--json").stdout.splitlines()]
    assert len(lines) == 4
    assert lines[0] == {
        "time": "2025-11-24T16:00:00Z",
        "device": "cabinet",
        "values": {"temperature": {"min": 20, "mean": 21.5, "max": 23, "last": 22, "count": 60}},
    }


def test_nothing_found_says_what_there_is(history):
    """A misspelt device names the right one and the range."""
    done = history.call("export", "--device", "cabnet")
    assert done.returncode == 3
    assert "2025-11-24T16:00:00Z to 2025-11-24T16:02:00Z" in done.stderr
    assert "did you mean 'cabinet'" in done.stderr


def test_a_time_that_is_none_is_a_usage_error(history):
    """With examples of what can be written."""
    done = history.call("export", "--from", "yesterday")
    assert done.returncode == 2
    assert "2026-11-20T06:00 or 24h" in done.stderr


def test_before_the_first_start_there_is_nothing(place):
    """No database: said so, nothing is created."""
    done = place.call("export")
    assert done.returncode == 3
    assert "has the daemon ever run here" in done.stderr
    assert not (place.folder / "state").exists()


def test_it_writes_nothing_into_the_database(history):
    """A read-only look, while another has it open."""
    path = history.folder / "state" / "spool.db"
    db = sqlite3.connect(path)
    db.execute("BEGIN IMMEDIATE")
    before = path.read_bytes()
    assert history.call("export").returncode == 0
    assert path.read_bytes() == before
    db.close()
