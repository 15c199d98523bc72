"""What systemd is told, heard at the far end of a real socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from contextlib import suppress

import pytest

from edge_agent import notify


@pytest.fixture(params=["path", "abstract"])
def ear(request, tmp_path, monkeypatch):
    """A notify socket as systemd makes it, in the file system or abstract."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edge-agent-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name[0] == "@" else name)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield lambda: listener.recv(4096).decode()


def test_each_message_is_one_datagram_of_the_protocol(ear):
    """Every call sends exactly what sd_notify(3) prescribes."""
    notify.ready("3 devices")
    notify.watchdog()
    notify.status("2 faults:\nmain-meter")
    notify.stopping()
    assert [ear() for _ in range(4)] == [
        "READY=1\nSTATUS=3 devices",
        "WATCHDOG=1",
        "STATUS=2 faults: main-meter",
        "STOPPING=1",
    ]


def test_a_newline_in_a_status_cannot_forge_another_message(ear):
    """A device name or error text stays inside its STATUS line."""
    notify.status("fine\nWATCHDOG=trigger\rMAINPID=1")
    assert ear() == "STATUS=fine WATCHDOG=trigger MAINPID=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "vsock:2:1234", "@nobody-there", "/" + "x" * 300])
def test_nobody_listening_is_no_reason_to_stop(address):
    """Without a usable notify socket the calls return and nothing is raised or printed."""
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    if address:
        environment["NOTIFY_SOCKET"] = address
    code = "from edge_agent import notify as n; n.ready('x'); n.watchdog(); n.status('\\ud800'); n.stopping()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_full_socket_does_not_block():
    """A supervisor that has stopped reading does not stop the daemon."""
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        name = f"@edge-agent-{uuid.uuid4()}"
        deaf.bind(name.replace("@", "\0", 1))
        patch.setenv("NOTIFY_SOCKET", name)
        for _ in range(5000):
            notify.watchdog()
        deaf.setblocking(False)
        heard = 0
        with suppress(BlockingIOError):
            while deaf.recv(64):
                heard += 1
        assert 0 < heard < 5000, "the queue was never full, so the test proved nothing"


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_needed(monkeypatch, environment, interval_s):
    """The interval is half of WATCHDOG_USEC, and None when the watchdog is off or meant for another process."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_interval_s() == interval_s
