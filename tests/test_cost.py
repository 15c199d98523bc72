"""What the daemon costs, seen from outside: memory, what it loads, and what it does while hardly anything happens."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from drivers.registers import load_profile
from drivers.simulated.meter import MeterTwin, TwinSection
from drivers.simulated.server import ModbusTwinServer
from edge_agent.clock import SystemClock
from tests.brokers import Ear, Mosquitto, until
from tests.daemon import Daemon

TELEMETRY = """
site: ulsan
line: press-3
state_dir: state
mqtt: {{brokers: ["{url}"]}}
buses: {{panel: {{kind: modbus-tcp, host: 127.0.0.1, port: {more}}}}}
devices: {{main: {{bus: panel, profile: eastron-sdm630, unit: 1, every: 1s}}}}
alarms: {{overload: {{when: main.active_power > 9 MW, severity: high}}}}
"""
LARGEST_MB = 55
WATCHED_S = 3.0


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """/proc of a daemon with one meter, one alarm and a broker, some seconds after its start."""
    folder = tmp_path_factory.mktemp("cost")
    clock = SystemClock()
    meter = MeterTwin(load_profile("eastron-sdm630", folder), TwinSection(), clock)
    server = ModbusTwinServer({1: meter}, clock)
    try:
        with Mosquitto(folder) as broker, Ear(broker.port) as ear:
            port = str(server.listen("127.0.0.1", 0))
            with Daemon(folder, broker.url, config=TELEMETRY, more=port) as daemon:
                until(lambda: len(ear.of("telemetry")) >= 3, "telemetry")
                yield Path(f"/proc/{daemon.pid}")
                assert daemon.end() == 0
    finally:
        server.close()


def test_telemetry_alone_stays_small(process):
    """Resident memory, and not one page of what only cameras and models need."""
    resident = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    assert int(resident[1]) < LARGEST_MB * 1000
    mapped = (process / "maps").read_text()
    assert "python" in mapped
    for library in ("numpy", "cv2", "onnxruntime", "ai_edge_litert", "tflite", "torch", "gpiozero", "lgpio"):
        assert library not in mapped, library


def test_a_line_where_little_happens_costs_little(process):
    """One meter a second: no thread spins, and none wakes up for nothing."""
    before, began = _work(process), time.monotonic()
    time.sleep(WATCHED_S)
    spent, switches = (after - was for after, was in zip(_work(process), before, strict=True))
    watched_s = time.monotonic() - began
    assert spent / watched_s < 0.1, "share of a processor"
    assert switches / watched_s < 60, "wake-ups per second"


def _work(process: Path) -> tuple[float, int]:
    """Processor seconds and voluntary switches of all its threads so far."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    switches = sum(
        int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text())[1])
        for task in (process / "task").iterdir()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), switches
