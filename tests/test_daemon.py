"""The real daemon where the ground gives way: a thread that is stuck, names that do not resolve, no file to open."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import time

import pytest

from edge_agent.control import ask
from tests.brokers import Ear, Mosquitto, Relay, until
from tests.daemon import CONFIG, Daemon, Oracle


@pytest.fixture
def mosquitto(tmp_path):
    with Mosquitto(tmp_path) as broker:
        yield broker


WITH_A_STUCK_WORKER = """
import sys
from pathlib import Path
from edge_agent import logs
from edge_agent.clock import SystemClock
from edge_agent.commands.run import Daemon
from edge_agent.config import load
logs.configure(SystemClock())
path = Path(sys.argv[1])
daemon = Daemon(path, load(path), None)
daemon.agent.health.expect("stuck", 2.0)  # which is never heard of again
sys.exit(daemon.run())
"""


def said(ear: socket.socket, seconds: float) -> list[bytes]:
    """All that systemd was told by then."""
    found, end = [], time.monotonic() + seconds
    while True:
        ear.settimeout(max(0.05, end - time.monotonic()))
        try:
            found.append(ear.recv(4096))
        except TimeoutError:
            return found
        if time.monotonic() > end + 0.5:
            return found


def test_the_watchdog_starves_when_one_worker_is_stuck(tmp_path):
    """systemd is told nothing any more, every thread's stack is written, and meanwhile the others go on."""
    watch = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(watch["NOTIFY_SOCKET"])
        with Daemon(
            tmp_path, "mqtt://127.0.0.1:1", environment={**os.environ, **watch}, script=WITH_A_STUCK_WORKER
        ) as daemon:
            until(lambda: "stalled" in daemon.log.read_text())
            early = said(ear, 0.0)
            assert early[0].startswith(b"READY=1"), "without a broker too"
            assert b"WATCHDOG=1" in early, "it was fed while all went well"
            before = daemon.waiting()
            later = said(ear, 1.5)
            until(lambda: daemon.waiting() > before + 20, "the others go on")
            assert later, "the daemon still speaks"
            assert b"WATCHDOG=1" not in later
            assert daemon.end() == 0
    log = daemon.log.read_text()
    assert '"workers": ["stuck"]' in log
    assert log.count("Thread 0x") > 3


WITH_SLOW_NAMES = """
import socket, sys, threading
quick = socket.getaddrinfo
def slow(host, *rest, **more):
    if host == "slow.example":
        threading.Event().wait(60)
    return quick(host, *rest, **more)
socket.getaddrinfo = slow
from edge_agent.cli import main
sys.exit(main(["run", "--config", sys.argv[1]]))
"""


WITH_A_GATEWAY = CONFIG.replace("buses: {{", "buses: {{far: {{kind: modbus-tcp, host: slow.example}}, ").replace(
    "devices:", "devices:\n  away: {{bus: far, profile: eastron-sdm630, unit: 1, every: 1s}}"
)


@pytest.mark.parametrize(
    ("url", "config", "hanging"),
    [("mqtt://slow.example", CONFIG, "publish"), ("mqtt://127.0.0.1:1", WITH_A_GATEWAY, "bus.far")],
    ids=["broker", "gateway"],
)
def test_a_name_that_takes_a_minute_holds_nobody_up(tmp_path, url, config, hanging):
    """Readings are kept while the resolver hangs, and the end does not wait for it."""
    with Daemon(tmp_path, url, config=config, script=WITH_SLOW_NAMES) as daemon:
        until((tmp_path / "state" / "control.sock").exists, "it runs")
        until(lambda: daemon.waiting() > 60, "rows wait")
        began = time.monotonic()
        assert daemon.end() == 0
        assert time.monotonic() - began < 15
    stopped = [json.loads(line) for line in daemon.log.read_text().splitlines() if '"stopped"' in line]
    assert [event["hanging"] for event in stopped] == [[hanging]]
    assert daemon.waiting() == sum(daemon.numbered().values())


WITH_A_LONG_END = """
import sys, threading
from pathlib import Path
from edge_agent.commands.run import Daemon
from edge_agent.config import load
path = Path(sys.argv[1])
daemon = Daemon(path, load(path), None)
def stop():
    print("stopping", flush=True)
    threading.Event().wait(60)
    return []
def safe(act=daemon.agent.safe):
    act()
    print("lamps", daemon.agent.stage.lamps(), flush=True)
daemon.agent.stop, daemon.agent.safe = stop, safe
sys.exit(daemon.run())
"""
WITH_A_LIGHT = """
alarms: {always: {when: main.voltage_l1 > 1 V, severity: high}}
outputs: {light: {kind: simulated, red: 1, green: 2, on_exit: red}}
"""


def test_a_second_signal_cuts_the_end_short(tmp_path):
    """Somebody who asks twice is not made to wait: the outputs are safe, and it is over."""
    with Daemon(tmp_path, "mqtt://127.0.0.1:1", script=WITH_A_LONG_END, more=WITH_A_LIGHT) as daemon:
        until((tmp_path / "state" / "control.sock").exists, "it runs")
        daemon.send(signal.SIGTERM)
        until(lambda: "stopping" in daemon.log.read_text(), "it ends")
        assert daemon.end() == 130
    assert "lamps" in daemon.log.read_text()


def test_without_a_file_to_open_it_goes_on_and_comes_back(tmp_path, mosquitto):
    """No descriptor left when the broker goes: readings are kept; with room again all arrives and it can be asked."""
    with Relay(mosquitto.port) as relay, Ear(mosquitto.port) as ear, Daemon(tmp_path, relay.url) as daemon:
        oracle = Oracle(ear)
        oracle.wait_for(5)
        _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4, most))
        relay.cut()
        until(lambda: "unable to open database file" in daemon.log.read_text(), "it hurts")
        socket_path = tmp_path / "state" / "control.sock"
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(socket_path))  # and nobody can accept
            before = daemon.waiting()
            until(lambda: daemon.waiting() > before + 20, "readings are kept")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, most))
        relay.mend()
        assert ask(socket_path, {"ask": "status"})["recorded"] > 0
        until(lambda: any(message.fields["late"] for message in ear.of("telemetry")), "the backlog")
        until(lambda: daemon.waiting() < 10, "the backlog is gone")
        assert daemon.end() == 0
        until(lambda: ear.of("agent")[-1].fields["state"] == "offline")
        found = oracle.judge(daemon.numbered())
    assert found["missing"] == daemon.waiting(), "what the end left on the disk"
    assert {found[name] for name in ("invented", "unmarked", "disorder")} == {0}


NOWHERE = """
site: ulsan
line: press-3
state_dir: {more}
buses: {{air: {{kind: simulated-i2c}}}}
devices: {{cabinet: {{bus: air, profile: sht31, every: 500ms}}}}
cameras: {{outfeed: {{kind: simulated, every: 200ms, defect_every: 1}}}}
"""
ALARM = "alarms: {hot: {when: cabinet.temperature > 10 °C}}"


@pytest.mark.parametrize(
    "state_dir", ["x" * 300, "config.yaml/state", f"loop/state\n{ALARM}"], ids=["long", "file", "loop"]
)
def test_a_state_folder_that_cannot_be_keeps_nothing_from_running(tmp_path, state_dir):
    """It starts, reads and says so; rows are kept in memory."""
    (tmp_path / "loop").symlink_to("loop")
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(environment["NOTIFY_SOCKET"])
        ear.settimeout(30)
        with Daemon(tmp_path, config=NOWHERE, more=state_dir, environment=environment) as daemon:
            while not re.match(rb"STATUS=[1-9]\d* rows recorded, .*spool.disk.* at fault", ear.recv(4096)):
                pass
            assert daemon.end() == 0
    assert "Traceback" not in daemon.log.read_text()
