"""Training itself, on tiny pictures made here: `./do pytest-train`, with the extra `train` (2 GB)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`, 2 GB: ./do pytest-train")
pytest.importorskip("litert_torch", reason="training needs the extra `train`, 2 GB: ./do pytest-train")

import torch
from ai_edge_litert.interpreter import Interpreter

from edge_agent.cli import main
from models import bundle, judge, keys, trial
from models.train import loop, networks
from tests.models.test_train_pictures import label, png

pytestmark = pytest.mark.timeout(1800)  # a busy machine learns slowly
ROOT = Path(__file__).parent.parent.parent
RECIPE = """\
name: pits
steps: 60
batch: 8
width: 12
crop: 32
shares: [0.5, 0.25, 0.25]
light: 0.3
"""


def surface(random):
    return random.normal(150, 6, (48, 64, 3)).clip(0, 255).astype(np.uint8)


def write_pits(folder, count=24):
    """Every other plate has a black pit, with its polygon."""
    random = np.random.default_rng(5)
    for k in range(count):
        image = surface(random)
        if k % 2:
            x, y = random.integers(8, 46), random.integers(8, 30)
            image[y : y + 9, x : x + 9] = 15
            label(
                folder / f"plate{k}.json",
                ("pit", "rectangle", [[float(x), float(y)], [x + 9.0, y + 9.0]]),
                size=(64, 48),
            )
        png(folder / f"plate{k}.png", image)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_pits(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_from_polygons_to_a_signed_bundle_that_finds_pits(place, capsys):
    """Both formats, signed, proved; a pit is found, and where; a report stands beside."""
    assert main(["train", "defects", "data", "-o", "pits", "--recipe", "./recipe.yaml", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["auroc"] > 0.9
    assert min(said["parity"][key] for key in ("quantised_onnx", "quantised_tflite", "runtimes_int8")) >= 0.9
    found = bundle.load(place / "pits", keys.trusted(place / "home/.local/share/edge-agent"))
    assert [file.variant for file in found.card.files] == ["int8-tflite", "int8-onnx"]
    assert "train defects" in found.card.metrics["command"]
    image = surface(np.random.default_rng(99))
    image[20:29, 40:49] = 15
    for variant in ("int8-onnx", "int8-tflite"):
        assert trial.prove(found, variant).samples
        loaded = judge.load(found, variant)
        assert all(each.dtype == "float32" for each in loaded.session.outputs)  # only the trunk is quantised
        answer = loaded.judge(image)
        assert answer.label == "defect"
        assert answer.details["at_px"] == pytest.approx([44, 24], abs=8)
    interpreter = Interpreter(model_content=found.files["int8.tflite"])
    kernels = [each for each in interpreter.get_tensor_details() if tuple(each["shape"][1:3]) == (3, 3)]
    assert kernels
    assert all(each["dtype"] == np.int8 for each in kernels)
    assert (place / "pits.html").read_text().startswith("<!doctype html>")
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_the_same_seed_gives_the_same_model(place):
    """Bit for bit, on one machine; another seed gives another."""
    hashes = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["train", "defects", "data", "-o", name, "--recipe", "./recipe.yaml", "--seed", seed]) in (0, 1)
        found = bundle.load(place / name, keys.trusted(place / "home/.local/share/edge-agent"))
        hashes.append(found.card.file("int8-onnx").sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_folds_examine_every_picture(place, capsys):
    """Each part is held out once, and the model that ships has seen all."""
    main(["train", "defects", "data", "-o", "pits.zip", "--recipe", "./recipe.yaml", "--folds", "3", "--json"])
    assert json.loads(capsys.readouterr().out)["pictures"] == 24


def test_where_defects_occur_is_learned_as_a_band():
    """A whole picture and a cut-out of it have the same likelihood in the same place; elsewhere it has none."""
    network = networks.Locator(1, 12, place=True)
    with torch.no_grad():
        network.place.copy_(torch.tensor([0.0, 0.1, 0.2, -0.3, 0.05, -0.1]))
    whole = networks.grid(8, 12)
    seen = network.likely(whole)
    assert torch.allclose(network.likely(whole[:, :, 2:6, 3:9]), seen[:, :, 2:6, 3:9])
    assert seen.std() > 1
    nowhere = whole.clone()
    nowhere[:, 2] = 0
    assert not network.likely(nowhere).any()


def test_an_answer_leans_back_to_frequent_classes():
    """By a share of the logarithm of how often each occurs; none for a prior of 0."""
    network = networks.Classifier(1, 3, 12)
    before = network.head.bias.detach().clone()
    loop.leaning(network, np.array([8, 1, 1]), 0.0)
    assert torch.equal(network.head.bias, before)
    loop.leaning(network, np.array([8, 1, 1]), 0.5)
    added = (network.head.bias - before).detach().numpy()
    assert added == pytest.approx(0.5 * np.log([0.8, 0.1, 0.1]))


def test_an_interruption_leaves_nothing(place):
    """Ctrl-C in the middle of learning: exit code 130, no bundle, no scratch."""
    command = [sys.executable, "-m", "edge_agent", "train", "defects", "data", "-o", "pits", "--epochs", "100000"]
    process = subprocess.Popen(
        [*command, "--size", "64x48"], stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    for line in process.stderr:
        if line.startswith("train"):
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130
    process.stderr.close()
    assert sorted(path.name for path in place.iterdir()) == ["data", "recipe.yaml"]
