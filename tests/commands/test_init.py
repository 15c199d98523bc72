"""init asks little, and what it writes passes check."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.config import load

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def init(place):
    """init with the file of the place; ``answers``: what is typed."""
    place.config.unlink()

    def run(*arguments, answers=None):
        command = [sys.executable, "-m", "edge_agent", "init", "--output", str(place.config), *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, input=answers, capture_output=True, text=True, check=False, cwd=place.folder, env=env, timeout=60
        )

    return run


def test_plain_enter_gives_something_sensible(place, init):
    """Only Enter, to the end: a config that passes."""
    done = init(answers="\n" * 40)
    assert done.returncode == 0, done.stderr
    config = load(place.config)
    assert (config.site, config.line, config.mqtt.brokers) == ("plant", "line-1", ["mqtt://localhost:1883"])
    assert "edge-agent check --config" in done.stdout
    assert place.call("check", "--offline").returncode == 0


def test_wrong_answers_are_asked_again_with_the_nearest_word(place, init):
    """A name with a blank, a broker that is none, a profile with a slip of the finger."""
    answers = ["press shop", "press-shop", "line 1", "line-1", "http://x", "mqtts://broker-a", "", ""]
    answers += ["10.0.0.7", "eastron-sdm63", "eastron-sdm630", "300", "3", "", "", "45", "45 kW", "y"]
    done = init(answers="\n".join(answers) + "\n")
    assert done.returncode == 0, done.stderr
    for words in ("letters, digits", "mqtts://host:8883", "did you mean 'eastron-sdm630'", "1 to 247", "needs"):
        assert words in done.stderr, done.stderr
    config = load(place.config)
    assert config.devices["main-meter"].settings.unit == 3
    assert config.alarms["overload"].clear == "< 41.85 kW"
    assert "stack-light" in config.outputs


OPTIONS = {
    "meter": [
        "--meter",
        "eastron-sdm630@/dev/serial/by-id/usb-A:1",
        "--meter",
        "eastron-sdm120@/dev/serial/by-id/usb-A:2",
    ],
    "gateway": ["--meter", "schneider-pm5000@10.0.0.7:502:1", "--overload", "45 kW"],
    "sensor": ["--sensor", "sht31@1:0x45", "--sensor", "bme280"],
    "camera": ["--camera", "rtsp://10.0.0.9/1", "--stack-light"],
    "broker": ["--broker", "mqtts://a:8883", "--broker", "mqtt://b", "--username", "press-3"],
}


@pytest.mark.parametrize("chosen", [*itertools.combinations(OPTIONS, 2), tuple(set(OPTIONS) - {"gateway"}), ()])
def test_any_choice_of_options_passes(tmp_path, chosen):
    """Without a question: --defaults and what is given."""
    words = [word for name in chosen for word in OPTIONS[name]]
    assert main(["init", "--defaults", "--output", str(tmp_path / "config.yaml"), *words]) == 0
    config = load(tmp_path / "config.yaml")
    assert ("main-meter" in config.devices) == bool({"meter", "gateway"} & set(chosen))


def test_a_simulated_line_runs_at_once(place, init, until):
    """--simulated: the daemon reads all of it."""
    assert init("--defaults", "--simulated").returncode == 0
    text = place.config.read_text()
    assert "simulated-modbus-tcp" in text
    place.start()
    until(lambda: all("values" in device for device in place.ask()["devices"].values()))


def test_a_file_that_is_there_stays(place, init):
    """Without --force nothing is replaced."""
    place.config.write_text("precious\n")
    done = init("--defaults")
    assert done.returncode == 3
    assert "--force" in done.stderr
    assert place.config.read_text() == "precious\n"
    assert init("--defaults", "--force").returncode == 0
    assert load(place.config).site == "plant"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--site", "a b"], "letters, digits"),
        (["--broker", "x"], "mqtts://host:8883"),
        (["--meter", "eastron-sdm630"], "eastron-sdm630@10.0.0.7:1"),
        (["--meter", "eastron-sdm63@10.0.0.7:1"], "did you mean 'eastron-sdm630'"),
        (["--sensor", "sht331"], "did you mean 'sht31'"),
        (["--meter", "eastron-sdm630@10.0.0.7:1", "--overload", "45"], "needs"),
        (["--sensor", "sht31", "--sensor", "sht31"], "address 0x44"),
    ],
)
def test_what_cannot_be_is_a_usage_error_and_writes_nothing(place, init, arguments, words):
    """Exit code 2, and what would be right."""
    done = init("--defaults", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert list(place.folder.iterdir()) == []


def test_the_end_of_the_answers_writes_nothing(place, init):
    """Without a terminal to ask at: exit code 2, and which option asks nothing."""
    done = init(answers="plant\n")
    assert done.returncode == 2
    assert "--defaults" in done.stderr
    assert list(place.folder.iterdir()) == []
