"""``edge-agent calibrate line`` and ``calibrate model`` as people call them, without a daemon."""

import json
import math
import random

import pytest

from edge_agent.cli import main
from models import golden, trial
from tests.models.lines import install
from tests.models.test_bundle_commands import in_this_process

NORMAL_S = 1200


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    """A workstation without any config; ``run`` gives exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(trial, "prove", lambda found, variant=None, **_: in_this_process(found, variant))

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def table(path, seconds, *, begins=0, faults=None, extra=""):
    """A press: power and current go together, the bearing's temperature wanders."""
    chance = random.Random(begins)
    warm = 40.0
    lines = [f"time,power,current,bearing{extra and ',' + extra}"]
    for at in range(begins, begins + seconds):
        warm += 0.02 * (40.0 - warm) + chance.gauss(0, 0.05)
        power = 100 + 20 * math.sin(at / 5) + chance.gauss(0, 1)
        current = power / 2 + chance.gauss(0, 0.5) + (faults(at) if faults else 0.0)
        lines.append(f"{at},{power:.2f},{current:.2f},{warm:.2f}{extra and ',7.5'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def judged(place, bundle, path):
    code, out, _ = place("judge", bundle, path)
    return code, [json.loads(line) for line in out.splitlines()]


def test_from_a_table_to_verdicts_without_any_config(place, tmp_path):
    """Fit, write, judge: what goes on as it was is normal, what does not fit is found and named."""
    normal = table(tmp_path / "normal.csv", NORMAL_S)
    code, out, _ = place("calibrate", "line", "--csv", normal, "--bundle-dir", tmp_path / "out", "--json")
    about = json.loads(out)
    assert code == 0
    assert about["int8_agrees"] >= 0.995
    assert about["quantities"] == ["power", "current", "bearing"]
    later = table(tmp_path / "later.csv", 300, begins=NORMAL_S, faults=lambda at: 15.0 if at >= NORMAL_S + 200 else 0.0)
    code, lines = judged(place, tmp_path / "out", later)
    labels = [line["label"] for line in lines]
    assert (code, len(lines)) == (0, 300)
    assert set(labels[:200]) == {"normal"}, "no warming up: it goes on where the calibration ended"
    assert labels[-50:] == ["anomaly"] * 50
    last = lines[-1]
    assert last["off"][0]["quantity"] in ("current", "power")
    assert last["decided_by"] == "line-normal@1/int8-onnx"
    assert last["score"] >= last["threshold"]
    assert last["time"] == str(NORMAL_S + 299)


def test_what_is_no_normal_running_is_said_and_used_all_the_same(place, tmp_path):
    """Short, with a constant column and a gap: warned about, each in a sentence."""
    normal = table(tmp_path / "normal.csv", NORMAL_S, extra="setpoint")
    lines = normal.read_text().splitlines()
    normal.write_text("\n".join(lines[:600] + lines[660:]) + "\n")
    code, out, _ = place("calibrate", "line", "--csv", normal, "--bundle-dir", tmp_path / "out", "--json")
    about = json.loads(out)
    assert code == 0
    assert about["left_out"]["setpoint"] == "constant"
    assert any("short" in doubt for doubt in about["doubts"])
    assert any("nothing came" in doubt for doubt in about["doubts"])


def test_what_cannot_be_used_is_refused_and_nothing_is_written(place, tmp_path):
    """Half a minute, no table, no such rate: a reason each, and an exit code."""
    short = table(tmp_path / "short.csv", 30)
    for arguments, expected in (
        (["--csv", short], (3, "too short")),
        (["--csv", tmp_path / "none.csv"], (3, "cannot read")),
        (["--csv", short, "--false-alarms", "often"], (2, "is no rate")),
        (["--csv", short, "--detector", "isolation"], (2, "isolation-forest")),
    ):
        code, _, said = place("calibrate", "line", *arguments, "--bundle-dir", tmp_path / "out")
        assert (code, expected[1] in said) == (expected[0], True), said
    assert not (tmp_path / "out").exists()


def test_a_machine_that_was_off_overnight_has_a_calibration_all_the_same(place, tmp_path):
    """Half a day without any reading is told and does not count; absurd and tiny columns do not stop the rest."""
    lines = table(tmp_path / "normal.csv", NORMAL_S).read_text().splitlines()
    later = [line.split(",") for line in lines[1 + NORMAL_S // 2 :]]
    rows = lines[1 : 1 + NORMAL_S // 2] + [",".join([str(int(at) + 40_000), *rest]) for at, *rest in later]
    rows = [f"{row},{2 + index % 2}e200,{1 + index % 2}e-300" for index, row in enumerate(rows)]
    (tmp_path / "night.csv").write_text("\n".join([lines[0] + ",absurd,tiny", *rows]) + "\n")
    code, out, said = place(
        "calibrate", "line", "--csv", tmp_path / "night.csv", "--bundle-dir", tmp_path / "o", "--json"
    )
    assert code == 0, said
    about = json.loads(out)
    assert 20 <= about["minutes"] < 21
    assert set(about["quantities"]) >= {"power", "current", "bearing"}
    assert about["left_out"]["absurd"] == "has values that no machine has"
    assert any("once for 40001 s" in doubt for doubt in about["doubts"])


def test_a_folder_that_is_no_bundle_is_not_touched(place, tmp_path):
    """An earlier bundle is replaced; anything else stays."""
    normal = table(tmp_path / "normal.csv", NORMAL_S)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert place("calibrate", "line", "--csv", normal, "--bundle-dir", mine)[0] == 2
    assert (mine / "thesis.txt").read_text() == "years of work"
    for _ in range(2):
        assert place("calibrate", "line", "--csv", normal, "--bundle-dir", tmp_path / "out")[0] == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_the_extra_that_is_missing_is_named(place, tmp_path, monkeypatch):
    """A default install cannot fit; it says what to install."""
    monkeypatch.setattr("edge_agent.commands.calibrate_line.find_spec", lambda _: None)
    code, _, said = place("calibrate", "line", "--csv", tmp_path / "x.csv", "--bundle-dir", tmp_path / "out")
    assert (code, "pip install 'edge-agent[calibrate]'" in said) == (3, True)


def test_with_a_config_it_is_installed_and_can_be_undone(place, tmp_path):
    """The bundle that the config names; what it would have raised before and after; back with one command."""
    config = tmp_path / "config.yaml"
    config.write_text("site: a\nline: b\nstate_dir: state\n")
    normal = table(tmp_path / "normal.csv", NORMAL_S)
    for version in (1, 2):
        code, out, _ = place("calibrate", "line", "--csv", normal, "--json", "--config", config)
        assert (code, json.loads(out)["bundle"]) == (0, f"line-normal@{version}")
    assert {"cases", "cases_before"} <= json.loads(out).keys()
    code, out, _ = place("calibrate", "line", "--undo", "--config", config)
    assert (code, "line-normal: 1-" in out) == (0, True)
    code, _, said = place("calibrate", "line", "--undo", "--config", config)
    assert (code, "no previous release" in said) == (3, True)


@pytest.mark.parametrize("detector", ["isolation-forest", "lof"])
def test_the_baselines_come_in_the_same_bundles(place, tmp_path, detector):
    """So that anybody can compare them."""
    pytest.importorskip("skl2onnx", reason="the baselines need the extra `calibrate`")
    normal = table(tmp_path / "normal.csv", 400)
    out = tmp_path / "out"
    assert place("calibrate", "line", "--csv", normal, "--bundle-dir", out, "--detector", detector)[0] == 0
    code, lines = judged(place, out, table(tmp_path / "later.csv", 60, begins=400))
    assert (code, {line["decided_by"] for line in lines}) == (0, {"line-normal@1/fp32-onnx"})


# --- calibrate model


def measuring(times):
    """Instead of a child per variant: what it would have measured."""

    def prove(found, variant=None, threads=1, **_):
        p50_ms, same = times.get(variant) or (9.0, times[variant.replace("tflite", "onnx")][1])
        return trial.Proof(f"{found.card.name}@1/{variant}", 3, 1.0, p50_ms, 1 << 20, p50_ms, 2 * p50_ms, same)

    return prove


@pytest.mark.parametrize(
    ("times", "chosen", "why"),
    [
        ({"int8-onnx": (0.2, 1.0), "fp32-onnx": (0.6, 1.0)}, "int8-onnx", "0.2 ms on 1 thread"),
        ({"int8-onnx": (0.9, 1.0), "fp32-onnx": (0.6, 1.0)}, "fp32-onnx", "int8 is not faster here"),
        ({"int8-onnx": (0.2, 0.9), "fp32-onnx": (0.6, 1.0)}, "fp32-onnx", "int8 cannot be used here"),
        ({"int8-onnx": (0.6, 1.0), "fp32-onnx": (0.58, 1.0)}, "int8-onnx", "0.6 ms"),
    ],
)
def test_the_fastest_that_decides_as_it_should_is_used(place, tmp_path, monkeypatch, times, chosen, why):
    """int8 may be slower, or decide otherwise: then it says so and takes fp32; of equals, what the card prefers."""
    config = tmp_path / "config.yaml"
    config.write_text("site: a\nline: b\nstate_dir: state\n")
    normal = table(tmp_path / "normal.csv", NORMAL_S)
    assert place("calibrate", "line", "--csv", normal, "--config", config)[0] == 0
    monkeypatch.setattr(trial, "prove", measuring(times))
    code, out, _ = place("calibrate", "model", "line-normal", "--config", config, "--json")
    about = json.loads(out)
    assert (code, about["variant"], why in about["why"]) == (0, chosen, True)
    kept = json.loads((tmp_path / "state" / "calibration" / "model-line-normal.json").read_text())
    assert kept["variant"] == chosen
    assert {row["variant"] for row in kept["measured"]} == {"int8-onnx", "fp32-onnx", "int8-tflite", "fp32-tflite"}


def test_what_was_measured_for_another_bundle_chooses_nothing(tmp_path):
    """A new release is measured anew; until then its card decides."""
    from models.choice import Choice, chosen, keep
    from tests.models.lines import line_bundle

    state = tmp_path / "state"
    install(state, {"power": 1.0})
    found = line_bundle(state, {"power": 1.0})
    keep(state, "line-normal", Choice(sha256=found.sha256, variant="int8-onnx", threads=2))
    assert chosen(state, found).threads == 2
    keep(state, "line-normal", Choice(sha256="0" * 64, variant="int8-onnx", threads=2))
    assert chosen(state, found).threads == 1
    (state / "calibration" / "model-line-normal.json").write_text("{")
    assert chosen(state, found).threads == 1


def test_measuring_counts_wrong_decisions_instead_of_refusing(tmp_path):
    """In a real child: times of every judgement, and the share that is as it should be."""
    from tests.models.lines import line_bundle

    found = line_bundle(tmp_path, {"power": 1.0})
    proof = trial.prove(found, judgements=200)
    assert proof.same == 1.0
    assert 0 < proof.p50_ms <= proof.p95_ms
    assert golden.read(found.golden).labels.size == proof.samples
