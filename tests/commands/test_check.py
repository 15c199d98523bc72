"""check looks at the file, then at the world, and says what to do about everything that is wrong."""

from __future__ import annotations

import pytest
import serial

from edge_agent.commands.check import _verdict
from edge_agent.inspection.finding import FAIL, OK, Finding

WORLD = """\
site: ulsan
line: press-3
state_dir: state
mqtt: {{brokers: ["mqtt://127.0.0.1:{port}"]}}
buses:
  air: {{kind: simulated-i2c}}
  panel: {{kind: simulated-modbus-tcp}}
  rs485-a: {{kind: simulated-modbus-rtu, baudrate: 38400}}
devices:
  cabinet: {{bus: air, profile: sht31, every: 1s}}
  main-meter: {{bus: panel, profile: eastron-sdm630, unit: 1, every: 1s, twin: {{load: constant, power: 4.2 kW}}}}
  press: {{bus: rs485-a, profile: eastron-sdm120, unit: 2, every: 1s}}
cameras:
  outfeed: {{kind: simulated}}
outputs:
  light: {{kind: simulated, red: 17, green: 22}}
"""


def found(answer):
    """What → finding; the last one of each."""
    return {finding["what"]: finding for finding in answer["findings"]}


def test_a_good_world_is_read_and_shown(place, mosquitto):
    """Every wire, meter, camera, lamp, broker and the disk; one value of each meter shows that it is the right one."""
    place.config.write_text(WORLD.format(port=mosquitto.port))
    done = place.call("check")
    assert done.returncode == 0, done.stdout + done.stderr
    words = " ".join(done.stdout.split())
    for seen in (
        "60.00 Hz 4.2 kW",
        "24.0 °C",
        "judged good",
        "MQTT 5, accepted",
        "durable write",
        "0 failed",
        "room for",
    ):
        assert seen in words, done.stdout


def test_what_is_wrong_is_named_with_what_to_do(place, free_port):
    """Dead meter, absent port, black camera, broker away, secret for everybody: each with a hint, exit code 1."""
    text = WORLD.format(port=free_port)
    text = text.replace("power: 4.2 kW", "faults: [{kind: silent}]").replace(
        "kind: simulated}", "kind: simulated, faults: [{kind: black}]}"
    )
    text = text.replace("simulated-modbus-tcp", "simulated-modbus-tcp, timeout_ceiling: 300ms")
    text = text.replace("simulated-modbus-rtu,", "modbus-rtu, port: /dev/ttyUSB77,")
    text = text.replace('"]}', '"], username: a, password_file: secret}')
    place.config.write_text(text)
    (place.folder / "secret").write_text("x\n")
    (place.folder / "secret").chmod(0o644)
    answer = place.json("check", code=1)
    seen = found(answer)
    for what in ("main-meter", "press", f"broker mqtt://127.0.0.1:{free_port}", "mqtt password_file"):
        assert seen[what]["status"] == "fail", what
    assert "ttyUSB77 is not there" in next(f["detail"] for f in answer["findings"] if f["what"] == "bus rs485-a")
    assert "/dev/serial/by-id" in seen["bus rs485-a"]["hint"]
    assert "unit id" in seen["main-meter"]["hint"]
    assert seen["camera outfeed"]["detail"].endswith("black")
    assert seen["mqtt password_file"]["hint"].startswith("chmod 640")
    hints = [
        f
        for f in answer["findings"]
        if f["status"] == "fail" and not f["hint"] and not f["detail"].startswith("not asked")
    ]
    assert hints == []


def test_offline_touches_nothing(place):
    """The file alone: no port, no broker, no folder is made; the schedule is judged from the plan."""
    text = WORLD.format(port=9).replace("kind: simulated-modbus-rtu", "kind: modbus-rtu, port: /dev/ttyUSB77")
    place.config.write_text(text.replace("38400", "1000"))
    seen = found(place.json("check", "--offline"))
    assert seen["schedule rs485-a"]["status"] == "warn"
    assert "of the line's time (estimated)" in seen["schedule rs485-a"]["detail"]
    assert "every" in seen["schedule rs485-a"]["hint"]
    assert "broker" not in " ".join(seen)
    assert [path.name for path in place.folder.iterdir()] == ["config.yaml"]


def test_a_schedule_that_is_too_tight_is_measured(place, mosquitto):
    """A meter that thinks for long makes the cycle longer than its period."""
    text = WORLD.format(port=mosquitto.port).replace("load: constant, power: 4.2 kW", "latency: 600ms")
    place.config.write_text(text)
    schedule = found(place.json("check", code=1))["schedule panel"]
    assert "is longer than 1 s" in schedule["detail"]
    assert "(measured)" in schedule["detail"]
    assert "every" in schedule["hint"]


def test_a_wrong_config_is_told_before_the_world_is_touched(place):
    """Exit code 2; as JSON with line and path."""
    place.config.write_text(WORLD.format(port=9).replace("sht31", "sht331"))
    answer = place.json("check", code=2)
    (problem,) = answer["problems"]
    assert problem["line"] == 10
    assert problem["path"] == "devices.cabinet.profile"
    done = place.call("check", "--offline")
    assert done.returncode == 2
    assert "did you mean 'sht31'" in done.stderr


def test_while_the_daemon_runs_it_is_asked(place, until, mosquitto):
    """Ports that the daemon holds are not opened a second time: its answers are shown, and its faults."""
    text = WORLD.format(port=mosquitto.port)
    text = text.replace("unit: 2, every: 1s", "unit: 2, every: 500ms, twin: {faults: [{kind: silent}]}")
    place.config.write_text(text.replace("baudrate: 38400", "baudrate: 38400, timeout_ceiling: 100ms"))
    place.start()
    until(lambda: "device.press" in {fault["source"] for fault in place.ask()["faults"]})
    until(lambda: "values" in place.ask()["devices"]["main-meter"] and "values" in place.ask()["devices"]["cabinet"])
    seen = found(place.json("check", code=1))
    assert "the running daemon has it open" in seen["bus panel"]["detail"]
    assert "the daemon reads" in seen["cabinet"]["detail"]
    assert "says the running daemon" in seen["press"]["detail"]
    assert seen["camera outfeed"]["detail"] == "the running daemon has it"
    assert seen["output light"]["status"] == "ok"


def test_a_port_that_another_program_holds_names_it(place, pty_pair):
    """Who has the serial port, by name and process."""
    near, _ = pty_pair
    place.config.write_text(
        f"site: a\nline: b\nstate_dir: state\nbuses: {{rs: {{kind: modbus-rtu, port: {near}}}}}\n"
        "devices: {m: {bus: rs, profile: eastron-sdm120, unit: 1}}\n"
    )
    with serial.Serial(str(near), exclusive=True):
        seen = found(place.json("check", code=1))
    assert "is in use" in seen["bus rs"]["detail"]
    assert "process" in seen["bus rs"]["hint"]


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_shaken_hands_for_real(place, tls_mosquitto, trusted):
    """The right CA: accepted over TLS. Another: refused with what to check."""
    ca = tls_mosquitto.ca if trusted else tls_mosquitto.other_ca
    url = f"mqtts://localhost:{tls_mosquitto.port}"
    place.config.write_text(f'site: a\nline: b\nstate_dir: state\nmqtt: {{brokers: ["{url}"], ca_file: {ca}}}\n')
    seen = found(place.json("check", code=0 if trusted else 1))[f"broker {url}"]
    assert seen["status"] == ("ok" if trusted else "fail")
    assert ("TLS, MQTT 5" in seen["detail"]) == trusted
    assert ("ca_file" in seen["hint"]) != trusted


def test_exit_codes_tell_how_bad_it_is():
    """0 all good, 1 something failed, 3 nothing could be done."""
    good, bad = Finding(OK, "a", "b"), Finding(FAIL, "a", "b")
    assert [_verdict([good]), _verdict([good, bad]), _verdict([bad, bad]), _verdict([])] == [0, 1, 3, 0]


def test_help_shows_an_example(place):
    """And the exit codes."""
    text = place.call("check", "--help", config=False).stdout
    assert "Example: edge-agent check" in text
    assert "3: nothing could be done" in " ".join(text.split())


def test_a_line_on_which_nobody_answers_is_suspected_as_a_whole(place):
    """Two dead meters on one serial line: not two broken meters, but the wires."""
    text = WORLD.format(port=9).replace("baudrate: 38400", "baudrate: 38400, timeout_ceiling: 300ms")
    dead = "every: 1s, twin: {faults: [{kind: silent}]}"
    text = text.replace("unit: 2, every: 1s", f"unit: 2, {dead}")
    text = text.replace("cameras:", f"  mill: {{bus: rs485-a, profile: eastron-sdm120, unit: 3, {dead}}}\ncameras:")
    place.config.write_text(text)
    said = [f["detail"] for f in place.json("check", code=1)["findings"] if f["what"] == "bus rs485-a"]
    assert any(detail.startswith("A and B swapped? all 2 units silent") for detail in said), said
