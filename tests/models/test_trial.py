"""The first load of a bundle can only hurt a process of its own."""

import signal
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ModelError
from models import bundle, onnx_guard, trial
from models.bundle import Bundle, digest
from models.card import read_card
from tests.models.building import (
    TRUSTED,
    TensorProto,
    bundle_files,
    bundle_of,
    card,
    golden_of,
    helper,
    model_of,
    numpy_helper,
    one_node,
    pixel_onnx,
    value,
    with_tensor,
    with_tflite,
)

SLOW = {"deadline_s": 60.0}


def unchecked(model, **changes):
    """A bundle that names this model and was never verified, as if a guard had missed something."""
    made = bundle_files(card(**changes), {"pixel.onnx": model})
    return Bundle(read_card(made["card.yaml"]), made, digest(made))


@pytest.mark.parametrize("variant", [None, "int8-tflite"])
def test_a_good_bundle_proves_itself(variant):
    """What it costs here is measured on the way."""
    says, models = with_tflite()
    proof = trial.prove(bundle.verify(bundle_files(says, models), TRUSTED), variant, **SLOW)

    assert proof.decided_by == f"pixel@1/{variant or 'fp32-onnx'}"
    assert proof.samples == 3
    assert proof.load_ms > 0
    assert proof.judge_ms > 0
    assert proof.rss_bytes > 1 << 20


def test_wrong_decisions_are_told_as_they_are():
    """The reason crosses the border of the process."""
    wrong = bundle.verify(bundle_files(golden_data=golden_of(labels=("good", "good", "good"))), TRUSTED)

    with pytest.raises(ModelError, match="golden sample 2 of 3 is good, it says defect"):
        trial.prove(wrong, **SLOW)


def endless():
    """A loop that runs for as long as a 64-bit counter lasts."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["v_next"])],
        "body",
        [value("i", (), TensorProto.INT64), value("go", (), TensorProto.BOOL), value("v", (1, 2))],
        [value("go_on", (), TensorProto.BOOL), value("v_next", (1, 2))],
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Slice", ["flat", "from", "to", "axis"], ["two"]),
        helper.make_node("Loop", ["most", "true", "two"], ["y"], body=inner),
    ]
    constants = [
        numpy_helper.from_array(np.array([0]), "from"),
        numpy_helper.from_array(np.array([2]), "to"),
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array(2**62), "most"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    graph = helper.make_graph(nodes, "endless", [value("x", (1, 3, 1, 1))], [value("y", (1, 2))], constants)
    return model_of(graph).SerializeToString()


def test_a_model_that_hangs_is_given_up():
    """An endless loop passes every guard; the deadline ends it."""
    onnx_guard.check(endless())

    with pytest.raises(ModelError, match=r"hangs|SIG"):
        trial.prove(unchecked(endless()), deadline_s=3.0)


def hungry():
    """Sixteen gigabytes out of two numbers."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Slice", ["flat", "from", "to", "axis"], ["two"]),
        helper.make_node("Add", ["two", "sum"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1 << 32]), "size"),
        numpy_helper.from_array(np.array([0]), "from"),
        numpy_helper.from_array(np.array([2]), "to"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    graph = helper.make_graph(nodes, "hungry", [value("x", (1, 3, 1, 1))], [value("y", (1, 2))], constants)
    return model_of(graph).SerializeToString()


def test_a_model_that_wants_all_memory_gets_none():
    """The limit is on the process, and what comes out is a refusal."""
    with pytest.raises(ModelError):
        trial.prove(unchecked(hungry()), **SLOW)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGFPE, signal.SIGKILL])
def test_a_crash_is_named(monkeypatch, tmp_path, number):
    """A model that crashes its runtime ends a child, and the parent says how."""
    dying = tmp_path / "dying"
    dying.write_text(f"#!/bin/sh\nkill -{int(number)} $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(dying))

    with pytest.raises(ModelError, match=f"crashes.*{number.name}"):
        trial.prove(bundle_of())


@pytest.mark.parametrize("says", ["", "nonsense", "[1]", '{"a": 1}', '{"refused": '])
def test_what_a_child_says_is_not_believed(monkeypatch, tmp_path, says):
    """A taken-over child cannot prove anything by nonsense."""
    lying = tmp_path / "lying"
    lying.write_text(f"#!/bin/sh\nprintf '%s' '{says}'\nexit 3\n")
    lying.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(lying))

    with pytest.raises(ModelError, match="status 3"):
        trial.prove(bundle_of())


def test_no_process_is_an_error_of_ours(monkeypatch):
    """A machine that cannot start one refuses the bundle, and goes on."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")

    with pytest.raises(ModelError, match="can be started"):
        trial.prove(bundle_of())


def test_the_child_runs_this_code_wherever_it_is_started(monkeypatch, tmp_path):
    """A folder named models in the working directory is not run."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "trial.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)

    assert trial.prove(bundle_of(), **SLOW).samples == 3


def test_nothing_stays_behind():
    """Neither files nor descriptors."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ModelError):
        trial.prove(unchecked(b"rubbish"), **SLOW)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def context_elsewhere():
    """A node that ONNX Runtime may read from another file: a compiled model, by its path."""
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0, ep_cache_context=b"/etc/passwd", main_context=1
    )
    made = model_of(helper.make_graph([node], "context", [value("x", (1, 3, 1, 1))], [value("y", (1, 2))]))
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made.SerializeToString()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (context_elsewhere, "ONNX Runtime refuses the model"),
        (lambda: one_node("Evil", shape=(1, 3, 1, 1)), "ONNX Runtime refuses the model"),
        (lambda: pixel_onnx(weights=np.full((2, 3), np.nan, np.float32)), "'y' is not a number"),
        (lambda: pixel_onnx(shape=(1, 3, 1 << 31, 1 << 31)), "ONNX Runtime refuses the model"),
        (lambda: with_tensor(lambda tensor: tensor.dims.__setitem__(0, 1 << 40)), "ONNX Runtime refuses the model"),
    ],
)
def test_what_passes_every_guard_fails_where_it_hurts_nobody(model, message):
    """Files named by nodes, operators from elsewhere, NaN weights, sizes that overflow or are not there."""
    with pytest.raises(ModelError, match=message):
        trial.prove(unchecked(model()), **SLOW)
