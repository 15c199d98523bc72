"""From a few good parts to an alarm: `calibrate camera`, and then the real daemon with what it made."""

import pytest

from drivers import opencv
from edge_agent.cli import main
from tests.brokers import Ear, Mosquitto, until
from tests.daemon import Daemon
from tests.models.test_calibrate_camera import part, save, scratched

CONFIG = """
site: ulsan
line: press-3
state_dir: state
mqtt: {{brokers: ["{url}"]}}
spool: {{commit_every: {commit_every}}}
cameras:
  eye: {{kind: folder, source: parts, every: 50ms, model: good, open_deadline: 120s, deadline: 60s}}
models: {{good: {{bundle: eye-good}}}}
alarms: {{bad: {{when: eye is defect, severity: high}}}}
{more}
"""


@pytest.fixture
def ear(tmp_path):
    with Mosquitto(tmp_path) as broker, Ear(broker.port) as ear:
        ear.url = broker.url
        yield ear


def test_a_blemish_is_found_by_what_twelve_good_parts_taught(tmp_path, ear, monkeypatch):
    """The bundle takes over, good parts pass, a hole is a defect with its place, its picture and an alarm."""
    monkeypatch.chdir(tmp_path)
    parts = save(tmp_path / "parts", {f"{number:02}.jpg": part(number) for number in range(12)})
    line = Daemon(tmp_path, ear.url, config=CONFIG)
    assert main(["calibrate", "camera", "eye", "--frames", "12", "--config", "config.yaml", "--json"]) == 0
    with line:
        until(lambda: ear.of("verdict"), "a verdict", 120)
        (tmp_path / "new.jpg").write_bytes(opencv.encode_jpeg(scratched(200), 97))
        (tmp_path / "new.jpg").rename(parts / "99.jpg")
        until(lambda: "defect" in [heard.fields["label"] for heard in ear.of("verdict")], "a defect", 120)
        until(lambda: ear.of("alarm"), "an alarm", 60)
        bad = next(heard.fields for heard in ear.of("verdict") if heard.fields["label"] == "defect")
        until(lambda: list((tmp_path / "state/evidence/eye").glob(f"{bad['evidence']}*.jpg")), "its picture", 60)
    assert bad["decided_by"] == "eye-good@1/int8-onnx"
    assert bad["file"] == "99.jpg"
    left, top, width, height = bad["box_px"]
    assert left <= 49 <= left + width
    assert top <= 108 <= top + height
    assert {heard.fields["label"] for heard in ear.of("verdict")} == {"good", "defect"}
    assert ear.of("alarm")[0].fields["cause"] == "eye is defect"
