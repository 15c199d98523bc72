"""Normal running, watched through the running daemon, or found in its history."""

import json
import random
import threading
from collections import defaultdict

from edge_agent.clock import ManualClock, SystemClock
from edge_agent.commissioning.watching import watch
from edge_agent.health import Health
from edge_agent.history import MINUTE_MS
from edge_agent.spool import Spool

TEXT = """\
site: ulsan
line: press-3
state_dir: state
buses: {panel: {kind: simulated-modbus-tcp}, air: {kind: simulated-i2c}}
devices:
  main: {bus: panel, profile: eastron-sdm630, unit: 1, every: 100ms}
  cabinet: {bus: air, profile: sht31, every: 1s}
alarms:
  hot: {when: cabinet.temperature > 10 °C}
"""


def test_every_reading_is_seen_and_so_are_the_alarms(place):
    """Also those that come faster than anybody asks; of the quantities that were asked for, and no others."""
    place.config.write_text(TEXT)
    place.start()
    shown = []
    wanted = {"main": ["active_power", "voltage_l1"], "cabinet": ["temperature"]}
    seen = watch(place.folder / "state", wanted, 3.0, SystemClock(), shown.append, threading.Event())
    counts = defaultdict(int, {name: len(times) for name, (times, _) in seen.series.items()})
    assert counts.keys() == {"main.active_power", "main.voltage_l1", "cabinet.temperature"}
    assert counts["main.active_power"] > 15
    assert seen.series["main.voltage_l1"][0] == sorted(seen.series["main.voltage_l1"][0])
    assert seen.alarms == {"hot"}
    assert seen.silent == set()
    assert len(shown) > 2


def test_the_local_history_will_do(place):
    """Two days of minutes, with a gap: calibrated at one reading per minute, and what that means is said."""
    state = place.folder / "state"
    state.mkdir()
    clock = ManualClock(SystemClock().stamp().wall_ms)
    spool = Spool(state / "spool.db", clock, Health(clock), limit_bytes=1 << 24)
    spool.open()
    chance, now = random.Random(1), clock.stamp().wall_ms // MINUTE_MS
    rows = []
    for minute in range(now - 2880, now):
        if not now - 500 < minute < now - 460:
            last = 22 + chance.gauss(0, 0.1)
            body = {"temperature": [last - 1, 22.0, last + 1, last, 60], "relative_humidity": [45, 45, 45, 45, 60]}
            rows.append(("cabinet", minute, json.dumps(body)))
    spool.history(rows, 0)
    spool.close()
    done = place.call("calibrate", "line", "--history", "48h", "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["quantities"] == ["cabinet.temperature"]
    assert about["left_out"]["cabinet.relative_humidity"] == "constant"
    assert any("one reading per minute" in warning for warning in about["warnings"])
    assert any("once for 2400 s" in doubt for doubt in about["doubts"])
    assert 2700 <= about["minutes"] <= 2880
    short = place.call("calibrate", "line", "--history", "2h")
    assert (short.returncode, "too short" in short.stderr) == (3, True)
    assert "minutes are good at a reading every 60 s" in short.stderr
