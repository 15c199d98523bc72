"""What an eye costs, seen from outside."""

import re
from pathlib import Path

import pytest

from drivers import opencv
from drivers.cameras.conveyor import Conveyor
from edge_agent.roster import Asked
from models import bundle, choice, keys
from models.releases import SHIPPED
from tests.stages.test_eye import watch  # noqa: F401 - a fixture

LARGEST_MB = 130
LARGEST_OWN_MB = 90  # without pages of files


@pytest.mark.parametrize("variant", ["int8-tflite", "int8-onnx"])
def test_an_eye_with_a_network_stays_small(watch, tmp_path, variant):  # noqa: F811
    """Resident memory with the shipped model of pitting, judging pictures of 1280 x 720 and keeping defects."""
    (tmp_path / "pictures").mkdir()
    line = Conveyor((1280, 720), 1.0, 0, 1)
    for number in range(3):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(opencv.encode_jpeg(line.draw(number / 3)))
    found = bundle.load(SHIPPED / "pitting", keys.trusted(tmp_path))
    choice.keep(tmp_path, "pitting", choice.Choice(sha256=found.sha256, variant=variant))
    spec = {"kind": "model", "name": "pitting", "release": None, "state_dir": str(tmp_path), "judges": "picture"}
    models = {"models": lambda: [Asked("pitting", (spec,))]}
    eye = watch("folder", _more=models, source="pictures", loop=True, every="50ms")
    eye.until(lambda: len(eye.verdicts) >= 20)
    assert eye.verdicts[-1].decided_by == f"pitting@{found.card.version}/{variant}"
    status = Path(f"/proc/{eye.child()}/status").read_text()
    resident, own = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1.024 / 1000 for name in ("VmRSS", "RssAnon"))
    assert own < LARGEST_OWN_MB
    assert resident < LARGEST_MB
