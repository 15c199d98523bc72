"""The real daemon with models: an anomaly is found and told, a model that fails costs metering nothing."""

import json
import signal
from pathlib import Path

import pytest

from edge_agent import control
from tests.brokers import Ear, Mosquitto, until
from tests.daemon import Daemon
from tests.models.lines import install
from tests.patience import lasting

MORE = f"""\
models: {{normal: {{bundle: line-normal, devices: [main], deadline: {lasting(0.3)}, trial: 10}}}}
alarms:
  unusual: {{when: normal is anomaly, severity: low}}
  blunt: {{when: normal.fallbacks > 10 %, severity: low}}
"""
LIMITS = {"main.active_power": 2000.0, "main.voltage_l1": 5.0}
FAULTY = Path(__file__).parent / "peers" / "faulty_models"


@pytest.fixture
def ear(tmp_path):
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        ear.url = broker.url
        yield ear


def daemon(tmp_path, ear, **twin):
    """Metering 20 times a second, with a twin that is as quiet as it is told to be."""
    made = Daemon(tmp_path, ear.url, more=MORE)
    text = made.config.read_text()
    made.config.write_text(text.replace("unit: 1, every: 50ms", f"unit: 1, every: 50ms, twin: {json.dumps(twin)}"))
    return made


def status(tmp_path):
    return control.ask(control.socket_path(tmp_path / "state"), {"ask": "status"})


def labels(ear):
    return [heard.fields["label"] for heard in ear.of("verdict")]


def test_an_overload_is_an_anomaly_of_the_power(tmp_path, ear):
    """Verdict with the quantity that is off, alarm at the broker; neither NumPy nor a runtime in the daemon itself."""
    install(tmp_path / "state", LIMITS)
    with daemon(tmp_path, ear, load="constant", faults=[{"kind": "overload", "at": lasting(6)}]) as line:
        until(lambda: "anomaly" in labels(ear), "an anomaly", 30)
        until(lambda: ear.of("alarm"), "an alarm")
        maps = Path(f"/proc/{line._process.pid}/maps").read_text()
    verdict = ear.of("verdict")[-1].fields
    assert verdict["off"][0]["quantity"] == "main.active_power"
    assert verdict["off"][0]["direction"] == "high"
    assert verdict["decided_by"] == "line-normal@1/int8-onnx"
    assert ear.of("alarm")[-1].fields["cause"] == "normal is anomaly"
    assert (len(verdict["model_sha256"]), verdict["latency_ms"] > 0) == (64, True)
    assert labels(ear) == ["unknown", "normal", "anomaly"]
    assert not [name for name in ("onnxruntime", "_multiarray_umath") if name in maps]


def test_a_model_that_hangs_costs_metering_nothing(tmp_path, ear, monkeypatch):
    """No reading is missing or late while its process is killed and started again; then somebody else decides."""
    fault = tmp_path / "fault.json"
    monkeypatch.setenv("FAULTY_MODELS", str(fault))
    monkeypatch.setenv("PYTHONPATH", str(FAULTY))
    install(tmp_path / "state", LIMITS)
    with daemon(tmp_path, ear, load="constant") as line:
        until(lambda: "normal" in labels(ear), "it decides", 30)
        fault.write_text('{"1": "hang"}')
        until(lambda: any(heard.fields["decided_by"] == "rule/sanity@1" for heard in ear.of("verdict")), "a rule", 60)
        until(lambda: "blunt" in [heard.topic.rpartition("/")[2] for heard in ear.of("alarm")], "its alarm", 60)
        until(lambda: status(tmp_path)["models"]["normal"]["fallbacks"] == 1, "the share of fallbacks", 30)
        counters = status(tmp_path)["counters"]
        assert line.end() == 0
    assert counters["model.normal.fallbacks"] > 0
    main = [heard.fields for heard in ear.of("telemetry") if heard.topic.endswith("/main")]
    assert not [fields for fields in main if fields["late"] or fields.get("absent")]
    assert len(main) > 100
    reasons = [heard.fields.get("reason") for heard in ear.of("verdict")]
    assert "judge-failed" in reasons


def test_a_release_is_installed_while_the_daemon_runs_and_killed_meanwhile(tmp_path, ear):
    """The candidate is on record before it is tried; whatever dies, the old or the new one decides afterwards."""
    from edge_agent.cli import main
    from models import archive, keys
    from tests.models.lines import line_files

    state = tmp_path / "state"
    install(state, LIMITS)
    packed = tmp_path / "new.zip"
    packed.write_bytes(archive.zipped(line_files(LIMITS, keys.device_key(state), version=2)))
    with daemon(tmp_path, ear, load="constant") as line:
        until(lambda: "normal" in labels(ear), "it decides", 30)
        assert main(["models", "install", str(packed), "--config", str(line.config)]) == 0
        line.send(signal.SIGKILL)
        line._process.wait()
        line.start()
        until(lambda: ear.of("verdict")[-1].fields["decided_by"].startswith("line-normal@2"), "it takes over", 30)
    record = [json.loads(each) for each in (state / "audit" / "models.jsonl").read_text().splitlines()]
    assert [each["what"] for each in record] == ["install", "offer", "promote"]
