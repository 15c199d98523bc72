"""A config is right, or every mistake in it is named at once: file, line, path, and the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.config import load, loads
from edge_agent.errors import ConfigError

FILE = Path("/plant/config.yaml")
GOOD = """\
site: ulsan
line: press-3
state_dir: state
mqtt: {brokers: ["mqtt://broker-a"], password_file: secret}
buses:
  air: {kind: simulated-i2c}
  rs485-a: {kind: modbus-rtu, port: /dev/serial/by-id/usb-A, baudrate: 9600}
devices:
  cabinet: {bus: air, profile: sht31, every: 10s}
  main-meter: {bus: rs485-a, profile: eastron-sdm630, unit: 1, every: 2s, ct_ratio: 40}
cameras:
  outfeed: {kind: simulated}
alarms:
  overload: {when: main-meter.active_power > 45 kW, for: 10s, clear: "< 42 kW", severity: high}
  defect: {when: outfeed is defect}
"""
MISTAKES = """\
site: ulsan
line: press 3
mqtt:
  brokers: ["http://broker-a:8883"]
  keepalife: 15s
spool: {limit: 2 GByte, commit_every: 1, durability: powercut}
buses:
  air: {kind: simulated-i2c}
  hall: {kind: simulated-i2x}
  rs485-a: {kind: modbus-rtu, port: /dev/ttyUSB0}
  rs485-b: {kind: modbus-rtu, port: /dev/ttyUSB0, baudrate: 96}
  rs485-c: {kind: modbus-rtu, port: /dev/ttyUSB0}
  air: {kind: i2c}
devices:
  cabinet: {bus: air, profile: sht31, address: 0x44, every: 10s}
  door: {bus: air, profile: sht30, address: 0x44}
  roof: {bus: airr, profile: sht31}
  wall: {bus: air, profile: sht331, evry: 5s}
  cellar: {profile: sht31}
  meter: {bus: rs485-a, profile: eastron-sdm63, unit: 1}
  feeder: {bus: rs485-a, profile: eastron-sdm630, unit: 300}
cameras:
  outfeed: {kind: foldr}
alarms:
  hot: {when: cabinet.temprature > 10 °C, severity: hihg}
  wet: {when: cabinet.relative_humidity > 3 kW}
  odd: {when: outfeed is defekt}
  bad: {when: cabinet.temperature >> 3 °C}
  gone: {when: cabnet is offline}
alarm: {}
energy: {}
outputs:
  light: {kind: gpio, red: 17, green: 22}
  siren: {kind: relay, line: 22}
  lamp: {kind: gpoi}
"""
# What the messages must say, line by line: path, then words.
NAMED = [
    (2, "line", "letters, digits"),
    (4, "mqtt.brokers", "mqtts://host:8883"),
    (5, "mqtt.keepalife", "'keepalive'"),
    (6, "spool.limit", "2GiB"),
    (6, "spool.commit_every", "needs its unit"),
    (6, "spool.durability", "'power-cut'"),
    (9, "buses.hall.kind", "'simulated-i2c'"),
    (11, "buses.rs485-b.baudrate", "at least 300, not 96"),
    (12, "buses.rs485-c.port", "is rs485-a already"),
    (13, "buses.air", "first in line 8"),
    (16, "devices.door", "door and cabinet both have address 0x44"),
    (17, "devices.roof.bus", "'air'"),
    (18, "devices.wall.evry", "'every'"),
    (18, "devices.wall.profile", "'sht31'"),
    (19, "devices.cellar", "bus is missing"),
    (20, "devices.meter.profile", "'eastron-sdm630'"),
    (21, "devices.feeder.unit", "at most 247, not 300"),
    (23, "cameras.outfeed.kind", "'folder'"),
    (25, "alarms.hot.when", "'temperature'"),
    (25, "alarms.hot.severity", "'high'"),
    (26, "alarms.wet.when", "does not fit"),
    (27, "alarms.odd.when", "'defect'"),
    (28, "alarms.bad.when", "column 22"),
    (29, "alarms.gone.when", "'cabinet'"),
    (30, "alarm", "'alarms'"),
    (31, "energy", "not part of this version"),
    (34, "outputs.siren.line", "line 22 is light's already"),
    (35, "outputs.lamp.kind", "'gpio'"),
]


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, FILE)
    return [str(problem) for problem in caught.value.problems]


def test_a_right_config_is_read_with_everything_that_it_names():
    """Relative paths are relative to the file, units are in base units, rules are parsed."""
    config = loads(GOOD, FILE)
    assert config.state_dir == Path("/plant/state")
    assert config.mqtt.password_file == Path("/plant/secret")
    assert config.devices["main-meter"].periods["default"] == 2.0
    assert config.alarms["overload"].on_delay == 10.0
    assert config.rules.keys() == {"overload", "defect"}


def test_every_mistake_is_named_at_once():
    """Twenty-eight mistakes: each with file, line, path and the nearest right word, and nothing else is said."""
    found = problems(MISTAKES)
    for line, path, words in NAMED:
        mine = [problem for problem in found if problem.startswith(f"{FILE}:{line}: {path}: ")]
        assert any(words in problem for problem in mine), f"{line} {path} {words!r} in {found}"
    assert len(found) == len(NAMED), found


BEHIND = """site: ulsan
line: press-3
buses:
  rs485-a: {kind: modbus-rtu, port: /dev/ttyUSB0, parity: X}
devices:
  meter: {bus: rs485-a, profile: eastron-sdm63, unit: 300}
  feeder: {bus: rs485-a, profile: eastron-sdm630, unit: 1}
alarms:
  hot: {when: feeder.active_powr > 3 kW}
  far: {when: feeder.active_power > 3 V}
  thd: {when: feeder.frequency < 49 Hz, severity: low}
"""


def test_a_mistake_hides_none_behind_it():
    """What stands on a bus that is wrong is still read, and so are the alarms about it."""
    found = "\n".join(problems(BEHIND))
    for line in (
        "4: buses.rs485-a.parity: must be 'N', 'E' or 'O'",
        "6: devices.meter.profile: there is no profile 'eastron-sdm63'",
        "6: devices.meter.unit: must be at most 247",
        "9: alarms.hot.when: 'feeder' has no quantity 'active_powr'",
        "10: alarms.far.when: active_power is in",
    ):
        assert f":{line}" in found, found
    assert len(found.splitlines()) == 5, found


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("site: a\nline: [1, 2\n", "config.yaml:3: is not YAML, column 1"),
        ("site: a\n\tline: b\n", "config.yaml:2: is not YAML, column 1"),
        ("site: a\nline: b: c\n", "config.yaml:2: is not YAML, column 8"),
        ("site: a\nbuses: {x: {kind: i2c}\n", "config.yaml:3: is not YAML"),
        ("site: @a\n", "config.yaml:1: is not YAML, column 7"),
    ],
)
def test_a_mistake_of_syntax_has_its_line_and_column(text, where):
    """What is not YAML is said once, with its place and what is probably meant."""
    (problem,) = problems(text)
    assert where in problem
    assert ";" in problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        "text",
        "site: a\nline: b\nbuses: 3\ndevices: [1]\nalarms: {x: 3, y: }",
        "? [a]\n: b\n",
        "site: a\nline: b\nbuses: {1: {kind: i2c}, a: {kind: [i2c]}, b: {kind: {}}}\n",
        "site: a\nline: b\nbuses: {a: {kind: i2c}}\ndevices: {x: {bus: [1]}, y: {bus: {}}, z: {bus: a, profile: 3}}\n",
        'site: a\nline: b\nbuses: {a: {kind: i2c}}\ndevices: {x: {bus: a, profile: "./\\0.yaml", address: .nan}}\n',
        "site: a\nline: b\nbuses: {a: {kind: i2c}}\ndevices: {x: {bus: a, profile: [], twin: {faults: x}}}\n",
        "a: &a [*a]\n",
        "a: !!python/object:os.system {}\n",
        "[" * 1000,
        "a: " * 500,
        "{" * 100_000,
    ],
)
def test_nothing_crashes_it(text):
    """Whatever stands in the file: it is a mistake with a line, never a traceback."""
    assert problems(text)


def read_or_refused(text: str) -> list[int]:
    """The lines of the mistakes; none for a right config."""
    try:
        loads(text, FILE)
    except ConfigError as error:
        return [problem.line for problem in error.problems] or [0]
    return []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
@example("\0")
@example("site: \ud800")
def test_any_text_is_a_config_or_a_mistake(text):
    """Any text at all: every mistake has its line."""
    assert 0 not in read_or_refused(text)


_words = st.sampled_from(sorted({*GOOD.replace("{", " ").replace("}", " ").split(), "0x44", "1e999", "-1", "on", "~"}))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 40), _words)
def test_a_damaged_config_is_a_config_or_a_mistake(at, cut, word):
    """A right config with something cut out and another word put in its place."""
    assert 0 not in read_or_refused(GOOD[:at] + word + GOOD[at + cut :])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(GOOD) - 1))
def test_a_half_written_file_never_crashes(length):
    """Whatever of a config a power cut left behind."""
    assert 0 not in read_or_refused(GOOD[:length])


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    """No file, a folder, and bytes that are no text."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00s")
    for path, words in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "directory"), (binary, "UTF-8")):
        with pytest.raises(ConfigError, match=words):
            load(path)


def test_a_schedule_that_cannot_be_kept_is_refused():
    """Two big meters every second at 1200 baud: the line would need more time than there is."""
    devices = "".join(f"  m{n}: {{bus: rs, profile: eastron-sdm630, unit: {n}, every: 1s}}\n" for n in (1, 2))
    text = f"site: a\nline: b\nbuses:\n  rs: {{kind: modbus-rtu, port: /dev/x, baudrate: BAUD}}\ndevices:\n{devices}"
    (problem,) = problems(text.replace("BAUD", "1200"))
    assert "config.yaml:4: buses.rs: cannot be done" in problem
    assert "of the line's time at 1200 baud" in problem
    assert loads(text.replace("BAUD", "9600"), FILE)


def test_a_rule_sees_what_the_device_publishes():
    """A meter turned round publishes what it exports as import, and one that is cut down has only what is left."""
    text = GOOD.replace("ct_ratio: 40", "quantities: [frequency]")
    assert "'main-meter' has no quantity 'active_power'" in "".join(problems(text))


MODELS = GOOD.replace("outfeed: {kind: simulated}", "outfeed: {kind: simulated, model: MODEL}").replace(
    "alarms:\n", "models:\n  pitting: {bundle: pitting}\n  normal: {bundle: line-normal, DEVICES}\nalarms:\n"
)


def with_models(model="pitting", devices="devices: [main-meter, cabinet]", alarm="normal is anomaly"):
    text = MODELS.replace("MODEL", model).replace("DEVICES", devices)
    return f"{text}  unusual: {{when: {alarm}}}\n"


def test_models_are_named_where_they_judge():
    """A camera has one or several; a model with devices may be the subject of an alarm. No bundle need be there."""
    config = loads(with_models(), FILE)
    assert config.cameras["outfeed"].settings.model == ("pitting",)
    assert config.models["normal"].devices == ("main-meter", "cabinet")
    assert loads(with_models(model="[pitting, pitting]"), FILE).cameras["outfeed"].settings.model[1] == "pitting"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"model": "piting"}, "cameras.outfeed.model: 'piting' is no model of this file — did you mean 'pitting'?"),
        ({"model": "normal"}, "cameras.outfeed.model: 'normal' judges devices, not pictures"),
        ({"devices": "devices: [main-metre]"}, "'main-metre' is no device of this file — did you mean 'main-meter'"),
        ({"devices": "devices: [cabinet], dedline: 1s"}, "did you mean 'deadline'"),
        ({"alarm": "normal is defect"}, "'normal' is never 'defect'"),
        ({"alarm": "pitting is defect"}, "'pitting' is no device, camera or model"),
    ],
)
def test_a_model_that_does_not_fit_is_named(how, said):
    """Cameras, devices, keys and labels, each with the nearest right word."""
    assert any(said in problem for problem in problems(with_models(**how)))


def test_a_model_with_devices_has_a_name_of_its_own():
    """Or an alarm could mean either."""
    text = with_models(alarm="cabinet is anomaly").replace("normal:", "cabinet:")
    assert any("models.cabinet: cabinet is a device already" in problem for problem in problems(text))
