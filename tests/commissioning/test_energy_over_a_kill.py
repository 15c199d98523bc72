"""Energy that flows while the agent is dead: the meter goes on counting, and nothing of it is lost or doubled."""

from __future__ import annotations

import pytest

from bench.commissioning import Far, layout_of
from edge_agent.counters import used
from tests.brokers import Ear, Mosquitto, until
from tests.commissioning.far_ends import MAINS, STEADY
from tests.daemon import Daemon

CONFIG = """
site: ulsan
line: press-3
state_dir: state
mqtt: {{brokers: ["{url}"]}}
spool: {{commit_every: {commit_every}}}
buses: {{panel: {{kind: modbus-tcp, host: 127.0.0.1, port: {more}}}}}
devices:
  main: {{bus: panel, profile: carlo-gavazzi-em340, unit: 1, every: 200ms, groups: {{slow: 200ms}}}}
"""
TOLD_S, DEAD_S = 120.0, 420.0  # the meter's own time, when it is killed and when it is back


def counts(ear):
    """Every count of the meter that was heard, with what was said to it."""
    told = [message.fields for message in ear.of("telemetry")]
    return [
        (each["values"]["energy_import"], each.get("events", [])) for each in told if "energy_import" in each["values"]
    ]


def test_energy_used_while_it_was_killed_belongs_to_the_gap(tmp_path):
    """SIGKILL: an event tells what was used since the last count on the disk, and the books add up all the same."""
    with Mosquitto(tmp_path) as broker, Far() as far:
        load = MAINS | {"machine": STEADY}
        port = far.ask({"install": {"load": load, "layout": layout_of("carlo-gavazzi-em340")}})["port"]
        with Ear(broker.port) as ear, Daemon(tmp_path, broker.url, config=CONFIG, more=str(port)) as daemon:
            until(lambda: counts(ear), "a count", 30)
            assert daemon.end() == 0
            first = counts(ear)[-1][0]
            daemon.start()
            far.ask({"at": TOLD_S})
            until(lambda: counts(ear)[-1][0] > first, "a higher count", 30)
            until(lambda: daemon.waiting() == 0, "everything is confirmed", 30)
            daemon.kill()
            heard = len(counts(ear))
            before = counts(ear)[-1][0]
            far.ask({"at": DEAD_S})
            daemon.start()
            until(lambda: len(counts(ear)) > heard + 2, "counts again", 30)
            assert daemon.end() == 0
    after, events = next(each for each in counts(ear)[heard:] if each[0] > before)
    (event,) = (each for each in events if each["quantity"] == "energy_import")
    assert (event["event"], event["before"], event["amount"]) == ("energy-gap", first, pytest.approx(after - first))
    assert event["from"] < event["to"]
    assert used(before, after, [event]) == pytest.approx(after - before)
    assert after - before == pytest.approx(STEADY["watts"] * (DEAD_S - TOLD_S) / 3600, rel=0.15)
    told = [count for count, _ in counts(ear)]
    assert told == sorted(told)
