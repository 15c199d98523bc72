"""Every verb: help with an example, machine output, exit codes, and never a traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.__main__ import run
from edge_agent.cli import VERBS, main
from edge_agent.commands.status import buffer, show
from edge_agent.control import socket_path

ROOT = Path(__file__).parent.parent.parent
GROUPS = {
    "alarms": ("list", "ack", "shelve"),
    "probe": ("modbus", "i2c"),
    "train": ("defects",),
    "outputs": ("safe",),
    "calibrate": ("meter", "sensor", "camera", "line", "model"),
    "models": ("list", "verify", "pack", "install", "rollback"),
}
EVERY = [(verb,) for verb in VERBS] + [(verb, part) for verb, parts in GROUPS.items() for part in parts]


@pytest.mark.parametrize("verb", EVERY, ids=" ".join)
def test_help_has_an_example(capsys, verb):
    """What it does in words, one line to copy, --json for machines, --config for another file."""
    assert main([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"Example: (sudo )?edge-agent " + " ".join(verb), shown), shown
    subgroups = "Commands:" in shown
    if not subgroups:
        assert "--json" in shown
        assert "--config" in shown


def test_the_overview_names_every_verb(place):
    """All verbs, each with its sentence."""
    shown = place.call("--help", config=False).stdout
    for verb in VERBS:
        assert re.search(rf"^  {verb} +[A-Z]", shown, re.MULTILINE), verb


def test_a_misspelt_verb_names_the_nearest(place):
    """Exit code 2."""
    done = place.call("chek", config=False)
    assert done.returncode == 2
    assert "did you mean 'check'" in done.stderr


@pytest.mark.parametrize("verb", ["check", "status", "run", "export"])
def test_without_a_config_it_says_how_to_get_one(place, verb):
    """Exit code 2 and what to type."""
    place.config.unlink()
    for arguments in ([verb], [verb, "--config", "no.yaml"]):
        done = place.call(*arguments, config=False)
        assert done.returncode == 2
        assert "edge-agent init" in done.stderr or "No such file" in done.stderr
        assert "Traceback" not in done.stderr


NONSENSE = [
    ("run", "--log-level", "silly"),
    ("demo", "--seconds", "soon"),
    ("demo", "--seconds", "3"),
    ("listen", "--broker", "mqtt//broker"),
    ("listen", "--seconds", "-1"),
    ("probe", "modbus"),
    ("alarms", "shelve", "overload", "--for", "long"),
    ("alarms", "shelve"),
    ("alarms", "shelve", "overload", "--for=-5min"),
    ("listen", "--broker", "mqtt://127.0.0.1:1", "--topic", "a/#/b"),
    ("listen", "--broker", "mqtt://127.0.0.1:1", "--topic", "a/b+"),
    ("listen", "--broker", "mqtt://127.0.0.1:1", "--seconds", "1e300"),
    ("export", "--from", "99999999999d"),
    ("calibrate", "sensor", "cabinet", "--reference", "24C", "--settle", "0s"),
    ("calibrate", "sensor", "cabinet", "--reference", "24C", "--valid", "1e300d"),
    ("calibrate", "sensor", "cabinet", "--reference", "1e400C"),
    ("calibrate", "line", "--csv", "x.csv", "--bundle-dir", "config.yaml"),
    ("init", "--defaults", "--output", "new.yaml", "--meter", "sdm630"),
    *[(*verb, "--nonsense") for verb in EVERY],
]


@pytest.mark.parametrize("arguments", NONSENSE, ids=" ".join)
def test_nonsense_is_a_usage_error(place, capsys, monkeypatch, arguments):
    """Exit code 2, and words instead of a traceback."""
    monkeypatch.chdir(place.folder)
    assert main(list(arguments)) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["status"], 3, "no daemon answers"),
        (["status", "--nonsense"], 2, "--nonsense"),
        (["stattus"], 2, "did you mean 'status'"),
        (["check", "--config", "no.yaml"], 2, "No such file"),
        (["demo", "--keep", "config.yaml/folder"], 3, "config.yaml/folder"),
    ],
)
def test_with_json_a_failure_is_an_object_too(place, capsys, monkeypatch, arguments, code, words):
    """One line on standard output with what people read on standard error; the same exit code."""
    monkeypatch.chdir(place.folder)
    assert main([*arguments, "--json"]) == code
    shown = capsys.readouterr()
    assert words in json.loads(shown.out)["error"]
    assert words in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["calibrate", "line", "--config", "config.yaml", "--minutes", "60"],
        ["calibrate", "sensor", "cabinet", "--config", "config.yaml", "--reference", "24C"],
    ],
    ids=lambda words: words[1],
)
def test_what_could_not_be_kept_is_not_measured_for_an_hour(place, capsys, monkeypatch, arguments):
    """A state folder that cannot be written is said before the watching begins, not after."""
    monkeypatch.chdir(place.folder)
    (place.folder / "state").write_text("a file where the folder should be")
    assert main(arguments) == 3
    assert "state" in capsys.readouterr().err


def test_the_only_camera_needs_no_name(place, capsys, monkeypatch):
    """`calibrate camera --undo` is about the bundle of the only camera that there is."""
    monkeypatch.chdir(place.folder)
    place.config.write_text("site: a\nline: b\nstate_dir: state\ncameras: {outfeed: {kind: simulated}}\n")
    assert main(["calibrate", "camera", "--undo", "--config", str(place.config)]) == 3
    assert "outfeed-good" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(place):
    """With the nearest one."""
    done = place.call("check", "--ofline")
    assert done.returncode == 2
    assert "--offline" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(place):
    """A pipe that closes early: no traceback."""
    command = f"{sys.executable} -m edge_agent version --json | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr


def test_interrupted_while_it_is_being_loaded(monkeypatch):
    """Ctrl-C in the first half second: exit code 130, no traceback."""

    class Interrupting:
        def find_spec(self, name, *_):
            if name == "edge_agent.cli":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "edge_agent.cli")
    assert run() == 130


def test_one_verb_does_not_load_the_others():
    """Asking for the version costs no tables, no models and no MQTT."""
    code = "import edge_agent.cli, sys; edge_agent.cli.main(['version', '--json']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"numpy", "cv2", "gpiozero", "smbus2", "amqtt", "paho"} & set(done.stdout.split())


@pytest.fixture
def closed(place, monkeypatch):
    """A state folder that only the service may look into, and an engineer who is not it."""
    look = os.stat
    folder = place.folder / "state"

    def refuse(path, *arguments, **more):
        if isinstance(path, str | os.PathLike) and folder in Path(path).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.chdir(place.folder)
    return folder


@pytest.mark.parametrize("arguments", [["export"], ["models", "list"]], ids=" ".join)
def test_what_is_not_allowed_is_said(closed, capsys, arguments):
    """Exit code 3, what it was, and what to do; no traceback."""
    assert main(arguments) == 3
    said = capsys.readouterr().err
    assert str(closed) in said
    assert "sudo" in said


def test_a_wrong_config_is_said_also_where_no_last_good_one_may_be_looked_for(place, closed, capsys):
    """The mistakes, not the folder."""
    place.config.write_text("site: ulsan\nstate_dir: state\n")
    assert main(["run"]) == 2
    assert "line" in capsys.readouterr().err
    assert closed.name == "state"


def test_a_folder_that_may_not_be_looked_into_fails_the_check_with_a_hint(place, capsys, monkeypatch):
    """Whoever may not write there is told to check as who may."""

    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("edge_agent.inspection.machine.tempfile.NamedTemporaryFile", refuse)
    assert main(["check", "--config", str(place.config), "--json"]) == 1
    assert "sudo -u edge-agent" in capsys.readouterr().out


def test_a_socket_that_may_not_be_looked_for_is_the_service_s(monkeypatch):
    """On a machine with the service an ordinary user is told that he may not ask, not that nobody is there."""

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setattr(Path, "exists", refuse)
    assert socket_path(Path("/var/lib/edge-agent")) == Path("/run/edge-agent/control.sock")


def test_the_buffer_is_told_in_days():
    """At the rate since the start: what waits, and how much longer an outage may last."""
    spool = {"rows": 10, "bytes": 1 << 20, "limit_bytes": 2 << 30, "written_bytes": 3600 * 2600, "volatile": False}
    spool["oldest"] = "2026-11-20T05:51:02.317Z"
    assert (
        buffer(spool, 3600)
        == "10 rows wait, the oldest since 11-20 05:51:02 UTC; 1.0 MiB of 2.0 GiB; holds 9.6 days more at today's rate"
    )
    assert "holds" not in buffer(spool, 30)
    assert "memory only" in buffer({**spool, "volatile": True}, 3600)


def test_brackets_of_others_are_shown_and_not_obeyed(capsys):
    """An error that speaks of [a, b] or [/dev/x] stands there as it is."""
    answer = {
        "line": "a/b",
        "version": "1",
        "uptime_s": 1,
        "clock": "synced",
        "broker": None,
        "buses": {},
        "devices": {},
    }
    answer["spool"] = {"rows": 0, "bytes": 0, "limit_bytes": 1, "volatile": False}
    answer["alarms"] = [
        {"alarm": "x", "severity": "low", "state": "active-acknowledged", "since": None, "cause": "[/b]"}
    ]
    answer["faults"] = [{"source": "config", "reason": "like [a, b], not [/dev/x]", "hint": "[red]", "since": None}]
    show(answer)
    shown = " ".join(capsys.readouterr().out.split())
    assert "like [a, b], not [/dev/x] → [red]" in shown
    assert "[/b]" in shown
