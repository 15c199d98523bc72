"""Logging: one line per event, repeats counted, never in the way."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from edge_agent import logs
from edge_agent.clock import ManualClock


@pytest.fixture(autouse=True)
def _logging_as_before():
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def written(clock):
    """Logging into a buffer; the returned function gives the lines so far as objects."""
    stream = io.StringIO()
    logs.configure(clock, stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_time_level_logger_and_fields(written):
    """What is logged can be read by a machine, and keeps Korean readable."""
    structlog.get_logger("poll").warning("fault", device="주-계량기", reason="timeout", path=Path("/dev/ttyUSB0"))
    (line,) = written()
    assert list(line) == ["ts", "level", "logger", "event", "device", "reason", "path"]
    assert line["ts"] == "2026-11-18T11:06:40.000Z"
    assert (line["level"], line["logger"], line["event"]) == ("warning", "poll", "fault")
    assert (line["device"], line["path"]) == ("주-계량기", "/dev/ttyUSB0")


def test_a_traceback_stays_inside_its_line(written):
    """An exception's traceback is a field, not twenty lines."""
    try:
        int("no good")
    except ValueError:
        structlog.get_logger("worker").exception("worker failed", worker="poll")
    (line,) = written()
    assert line["level"] == "error"
    assert line["exception"].endswith("invalid literal for int() with base 10: 'no good'")


def test_the_eleventh_repeat_in_a_minute_is_counted_instead(written, clock):
    """Ten a minute pass, the tenth says that more are muted, and the first of the next minute says how many were."""
    log = structlog.get_logger("poll")
    for _ in range(500):
        log.info("late reply", device="a")
        clock.advance(0.1)
    log.info("late reply", device="b")
    log.info("other", device="a")
    clock.advance(10)
    log.info("late reply", device="a")
    lines = written()
    assert [line["device"] for line in lines] == ["a"] * 10 + ["b", "a", "a"]
    assert [line.get("muted") for line in lines[:10]] == [None] * 9 + ["1min"]
    assert lines[-1]["repeated"] == 490


def test_what_is_remembered_of_repeats_is_bounded(written, clock):
    """A thousand and more different events do not grow the memory for ever."""
    repeats = logs.Repeats(clock)
    logger = logs.Lines("x", io.StringIO())
    for number in range(5000):
        repeats(logger, "info", {"event": f"event {number}"})
    assert len(repeats._counts) == 1000
    assert not written()


def test_libraries_are_heard_from_warnings_on_and_limited_too(written):
    """A library that floods the log is muted like everybody, whatever its messages say."""
    library = logging.getLogger("pymodbus.logging")
    library.info("not interesting")
    for number in range(100):
        library.warning("No response received after %d tries", number)
    logging.getLogger("paho").error("gone")
    lines = written()
    assert [line["library"] for line in lines] == ["pymodbus.logging"] * 10 + ["paho"]
    assert lines[0]["message"] == "No response received after 0 tries"
    assert lines[-1]["level"] == "error"


def test_a_library_that_formats_wrongly_is_still_heard(written):
    """Another's mistake in a format string costs the formatting, not the message."""
    logs._Library().emit(logging.makeLogRecord({"name": "x", "msg": "%d tries", "args": ("no",), "levelname": "ERROR"}))
    assert written()[0]["message"] == "%d tries"


def test_levels_below_the_chosen_one_are_silent(clock):
    """The level option holds for ours and for libraries."""
    stream = io.StringIO()
    logs.configure(clock, level="error", stream=stream)
    structlog.get_logger("x").warning("no")
    logging.getLogger("y").warning("no")
    structlog.get_logger("x").error("yes")
    assert len(stream.getvalue().splitlines()) == 1


def test_on_a_terminal_people_get_words(clock):
    """The pretty form has the event and its fields and is no JSON."""
    stream = io.StringIO()
    logs.configure(clock, stream=stream, pretty=True)
    structlog.get_logger("poll").info("recovered", device="main-meter")
    (line,) = stream.getvalue().splitlines()
    assert "recovered" in line
    assert "device=main-meter" in line
    assert not line.startswith("{")


def test_the_journal_gets_the_priority(clock, tmp_path, monkeypatch):
    """Connected to the journal, a line begins with its syslog priority; connected to anything else it does not."""
    with (tmp_path / "journal").open("w+") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        logs.configure(clock, stream=stream)
        structlog.get_logger("x").error("broken")
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        logs.configure(clock, stream=stream)
        structlog.get_logger("x").error("broken")
        stream.seek(0)
        first, second = stream.read().splitlines()
    assert first.startswith('<3>{"ts"')
    assert second.startswith('{"ts"')


@pytest.mark.parametrize("fate", ["full", "closed", "pipe"])
def test_a_log_that_cannot_be_written_stops_nobody(clock, fate):
    """A full disk, a closed file or a reader that went away costs the line, not the work."""
    reader, writer = os.pipe() if fate == "pipe" else (-1, os.open("/dev/full", os.O_WRONLY))
    stream = os.fdopen(writer, "w")
    if fate == "pipe":
        os.close(reader)
    elif fate == "closed":
        stream.close()
    logs.configure(clock, stream=stream, pretty=False)
    structlog.get_logger("x").error("broken")
    logging.getLogger("y").error("broken")
    with suppress(OSError):
        stream.close()


def test_lines_of_many_threads_do_not_mix(written):
    """Every thread's line arrives in one piece."""

    def talk(name):
        for number in range(200):
            structlog.get_logger("x").info(f"{name} {number}", text="x" * 200)

    threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written()) == 800


def test_a_daemon_does_not_carry_rich():
    """Logging that is not for a terminal's eyes leaves rich out, and leaves it usable for those who want it."""
    code = (
        "import sys, edge_agent.logs as logs, edge_agent.health, edge_agent.clock as clock\n"
        "logs.configure(clock.SystemClock())\n"
        "logs.structlog.get_logger('x').error('one')\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'rich'], 'rich is loaded'\n"
        "import rich.console\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["event"] == "one"
