"""The first thing that a newcomer types."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from edge_agent.commands.demo import is_good

TOTALS = {"seconds", "recorded", "published", "messages", "readings", "missing", "duplicates", "reordered", "late"}


def command(folder, *arguments):
    return [sys.executable, "-m", "edge_agent", "demo", "--keep", str(folder), *arguments]


def left_behind(folder) -> list[str]:
    """Command lines of processes that still work there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if str(folder) in text:
            found.append(text)
    return found


def test_a_whole_line_lives_and_nothing_is_missing(tmp_path):
    """Every act really happens, an outage is survived, the totals add up, and nothing is left behind."""
    done = subprocess.run(
        command(tmp_path, "--seconds", "30", "--json"), capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "agent.log").read_text()[-3000:]
    totals = json.loads(done.stdout)
    assert totals.keys() == TOTALS | {"seen"}
    assert totals["recorded"] == totals["published"] > 100
    assert totals["missing"] == 0
    assert totals["late"] > 0
    assert set(totals["seen"]) == {"alarm bad-part", "alarm compressor-silent", "alarm overload", "red light"}
    assert left_behind(tmp_path) == []


def test_interrupted_it_ends_in_order(tmp_path):
    """Ctrl-C before its time: the totals so far, exit code 130, and nothing is left behind."""
    process = subprocess.Popen(command(tmp_path, "--seconds", "20"), stdout=subprocess.PIPE, text=True)
    assert "the line runs" in process.stdout.readline()
    assert "the press draws too much" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0 missing" in out
    assert left_behind(tmp_path) == []


def test_a_demo_that_lost_something_is_not_good():
    """Nor is one in which nothing happened, or nothing arrived."""
    good = {"missing": 0, "recorded": 9, "published": 9, "late": 2}
    good["seen"] = ["alarm bad-part", "alarm compressor-silent", "alarm overload", "red light"]
    assert is_good(good, complete=True)
    for wrong in ({"missing": 1}, {"published": 8}, {"late": 0}, {"seen": []}, {"recorded": 0, "published": 0}):
        assert not is_good({**good, **wrong}, complete=True)
    assert is_good({**good, "seen": [], "late": 0}, complete=False)
