"""probe finds who is there and prints what to write into the config."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drivers.registers import load_profile
from drivers.simulated.meter import MeterTwin, TwinSection
from drivers.simulated.server import ModbusTwinServer
from edge_agent.clock import SystemClock
from edge_agent.config import loads

ROOT = Path(__file__).parent.parent.parent


class Asked(dict):
    """Meters by unit that remember who was asked."""

    def get(self, unit, default=None):
        self.seen = {*getattr(self, "seen", ()), unit}
        return super().get(unit, default)


@pytest.fixture
def twins(tmp_path):
    """A server with two meters that the command line does not know of."""
    clock = SystemClock()
    meters = Asked(
        (unit, MeterTwin(load_profile(profile, tmp_path), TwinSection(), clock))
        for unit, profile in ((3, "eastron-sdm630"), (7, "carlo-gavazzi-em24-e1"))
    )
    server = ModbusTwinServer(meters, clock)
    server.meters = meters
    yield server
    server.close()


def test_units_on_a_serial_line_are_found_and_named(place, twins, tmp_path):
    """Real frames over a terminal; what is printed can be pasted and loads."""
    twins.open_pty(tmp_path / "line")
    answer = place.json("probe", "modbus", "--port", tmp_path / "line", "--units", "1-8", config=False)
    found = {each["unit"]: each["profile"] for each in answer["found"]}
    assert found == {3: "eastron-sdm630", 7: "carlo-gavazzi-em24-e1"}
    assert {each["bus"]["baudrate"] for each in answer["found"]} == {9600}
    config = loads("site: a\nline: b\n" + answer["config"], tmp_path / "config.yaml")
    assert config.devices["meter-3"].settings.unit == 3
    assert yaml.safe_load(answer["config"])["buses"]["rs485-a"]["port"] == str(tmp_path / "line")


def test_units_behind_tcp_are_found_only_when_asked(place, twins):
    """A host and port; a table for people with the reason."""
    port = twins.listen("127.0.0.1", 0)
    done = place.call(
        "probe", "modbus", "--host", f"127.0.0.1:{port}", "--units", "2,3,6-7", "--timeout", "100ms", config=False
    )
    assert done.returncode == 0, done.stderr
    assert "identity registers say" in done.stdout
    assert "meter-7: {bus: panel, profile: carlo-gavazzi-em24-e1, unit: 7}" in done.stdout


def test_a_bus_of_the_config_is_asked_with_its_settings(place):
    """Also an I2C bus: each sensor with its evidence."""
    answer = place.json("probe", "i2c", "--bus", "air")
    (found,) = answer["found"]
    assert (found["address"], found["profile"]) == ("0x44", "sht31")
    assert "checksum" in found["evidence"]


def test_nobody_there_is_said(place, twins):
    """Exit code 1, and what to look at."""
    port = twins.listen("127.0.0.1", 0)
    done = place.call(
        "probe", "modbus", "--host", f"127.0.0.1:{port}", "--units", "1", "--timeout", "50ms", config=False
    )
    assert done.returncode == 1
    assert "nobody answered" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["modbus"], 2, "--port, --host and --bus"),
        (["modbus", "--port", "/dev/ttyUSB77"], 3, "is not there"),
        (["modbus", "--port", "/dev/ttyUSB77", "--units", "0-300"], 2, "1 to 247"),
        (["modbus", "--port", "/dev/ttyUSB77", "--parity", "X"], 2, "N, E or O"),
        (["modbus", "--port", "/dev/ttyUSB77", "--units", "1-99999999999"], 2, "1 to 247"),
        (["modbus", "--port", "/dev/ttyUSB77", "--baudrate", "7"], 2, "300"),
        (["modbus", "--port", "/dev/ttyUSB77", "--timeout", "1000d"], 2, "60 s"),
        (["modbus", "--host", "127.0.0.1:x"], 2, "10.0.0.7:502"),
        (["modbus", "--host", "127.0.0.1:99999"], 2, "10.0.0.7:502"),
        (["modbus", "--bus", "air"], 2, "this asks modbus"),
        (["modbus", "--bus", "aire"], 2, "did you mean 'air'"),
        (["i2c", "--number", "77"], 3, "/dev/i2c-77"),
    ],
)
def test_what_cannot_be_asked_is_said(place, arguments, code, words):
    """Usage errors name what is right; ports that are not there say what is."""
    done = place.call("probe", *arguments, config="--bus" in arguments)
    assert done.returncode == code
    assert words in done.stderr


def test_interrupted_it_prints_what_it_found(place, twins, tmp_path, until):
    """Ctrl-C in the middle of a long scan: exit code 130, and nothing found is lost."""
    twins.open_pty(tmp_path / "line")
    arguments = ["probe", "modbus", "--port", str(tmp_path / "line"), "--timeout", "100ms"]
    command = [sys.executable, "-m", "edge_agent", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    until(lambda: 12 in getattr(twins.meters, "seen", ()))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "meter-3" in out


def test_ports_are_listed(place):
    """Whatever this computer has; never an error."""
    answer = place.json("probe", config=False)
    assert answer.keys() == {"serial", "i2c", "cameras"}
    assert place.call("probe", config=False).returncode == 0


def test_registers_of_an_unknown_meter_are_shown(place, twins, tmp_path):
    """What answers under each function, with what it may mean; one unit and one set of line settings."""
    twins.open_pty(tmp_path / "line")
    line = ("probe", "modbus", "--port", tmp_path / "line", "--scan-registers", "--units", "3")
    told = ("--baudrate", "115200", "--parity", "N", "--registers", "0-0x2F")
    answer = place.json(*line, *told, config=False)
    voltage = next(row for row in answer["registers"] if (row["fc"], row["at"]) == (4, 0))
    assert 200 < voltage["f32"] < 260
    assert "0x0000 (0)" in place.call(*line, *told, config=False).stdout
    assert place.call(*line, config=False).returncode == 2
    assert place.call(*line, *told[:4], "--registers", "5-4", config=False).returncode == 2
