"""A real daemon with simulated buses, and the command line as people call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import brokers
from tests.patience import SLOWNESS

ROOT = Path(__file__).parent.parent.parent
BASE = """\
site: ulsan
line: press-3
state_dir: state
buses:
  air: {kind: simulated-i2c}
devices:
  cabinet: {bus: air, profile: sht31, every: 1s}
alarms:
  hot: {when: cabinet.temperature > 10 °C, severity: high, latch: true}
  cold: {when: cabinet.temperature < -10 °C}
"""


def until(condition, seconds=60.0):
    """Wait until it holds."""
    end = time.monotonic() + seconds * SLOWNESS
    while not (found := condition()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)
    return found


class Place:
    """A folder with a config; its daemons end with the test."""

    def __init__(self, folder: Path, text: str = BASE) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(text)
        self.daemons: list[subprocess.Popen] = []

    def call(self, *arguments, config=True, env=None, timeout=60):
        """One verb, run to its end."""
        command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
        if config:
            command += ["--config", str(self.config)]
        clean = {
            name: value for name, value in os.environ.items() if name not in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY")
        }
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout * SLOWNESS,
            cwd=self.folder,
            env={**clean, "PYTHONPATH": str(ROOT), **(env or {})},
        )

    def json(self, *arguments, code=0, **more):
        """The same, understood."""
        done = self.call(*arguments, "--json", **more)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def start(self):
        """The daemon, until its control socket is there."""
        daemon = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("a"),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.daemons.append(daemon)
        until(lambda: (self.folder / "state" / "control.sock").exists() or daemon.poll() is not None)
        assert daemon.poll() is None, self.log()
        return daemon

    def ask(self, question="status"):
        """Ask the daemon directly."""
        from edge_agent.control import ask

        return ask(self.folder / "state" / "control.sock", {"ask": question})

    def log(self):
        return (self.folder / "log").read_text()

    def end(self):
        for daemon in self.daemons:
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            daemon.wait(60 * SLOWNESS)


@pytest.fixture(name="until")
def waits_until():
    """``until(condition)``."""
    return until


@pytest.fixture
def place(tmp_path):
    """An empty place with the plain config."""
    made = Place(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A running daemon that has read its sensor, shared by the tests of a file."""
    made = Place(tmp_path_factory.mktemp("line"))
    made.start()
    until(lambda: made.ask()["alarms"][0]["state"] != "normal")
    yield made
    made.end()


@pytest.fixture
def free_port():
    """A TCP port that nobody listens on."""
    return brokers.free_port()


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    """A broker, shared by the tests of a file."""
    with brokers.Mosquitto(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture(scope="module")
def tls_mosquitto(tmp_path_factory):
    """A broker with a certificate for localhost; ``ca`` signed it, ``other_ca`` did not."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "request.pem"
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "3650", "-extfile", "names", "-out", "cert.pem")  # fmt: skip
    for path in folder.iterdir():
        path.chmod(0o644)
    listener = f"listener PORT 127.0.0.1\nallow_anonymous true\ncertfile {folder}/cert.pem\nkeyfile {folder}/key.pem"
    with brokers.Mosquitto(folder, "user root", listener=listener) as broker:
        broker.ca, broker.other_ca = folder / "ca.pem", folder / "other.pem"
        yield broker


@pytest.fixture
def pty_pair(tmp_path):
    """Two ends of a serial line, made by socat."""
    ends = tmp_path / "near", tmp_path / "far"
    process = subprocess.Popen(["socat", *(f"pty,raw,echo=0,link={end}" for end in ends)])
    until(lambda: all(end.exists() for end in ends))
    yield ends
    process.terminate()
    process.wait(10 * SLOWNESS)
