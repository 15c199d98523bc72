"""The real daemon is killed, paused and ended at any moment; an oracle outside counts what arrived."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.brokers import Ear, Mosquitto, Relay, until
from tests.daemon import Daemon, Oracle
from tests.patience import SLOWNESS

KILLS = 12


@pytest.fixture
def mosquitto(tmp_path):
    with Mosquitto(tmp_path) as broker:
        yield broker


def test_killed_at_random_instants_nothing_is_missing_or_invented(tmp_path, mosquitto):
    """SIGKILL under a seeded schedule: every number arrives, repeats are identical and say that they are late."""
    chance = random.Random(20261120)
    with Ear(mosquitto.port) as ear, Daemon(tmp_path, mosquitto.url) as daemon:
        oracle = Oracle(ear)
        oracle.wait_for(5)
        for kill in range(KILLS):
            time.sleep(chance.uniform(0, 0.4))
            daemon.kill()
            daemon.start()
            if kill % 3:  # every third one is killed again wherever it is, most likely while it starts
                oracle.wait_for(5)
        oracle.wait_for(20)
        assert daemon.end() == 0
        assert daemon.waiting() == 0, "what was confirmed before the end need not be sent again"
        until(lambda: ear.of("agent")[-1].fields["state"] == "offline")
        found = oracle.judge(daemon.numbered())
    assert daemon.starts == KILLS + 1
    assert found["repeats"] > 0, "the kills bit"
    assert {name: found[name] for name in ("missing", "invented", "changed", "unmarked", "disorder")} == {
        "missing": 0,
        "invented": 0,
        "changed": 0,
        "unmarked": 0,
        "disorder": 0,
    }


def test_a_kill_is_told_by_the_last_will(tmp_path, mosquitto):
    """After SIGKILL the retained state turns offline without anybody's word."""
    with Ear(mosquitto.port) as ear, Daemon(tmp_path, mosquitto.url) as daemon:
        until(lambda: ear.of("agent"))
        daemon.kill()
        until(lambda: ear.of("agent")[-1].fields["state"] == "offline")
        with Ear(mosquitto.port) as late:
            until(lambda: late.of("agent"))
            assert (late.heard[0].retain, late.heard[0].fields["state"]) == (True, "offline")


def test_terminated_everything_is_committed_and_said(tmp_path, mosquitto):
    """SIGTERM with a long commit interval: what was read last is sent too, and the last message is offline."""
    with Ear(mosquitto.port) as ear, Daemon(tmp_path, mosquitto.url, commit_every="30s") as daemon:
        until(lambda: ear.of("agent"))
        time.sleep(1.5)
        assert ear.of("telemetry") == [], "nothing is committed yet"
        assert daemon.end() == 0
        until(lambda: ear.heard[-1].fields.get("state") == "offline")
        assert len(ear.of("telemetry")) > 20
        assert not any(message.fields["late"] for message in ear.of("telemetry"))
        found = Oracle(ear).judge(daemon.numbered())
        assert (found["missing"], found["invented"], found["repeats"]) == (0, 0, 0)
        assert daemon.waiting() == 0


def test_paused_and_continued_there_is_no_burst(tmp_path, mosquitto):
    """SIGSTOP for a while, then SIGCONT: polls that were missed stay missed, and nothing else is."""
    with Ear(mosquitto.port) as ear, Daemon(tmp_path, mosquitto.url) as daemon:
        oracle = Oracle(ear)
        oracle.wait_for(10)
        daemon.send(signal.SIGSTOP)
        time.sleep(3)
        before = oracle.readings()
        daemon.send(signal.SIGCONT)
        began = time.monotonic()
        oracle.wait_for(20)
        elapsed = time.monotonic() - began
        assert daemon.end() == 0
        found = oracle.judge(daemon.numbered())
    # 35 readings a second are due; 3 s of them at once would be a hundred.
    assert oracle.readings() - before < 30 + 80 * (elapsed + 2)
    assert (found["missing"], found["invented"], found["changed"], found["unmarked"]) == (0, 0, 0, 0)


def test_the_broker_away_while_it_is_killed(tmp_path, mosquitto):
    """Killed and started again during an outage: the whole outage arrives afterwards, late, in order."""
    with Ear(mosquitto.port) as ear, Relay(mosquitto.port) as relay, Daemon(tmp_path, relay.url) as daemon:
        oracle = Oracle(ear)
        oracle.wait_for(5)
        relay.cut()
        time.sleep(0.5)
        daemon.kill()
        daemon.start()
        until(lambda: daemon.log.read_text().count('"started"') == 2, "started again")
        time.sleep(1)
        before = len(ear.heard)
        relay.mend()
        oracle.wait_for(30, 40)
        until(lambda: daemon.waiting() < 8, "the backlog is drained")
        assert daemon.end() == 0
        assert daemon.waiting() == 0
        found = oracle.judge(daemon.numbered())
        late = [m.fields["seq"] for m in ear.heard[before:] if m.fields.get("late")]
    assert len(late) > 20
    assert late == sorted(late)
    assert (found["missing"], found["invented"], found["changed"], found["unmarked"]) == (0, 0, 0, 0)


def test_started_twice_the_second_one_names_the_first(tmp_path, mosquitto):
    """Two agents on one state folder: the second ends at once and says which process has it."""
    with Ear(mosquitto.port) as ear, Daemon(tmp_path, mosquitto.url) as first:
        until(lambda: ear.of("agent"))
        second = Daemon(tmp_path, mosquitto.url)
        with second:
            assert second._process.wait(60 * SLOWNESS) != 0
        assert f"process {first._process.pid}" in second.log.read_text()
        Oracle(ear).wait_for(5)
