"""A config that is broken later: the line goes on, and everybody can see what is wrong."""

from __future__ import annotations

import signal

from tests.brokers import Ear


def faults(place):
    return {fault["source"]: fault for fault in place.ask()["faults"]}


def test_a_broken_reload_keeps_the_running_config(place, until):
    """SIGHUP with a mistake: every mistake is a fault with its line, readings go on; mended, it is gone."""
    daemon = place.start()
    until(lambda: place.ask()["recorded"] > 0)
    good = place.config.read_text()
    place.config.write_text(good.replace("sht31", "sht331").replace("severity: high", "severity: hihg"))
    daemon.send_signal(signal.SIGHUP)
    fault = until(lambda: faults(place).get("config"))
    assert "config.yaml:7: devices.cabinet.profile" in fault["reason"]
    assert "did you mean 'high'" in fault["reason"]
    recorded = place.ask()["recorded"]
    until(lambda: place.ask()["recorded"] > recorded)
    place.config.write_text(good.replace("every: 1s", "every: 2s"))
    daemon.send_signal(signal.SIGHUP)
    until(lambda: "config" not in faults(place))


def test_what_a_reload_takes_away_is_no_longer_at_fault(place, until):
    """A dead meter and its bus leave the config: nobody is told of them any more."""
    good = place.config.read_text()
    dead = "  dead: {kind: modbus-tcp, host: 127.0.0.1, port: 1}\n"
    meter = "  press: {bus: dead, profile: eastron-sdm630, unit: 1}\n"
    text = good.replace("buses:\n", f"buses:\n{dead}").replace("devices:\n", f"devices:\n{meter}")
    place.config.write_text(text)
    daemon = place.start()
    until(lambda: any("dead" in source or "press" in source for source in faults(place)))
    place.config.write_text(good)
    daemon.send_signal(signal.SIGHUP)
    until(lambda: "press" not in place.ask()["devices"])
    assert faults(place) == {}
    assert place.ask()["buses"].keys() == {"air"}


def test_the_broker_is_told_of_a_new_device(place, mosquitto, until):
    """Whoever reads the retained state knows the units of a device that came with a reload."""
    good = place.config.read_text() + f'mqtt: {{brokers: ["{mosquitto.url}"]}}\n'
    place.config.write_text(good)
    with Ear(mosquitto.port) as ear:
        daemon = place.start()
        until(lambda: len(ear.of("agent")) >= 2)  # its birth, and the first look at how all fare
        place.config.write_text(
            good.replace("devices:\n", "devices:\n  roof: {bus: air, profile: bme280, every: 1s}\n")
        )
        daemon.send_signal(signal.SIGHUP)
        until(lambda: ear.of("agent")[-1].fields["devices"].get("roof", {}).get("quantities"))


def test_the_state_folder_changes_only_with_a_restart(place, until):
    """A reload that names another one is a fault, and everything stays where it is."""
    daemon = place.start()
    until(lambda: place.ask()["recorded"] > 0)
    text = place.config.read_text().replace("state_dir: state", "state_dir: elsewhere")
    place.config.write_text(text.replace("every: 1s", "every: 2s"))
    daemon.send_signal(signal.SIGHUP)
    assert "restart" in until(lambda: faults(place).get("config"))["reason"]
    recorded = place.ask()["recorded"]
    until(lambda: place.ask()["recorded"] > recorded)
    assert not (place.folder / "elsewhere").exists()


def test_a_half_written_config_starts_the_last_good_one(place, until):
    """After a power cut in the middle of writing: the last config that was started is used, and that is a fault."""
    first = place.start()
    until(lambda: place.ask()["recorded"] > 0)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    place.config.write_text(place.config.read_text()[:70])
    place.start()
    assert "config" in faults(place)
    until(lambda: place.ask()["recorded"] > 0)
    assert "last one that was good" in place.log()


def test_the_first_start_with_a_broken_config_is_refused(place):
    """No last good one: exit code 2 and every mistake."""
    place.config.write_text(place.config.read_text().replace("sht31", "sht331") + "nonsense: 1\n")
    done = place.call("run")
    assert done.returncode == 2
    assert "config.yaml:7: devices.cabinet.profile" in done.stderr
    assert "config.yaml:11: nonsense: unknown key" in done.stderr
    assert "Traceback" not in done.stderr
