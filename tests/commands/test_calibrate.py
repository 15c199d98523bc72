"""calibrate as people call it: a meter examined, a sensor corrected, a table taken over, an unknown meter searched.

What needs no process of its own runs in this one, with a clock that waits for nobody: minutes beside a reference
take no time, and the simulated meters live by the same clock.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
import structlog

from edge_agent import cli
from edge_agent.clock import ManualClock
from edge_agent.commands import calibrate_meter, calibrate_sensor
from edge_agent.commissioning import record
from models.keys import trusted
from tests.commands.conftest import ROOT

WORLD = """\
site: ulsan
line: press-3
state_dir: state
buses:
  air: {kind: simulated-i2c}
  panel: {kind: simulated-modbus-tcp}
devices:
  cabinet: {bus: air, profile: sht31, every: 500ms, dew_point: true, twin: {swing: 0}}
  main-meter: {bus: panel, profile: eastron-sdm630, unit: 1, every: 1s, ct_ratio: 40, twin: {load: constant}}
"""


@pytest.fixture
def world(place):
    place.config.write_text(WORLD)
    return place


class Done(NamedTuple):
    """How a verb ended."""

    returncode: int
    stdout: str
    stderr: str


class Here:
    """The command line in this process, whose time passes at once."""

    def __init__(self, place, capsys):
        self.place, self._capsys = place, capsys

    def call(self, *arguments):
        code = cli.main([*map(str, arguments), "--config", str(self.place.config)])
        return Done(code, *self._capsys.readouterr())

    def json(self, *arguments, code=0):
        done = self.call(*arguments, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def here(world, monkeypatch, capsys):
    """``here.call("calibrate", …)``; logging is left as it was."""
    before = structlog.get_config()
    now_ms = int((time.time() - 3600) * 1000)  # it runs ahead while it waits for nobody
    for module in (calibrate_meter, calibrate_sensor):
        monkeypatch.setattr(module, "SystemClock", lambda: ManualClock(now_ms))
    monkeypatch.chdir(world.folder)
    yield Here(world, capsys)
    structlog.configure(**before)


def records(place):
    return sorted((place.folder / "state" / "calibration").glob("*.record.json"))


def test_a_good_meter_is_proven_and_recorded(world, here, monkeypatch):
    """Exit code 0, a signed record with readings, checks and who was there; the config stays as it is."""
    before = world.config.read_text()
    monkeypatch.setenv("SUDO_USER", "kim")
    done = here.call("calibrate", "meter", "main-meter", "--clamp", "l1=34.6A")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ct_ratio 40 is proven" in done.stdout
    assert "is right" in done.stdout
    (path,) = records(world)
    said = record.read(path, trusted(world.folder / "state", []))
    assert {"checks", "deviations", "config_sha256", "profile", "settings", "seconds"} <= said.keys()
    assert (said["who"], said["device"], said["good"], said["clamp_a"]) == ("kim", "main-meter", True, {"l1": 34.6})
    assert said["readings"]["voltage_l1"]["median"] == pytest.approx(218, abs=4)
    assert world.config.read_text() == before


def test_a_wrong_ratio_is_said_with_what_the_config_should_say(world, here):
    """Exit code 1."""
    world.config.write_text(WORLD.replace("ct_ratio: 40, ", "ct_ratio: 60, "))
    answer = here.json("calibrate", "meter", "--clamp", "l2=52A", code=1)
    (deviation,) = answer["deviations"]
    assert deviation["code"] == "ct-ratio"
    assert deviation["settings"]["ct_ratio"] > 60


def test_beside_the_daemon_its_readings_are_used(world, until):
    """Nobody else opens the port."""
    world.start()
    until(lambda: world.ask()["devices"]["main-meter"].get("values"))
    answer = world.json("calibrate", "meter", "main-meter", "--seconds", "3")
    assert answer["source"] == "read by the running daemon"
    assert answer["good"]


def test_a_sensor_is_corrected_and_the_daemon_takes_it_up(world, here, until):
    """Offset, expiry and uncertainty; dew point follows; undo brings it back."""
    done = here.call("calibrate", "sensor", "cabinet", "--reference", "25C", "--reference-uncertainty", "0.2C")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("before 24.00 °C, after 25.00 °C", "± 0.2 °C (k = 2)", "valid until"):
        assert words in done.stdout, done.stdout
    daemon = world.start()
    cabinet = until(lambda: (said := world.ask()["devices"]["cabinet"]).get("values") and said)
    assert cabinet["values"]["temperature"] == pytest.approx(25.0, abs=0.01)
    assert cabinet["values"]["dew_point"] == pytest.approx(12.2, abs=0.2)
    assert cabinet["calibration"]["corrections"]["temperature"]["offset"] == pytest.approx(1.0, abs=0.01)
    again = world.json("calibrate", "sensor", "cabinet", "--reference", "24.5C", "--settle", "1s")
    assert again["offset"] == pytest.approx(0.5, abs=0.01), "the daemon's correction was taken off again"
    for _ in range(2):
        assert here.call("calibrate", "sensor", "cabinet", "--undo").returncode == 0
    daemon.send_signal(signal.SIGHUP)
    until(lambda: world.ask()["devices"]["cabinet"]["values"].get("temperature") == pytest.approx(24.0, abs=0.01))
    assert here.call("calibrate", "sensor", "cabinet", "--undo").returncode == 3


def test_two_points_are_a_gain_and_an_offset(world, here):
    """The sensor is carried from one reference to the other; before and after, uncertainty and expiry are told."""
    world.config.write_text(WORLD.replace("twin: {swing: 0}", "twin: {swing: 8, period: 2h}"))
    arguments = ("--reference", "31C", "--reference2", "17C", "--reference-uncertainty", "0.1C", "--patience", "3h")
    answer = here.json("calibrate", "sensor", "cabinet", *arguments, "--settle", "10s", "--valid", "30d")
    warm, cold = answer["points"]
    assert answer["gain"] == pytest.approx(14 / (warm["mean"] - cold["mean"]), rel=1e-3)
    for point in (warm, cold):
        assert point["mean"] * answer["gain"] + answer["offset"] == pytest.approx(point["reference"], abs=1e-3)
    assert 0.1 <= answer["uncertainty"] < 0.2


def test_humidity_is_corrected_beside_temperature(world, here, until):
    """Each quantity has its own correction; the dew point follows from both."""
    assert here.call("calibrate", "sensor", "cabinet", "--reference", "25C").returncode == 0
    assert here.call("calibrate", "sensor", "cabinet", "--reference", "55%").returncode == 0
    world.start()
    values = until(lambda: world.ask()["devices"]["cabinet"].get("values"))
    assert (values["temperature"], values["relative_humidity"]) == (
        pytest.approx(25.0, abs=0.01),
        pytest.approx(55.0, abs=0.05),
    )
    assert values["dew_point"] == pytest.approx(15.3, abs=0.1)


def test_the_last_ten_calibrations_are_kept(here):
    """The oldest of them go; each that is left can be undone."""
    for tenth in range(12):
        assert here.call("calibrate", "sensor", "cabinet", "--reference", f"24.{tenth % 10}C").returncode == 0
    assert len(here.json("calibrate", "sensor", "cabinet")["calibrations"]) == 10
    for _ in range(10):
        assert here.call("calibrate", "sensor", "cabinet", "--undo").returncode == 0
    assert here.call("calibrate", "sensor", "cabinet", "--undo").returncode == 3


def test_an_expired_calibration_is_said_and_goes_on(world, here, until):
    """In status as a fault, and by the verbs as exit code 1; the values stay corrected."""
    arguments = ("calibrate", "sensor", "cabinet", "--reference", "25C", "--settle", "1s", "--valid", "10ms")
    assert here.call(*arguments).returncode == 0
    assert world.call("calibrate", "sensor", "cabinet").returncode == 1
    world.start()
    fault = until(lambda: next((f for f in world.ask()["faults"] if f["source"] == "calibration.cabinet"), None))
    assert "expired" in fault["reason"]
    assert "calibrate sensor cabinet" in fault["hint"]
    values = until(lambda: world.ask()["devices"]["cabinet"].get("values"))
    assert values["temperature"] == pytest.approx(25.0, abs=0.01)


def test_a_reference_far_away_is_no_calibration(world, here):
    """Exit code 3, and nothing is stored."""
    done = here.call("calibrate", "sensor", "cabinet", "--reference", "40C")
    assert done.returncode == 3
    assert "too far apart" in done.stderr
    assert not (world.folder / "state" / "calibration" / "cabinet.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("meter", "maim-meter"), "did you mean 'main-meter'"),
        (("meter", "cabinet"), "is no meter"),
        (("meter", "--clamp", "41A"), "like l1=41.2A"),
        (("meter", "--nameplate", "40"), "like 200/5"),
        (("sensor", "main-meter"), "is a meter"),
        (("sensor", "cabinet", "--reference", "24"), "24.3C"),
        (("sensor", "cabinet", "--reference", "1013hPa"), "measures no pressure"),
        (("meter", "--bus", "pannel"), "did you mean 'panel'"),
        (("meter", "--bus", "air"), "no Modbus bus"),
    ],
)
def test_usage_is_explained(here, arguments, words):
    """Exit code 2, and what is right."""
    done = here.call("calibrate", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in " ".join(done.stderr.split())


def test_a_table_becomes_a_profile(world, here):
    """--import writes a profile beside the table, or every mistake with its line and no file."""
    table = world.folder / "my.csv"
    table.write_text("Address,Name,Type,Unit\n0,V1,float,V\n2,V2,float,V\n4,V3,float,V\n")
    assert here.json("calibrate", "meter", "--import", table)["quantities"] == [
        "voltage_l1",
        "voltage_l2",
        "voltage_l3",
    ]
    world.config.write_text(WORLD.replace("eastron-sdm630", "./my.yaml"))
    assert here.call("check", "--offline").returncode == 0
    table.write_text("Address,Name,Type,Unit\nx,V1,float,V\n2,V2,flot,V\n")
    done = here.call("calibrate", "meter", "--import", table, "-o", "other.yaml")
    assert done.returncode == 2
    assert "my.csv:2" in done.stderr
    assert "my.csv:3" in done.stderr
    assert not (world.folder / "other.yaml").exists()


def test_an_unknown_meter_is_searched(world, here):
    """The registers of a twin are found by physics; the proposal is a profile that the config takes."""
    world.config.write_text(WORLD.replace("load: constant", "load: press-cycle, balance: [1.0, 1.1, 0.9]"))
    answer = here.json("calibrate", "meter", "--bus", "panel", "--unit", "1", "--output", "found.yaml")
    rows = answer["registers"]
    assert {name: rows[name]["at"] for name in ("voltage_l1", "current_l1", "active_power_l1")} == {
        "voltage_l1": 0, "current_l1": 6, "active_power_l1": 12,
    }  # fmt: skip
    world.config.write_text(WORLD.replace("eastron-sdm630", "./found.yaml"))
    assert here.call("check", "--offline").returncode == 0


def test_a_bus_of_the_daemon_is_not_searched(world, until):
    """Two masters on one wire would answer each other's questions."""
    world.start()
    until(lambda: "panel" in world.ask()["buses"])
    done = world.call("calibrate", "meter", "--bus", "panel", "--unit", "1")
    assert done.returncode == 3
    assert "stop" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("meter", "main-meter", "--seconds", "60"),
        ("sensor", "cabinet", "--reference", "25C"),
    ],
)
def test_ctrl_c_leaves_nothing(world, arguments):
    """Exit code 130, no record and no calibration."""
    command = [sys.executable, "-m", "edge_agent", "calibrate", *arguments, "--config", str(world.config)]
    process = subprocess.Popen(command, cwd=world.folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert not list((world.folder / "state").rglob("*.json")) if (world.folder / "state").exists() else True
