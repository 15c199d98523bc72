"""The control socket: whoever may ask is answered, and nobody can hold it up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from edge_agent import control
from edge_agent.control import ControlServer, UnreachableError, ask
from tests.brokers import until


@pytest.fixture
def path(tmp_path):
    """A socket whose server repeats the question."""
    server = ControlServer(tmp_path / "control.sock", lambda question: {"asked": question})
    server.open()
    stop = threading.Event()
    thread = threading.Thread(target=server.body, args=(stop, lambda: None))
    thread.start()
    yield tmp_path / "control.sock"
    stop.set()
    server.close()
    thread.join(60)
    assert not thread.is_alive()


def said(path, *parts: bytes) -> bytes:
    """What comes back when these bytes are sent and no more."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(60)
        caller.connect(str(path))
        for part in parts:
            caller.sendall(part)
        caller.shutdown(socket.SHUT_WR)
        return caller.recv(1 << 20)


def test_a_question_has_its_answer(path):
    """However it arrives in pieces."""
    assert ask(path, {"ask": "status"}) == {"asked": {"ask": "status"}}
    assert said(path, b'{"as', b'k": 1}', b"\n") == b'{"ok": true, "asked": {"ask": 1}}\n'


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff\xfe", b"{" * 60_000, b'{"a":' * 10_000], ids=len)
def test_what_is_no_question_is_refused(path, line):
    """Garbage, however deep, and then the next one is served."""
    assert said(path, line, b"\n").startswith(b'{"ok": false')
    assert ask(path, {}) == {"asked": {}}


def test_a_question_without_end_is_not_kept(path):
    """What is larger than any question is cut off, and the next one is served."""
    with contextlib.suppress(OSError):  # it may hang up in the middle
        said(path, *[b"x" * 50_000] * 20)
    assert ask(path, {}) == {"asked": {}}


def test_who_says_nothing_is_answered_nothing(path):
    """It may just want to know whether anybody listens."""
    assert said(path) == b""


def test_who_never_ends_holds_up_nobody(path, monkeypatch):
    """A question that comes byte by byte for ever is given up as a whole; no worker seems stuck for it."""
    monkeypatch.setattr(control, "_PATIENCE_S", 0.3)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))

        def is_given_up() -> bool:
            try:
                caller.send(b" ")
            except OSError:
                return True
            return False

        until(is_given_up)
        assert ask(path, {"ask": 1}) == {"asked": {"ask": 1}}


def test_a_stranger_is_not_answered(path, monkeypatch):
    """Neither root, nor the daemon's own user, nor of its group."""
    monkeypatch.setattr(control, "_credentials", lambda _peer: (os.getpid(), 54321, 54321))
    with pytest.raises(UnreachableError):
        ask(path, {"ask": "status"})
