"""Normal running, watched through the running daemon."""

import threading
from collections import defaultdict

from edge_agent.clock import SystemClock
from edge_agent.commissioning.watching import watch

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
