"""Verbs that ask the running daemon: status and alarms."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest


def test_status_shows_devices_values_buffer_and_alarms(line):
    """One look: who answers, what it said last, what waits, what is wrong."""
    done = line.call("status")
    assert done.returncode == 0, done.stderr
    for words in ("ulsan/press-3", "cabinet", "online", "24.", "°C", "rows wait", "of 2.0 GiB", "hot", "air"):
        assert words in done.stdout, done.stdout


def test_status_for_machines_has_everything(line):
    """The same as JSON, with values, units and counters."""
    answer = line.json("status")
    cabinet = answer["devices"]["cabinet"]
    assert 20 < cabinet["values"]["temperature"] < 30
    assert cabinet["quantities"]["temperature"] == "°C"
    assert answer["spool"]["rows"] > 0
    assert answer["faults"] == []


def test_a_fault_makes_status_say_so(place, free_port):
    """A broker that is away stands there with since when and what to do; exit code 1."""
    place.config.write_text(place.config.read_text() + f'mqtt: {{brokers: ["mqtt://127.0.0.1:{free_port}"]}}\n')
    place.start()
    done = place.call("status")
    assert done.returncode == 1
    assert "not connected" in done.stdout
    assert "check the address, the cable and that the broker runs" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "verb", [["status"], ["alarms", "list"], ["alarms", "ack"], ["alarms", "shelve", "x", "--for", "1min"]]
)
def test_without_a_daemon_nothing_can_be_asked(place, verb):
    """Exit code 3, and how to look why."""
    done = place.call(*verb)
    assert done.returncode == 3
    assert "no daemon answers" in done.stderr
    assert "systemctl status edge-agent" in done.stderr


def test_status_works_while_the_config_is_broken(line):
    """The daemon runs on with the last good config, and can be asked."""
    good = line.config.read_text()
    line.config.write_text(good + "nonsense: 1\n")
    try:
        assert line.json("status")["line"] == "ulsan/press-3"
    finally:
        line.config.write_text(good)


def test_an_alarm_is_acknowledged_and_shelved_by_a_person(place, until):
    """list tells that something is not normal; ack and shelve say who did it, also behind sudo."""
    place.start()
    until(lambda: place.ask()["alarms"][0]["state"] != "normal")
    assert place.json("alarms", "list", code=1)["alarms"][0]["state"] == "active-unacknowledged"
    assert place.json("alarms", "ack", env={"SUDO_USER": "kim"}) == {"acknowledged": ["hot"]}
    assert place.json("alarms", "shelve", "cold", "--for", "30min", env={"SUDO_USER": "kim"}) == {"shelved": ["cold"]}
    found = {alarm["alarm"]: alarm for alarm in place.ask("alarms")["alarms"]}
    assert found["hot"]["state"] == "active-acknowledged"
    assert 1700 < found["cold"]["shelved_s"] <= 1800
    done = place.call("alarms", "list")
    assert "shelved for 30 min more" in " ".join(done.stdout.split())
    until(lambda: any('"kim"' in body for body in bodies(place, "alarm/hot")))
    until(lambda: any('"kim"' in body for body in bodies(place, "alarm/cold")))
    assert "is back from the shelf" in place.call("alarms", "shelve", "cold", "--for", "0s").stdout


def bodies(place, topic):
    """What waits for the broker under a topic."""
    with closing(sqlite3.connect(f"file:{place.folder}/state/spool.db?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT body FROM outbox WHERE topic=?", (topic,))]


def test_an_unknown_alarm_names_the_nearest(line):
    """A usage error, exit code 2."""
    done = line.call("alarms", "ack", "hott")
    assert done.returncode == 2
    assert "did you mean 'hot'" in done.stderr


def test_a_shelf_needs_its_unit(line):
    """30 is no duration."""
    done = line.call("alarms", "shelve", "hot", "--for", "30")
    assert done.returncode == 2
    assert "like 500ms, 2s or 15min" in done.stderr
