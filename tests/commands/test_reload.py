"""A config that is broken later: the line goes on, and everybody can see what is wrong."""

from __future__ import annotations

import signal


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
