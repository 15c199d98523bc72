"""Whatever a person answers: the config is right, says what was answered, and every setting is explained."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.registers import profile_names
from edge_agent.catalogue import SENSORS
from edge_agent.config import loads
from edge_agent.errors import ConfigError
from edge_agent.interview import Answers, Meter, Sensor, write
from edge_agent.plan import wire_times

FILE = Path("/plant/config.yaml")
_names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
_ports = st.sampled_from(
    ["/dev/serial/by-id/usb-FTDI_FT232R-if00-port0", "/dev/ttyAMA0", "10.0.0.7", "gateway:1502", ""]
)
_meters = st.builds(
    Meter,
    st.sampled_from(profile_names()),
    _ports,
    st.integers(1, 247),
    st.just(19200),
    st.sampled_from(["N", "E", "O"]),
)
_sensors = st.builds(Sensor, st.sampled_from(sorted(SENSORS)), st.sampled_from([1, 3, None]))
_answers = st.builds(
    Answers,
    site=_names,
    line=_names,
    brokers=st.lists(st.sampled_from(["mqtt://localhost", "mqtts://broker-a:8883"]), max_size=2, unique=True),
    username=st.none() | st.sampled_from(["press 3", "on", "12", "a: b", "#x", "é"]),
    meters=st.lists(_meters, max_size=4, unique_by=lambda meter: (meter.where, meter.unit)),
    sensors=st.lists(_sensors, max_size=2, unique_by=lambda sensor: sensor.number),
    camera=st.none()
    | st.sampled_from(["simulated", "/dev/video0", "rtsp://10.0.0.9/1", "http://cam/x.mjpg", "./pictures"]),
    overload=st.none() | st.sampled_from(["45 kW", "900 W", "1.5 MW"]),
    stack_light=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(_answers)
def test_any_answers_make_a_right_config(answers):
    """It loads, and every device, broker and camera that was answered is in it. Alarms only about what is there."""
    try:
        text = write(answers, FILE)
    except ConfigError as error:  # a meter that has no power cannot be overloaded
        assert all("has no quantity 'active_power'" in problem.message for problem in error.problems)  # noqa: PT017
        return
    config = loads(text, FILE)
    assert (config.site, config.line) == (answers.site, answers.line)
    assert len(config.devices) == len(answers.meters) + len(answers.sensors)
    assert (config.mqtt.brokers if config.mqtt else []) == answers.brokers
    assert len(config.cameras) == bool(answers.camera)
    if config.mqtt:
        assert config.mqtt.username == answers.username
    assert "# The site (ISA-95), as it stands in topics." in text


@settings(max_examples=50, deadline=None)
@given(_answers)
def test_the_same_answers_give_the_same_file(answers):
    """Nothing random: a second run can be compared with the first."""
    answers.overload = None
    assert write(answers, FILE) == write(answers, FILE)


def test_a_crowded_line_is_read_less_often():
    """Twelve big meters at 9600 baud: the period is chosen so that the line has room."""
    crowd = [Meter("eastron-sdm630", "/dev/ttyAMA0", unit) for unit in range(1, 13)]
    config = loads(write(Answers(meters=crowd), FILE), FILE)
    bus = config.buses["rs485-a"]
    share = sum(busy / period for _, _, busy, _, period in wire_times(bus, config.devices.values()))
    assert 0.1 < share < 0.6
    assert config.devices["main-meter"].settings.every > 2


def test_meters_on_one_port_share_its_bus():
    """And those behind two hosts do not."""
    meters = [Meter("eastron-sdm120", "/dev/ttyAMA0", 1), Meter("eastron-sdm230", "/dev/ttyAMA0", 2)]
    meters += [Meter("schneider-pm5000", "10.0.0.7"), Meter("schneider-pm5000", "10.0.0.8:503")]
    data = yaml.safe_load(write(Answers(meters=meters), FILE))
    assert [entry["bus"] for entry in data["devices"].values()] == ["rs485-a", "rs485-a", "panel-a", "panel-b"]
    assert data["buses"]["panel-b"]["port"] == 503
