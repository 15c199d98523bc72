"""The integrator's verb: what it prints, what it proves, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from edge_agent.cli import main
from edge_agent.commands import listen as listen_module
from tests.brokers import Ear, Mosquitto, free_port

TOTALS = {"messages", "readings", "missing", "duplicates", "reordered", "late"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """Shared by the tests of this file."""
    with Mosquitto(tmp_path_factory.mktemp("broker")) as made:
        yield made


@contextmanager
def line(broker, *, prefix="edge", without=()):
    """Somebody publishes one row after another, but not those ``without``."""
    stop = threading.Event()

    def publish():
        with Ear(broker.port, topic="nothing") as client:
            for seq in range(1, 10_000):
                if seq % 7 not in without:
                    row = f'{{"stream":"s","seq":{seq},"at":"2026-11-20T05:51:02.317Z","late":false,"values":{{}}}}'
                    client.publish(f"{prefix}/ulsan/press-3/telemetry/main", row.encode())
                if stop.wait(0.02):
                    return

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def test_it_proves_that_nothing_is_missing(broker, capsys):
    """Machines get exactly the totals, and each stream."""
    with line(broker):
        assert main(["listen", "--broker", broker.url, "--seconds", "0.5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == TOTALS | {"streams"}
    assert said["messages"] == said["readings"] > 5
    assert {said[name] for name in TOTALS - {"messages", "readings"}} == {0}
    assert said["streams"]["s"]["seen"] == said["messages"]


def test_what_is_missing_is_exit_code_1(broker, capsys):
    """People see every message, then the totals."""
    with line(broker, without={3}):
        assert main(["listen", "--broker", broker.url, "--seconds", "0.6"]) == 1
    *messages, totals, stream = capsys.readouterr().out.splitlines()
    assert all(message.startswith("edge/ulsan/press-3/telemetry/main ") for message in messages)
    assert json.loads(totals).keys() == TOTALS
    assert json.loads(totals)["missing"] > 0
    assert stream.startswith("stream s: seq ")


def test_by_itself_it_listens_to_what_the_config_says(broker, place, capsys):
    """The first broker, below the prefix of the site."""
    place.config.write_text(
        f'{place.config.read_text()}mqtt: {{brokers: ["{broker.url}"], topic_prefix: factory}}\n', encoding="utf-8"
    )
    with line(broker, prefix="factory"):
        main(["listen", "--config", str(place.config), "--seconds", "0.5", "--json"])
    assert json.loads(capsys.readouterr().out)["messages"] > 0


def test_interrupted_it_prints_what_it_has(broker):
    """Ctrl-C before its time: the totals, and exit code 130."""
    command = [sys.executable, "-m", "edge_agent", "listen", "--broker", broker.url, "--seconds", "60"]
    with line(broker):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert '"missing": 0' in out


def test_a_reader_that_has_seen_enough_ends_it(broker):
    """`listen | head -1` comes back by itself, without a traceback."""
    command = f"{sys.executable} -m edge_agent listen --broker {broker.url} | head -1"
    with line(broker):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.startswith("edge/")
    assert "Traceback" not in done.stderr


def test_a_refusal_is_said_at_once(tmp_path, capsys):
    """Not after a while, and not as if nobody were there."""
    with Mosquitto(tmp_path, "allow_anonymous false") as closed:
        assert main(["listen", "--broker", closed.url, "--seconds", "1"]) == 3
    assert "password" in capsys.readouterr().err


def test_a_broker_that_does_not_answer_is_exit_code_3(monkeypatch, capsys):
    """With what to look at."""
    monkeypatch.setattr(listen_module, "_PATIENCE_S", 0)
    before = set(threading.enumerate())
    assert main(["listen", "--broker", f"mqtt://127.0.0.1:{free_port()}", "--seconds", "1"]) == 3
    assert not [thread for thread in threading.enumerate() if thread not in before], "it listens on"
    assert "check the address" in capsys.readouterr().err
