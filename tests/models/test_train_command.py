"""`edge-agent train defects` as people meet it: all mistakes at once, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from edge_agent.cli import main
from models.train.recipe import RECIPES, read_recipe
from tests.models.test_train_pictures import classes, jpeg, label, png


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    classes(folder, good=12, crack=10)
    return folder


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_look_at_the_pictures_changes_nothing(data, tmp_path, capsys):
    """--check says what would be learned from."""
    wrong = main(
        ["train", "defects", str(data), "-o", str(tmp_path / "b"), "--check", "--json", "--groups", r"(part\d)"]
    )
    said = json.loads(capsys.readouterr().out)
    assert wrong == 0
    assert said["classes"] == {"good": 12, "crack": 10}
    assert (said["kind"], said["parts"], said["size"]) == ("classify", 6, [48, 32])
    assert left(tmp_path) == ["data"]


def test_copies_are_told(data, tmp_path, capsys):
    """One picture twice: kept together, and said; with two labels: left out, and said."""
    (data / "good/again.jpg").write_bytes((data / "good/part0_0.jpg").read_bytes())
    (data / "crack/part9_9.jpg").write_bytes((data / "good/part1_2.jpg").read_bytes())
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b"), "--check", "--json"]) == 0
    remarks = " ".join(json.loads(capsys.readouterr().out)["remarks"])
    assert "copies, kept together" in remarks
    assert "again.jpg" in remarks
    assert "another label" in remarks


def test_all_mistakes_come_at_once(data, tmp_path, capsys):
    """Folders, files, shapes and colours in one go: exit code 2, each by name, and nothing is written."""
    for name in ("a", "b"):
        (data / f"good/{name}.jpg").write_text("no picture")
    (data / "dent").mkdir()
    jpeg(data / "lost.jpg", seed=70)
    jpeg(data / "good/wide.jpg", width=200, seed=71)
    jpeg(data / "crack/grey.jpg", colour=False, seed=72)
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b.zip"), "--good", "fine"]) == 2
    said = capsys.readouterr().err
    for name in ("good/a.jpg", "good/b.jpg", "dent", "lost.jpg", "good/wide.jpg", "crack/grey.jpg", "no fine"):
        assert name in said
    assert left(tmp_path) == ["data"]


def test_a_set_in_which_nothing_decodes_is_named_file_by_file(tmp_path, capsys):
    """Not only the first one."""
    for name in ("good/a", "good/b", "crack/c"):
        path = tmp_path / "data" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no picture")
    assert main(["train", "defects", str(tmp_path / "data"), "-o", str(tmp_path / "b"), "--check"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("a.png", "b.png", "c.png"))


@pytest.mark.parametrize("more", [[], ["--folds", "2"]])
def test_too_few_parts_are_found_before_learning(data, tmp_path, capsys, more):
    """All good pictures are of one part: nobody could be examined, and --check says so."""
    for path in (data / "good").iterdir():
        path.rename(path.with_name(f"part0_x{path.stem[-1]}.jpg"))
    for path in (data / "crack").iterdir():
        path.rename(path.with_name(f"part1_x{path.stem[-1]}.jpg"))
    groups = ["--groups", r"(part\d)"]
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b"), "--check", *groups, *more]) == 2
    assert "more parts are needed" in capsys.readouterr().err
    assert left(tmp_path) == ["data"]


def test_too_few_parts_because_of_contradictions_are_explained(data, tmp_path, capsys):
    """Every good picture is a crack as well: what was left out, and why, is said beside what is missing."""
    for path in (data / "good").iterdir():
        (data / "crack" / f"again-{path.name}").write_bytes(path.read_bytes())
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b"), "--check"]) == 2
    said = capsys.readouterr().err
    assert "has no good pictures" in said
    assert said.count("is left out: a copy has another label") == 24


def test_almost_black_pictures_are_told(data, tmp_path, capsys):
    """They are kept as they are, since pixels are scaled as the card says; somebody may have left the cap on."""
    png(data / "good/cap.png", np.full((32, 48, 3), 3, np.uint8))
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b"), "--check"]) == 0
    said = capsys.readouterr().out
    assert "almost black" in said
    assert "cap.png" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed", "-1", "--task", "guess", "--size", "50x50"], ("--seed", "--task", "--size")),
        (["--groups", "("], ("--groups", "regular expression")),
        (["--good", "fine"], ("--good", "there is no fine; there is crack, good")),
        (["--recipe", "nowhere"], ("--recipe", "pitting, thermal-modules")),
        (["--task", "locate"], ("polygons or masks",)),
        (["--name", "../mine"], ("--name", "'../mine' must be made of letters, digits, _ and -")),
        (["--epochs", "nan"], ("--epochs: must be above 0",)),
        (["--epochs", "inf"], ("--epochs: must be above 0",)),
        (["--epochs", "-1"], ("--epochs: must be above 0",)),
    ],
)
def test_options_that_do_not_fit_are_named(data, tmp_path, capsys, options, words):
    """Exit code 2, and what would fit."""
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b"), "--check", *options]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert left(tmp_path) == ["data"]


def test_nothing_is_written_over(data, tmp_path, capsys):
    """A bundle that is there stays."""
    (tmp_path / "b.zip").write_text("mine")
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b.zip")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "b.zip").read_text() == "mine"


def test_a_class_that_may_not_be_read_is_not_called_empty(data, tmp_path):
    """Somebody else's folder: the mistake is its permissions, not its pictures."""
    (data / "dent").mkdir(mode=0)
    rights = "-dac_override,-dac_read_search"
    as_anybody = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []
    train = [sys.executable, "-m", "edge_agent", "train", "defects", str(data), "-o", str(tmp_path / "b"), "--check"]
    done = subprocess.run([*as_anybody, *train], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert f"{data}/dent: the class cannot be read: not allowed" in done.stderr
    assert "no picture" not in done.stderr


def test_a_page_that_is_there_stays(data, tmp_path, capsys):
    """The report has a name that nobody typed: whose page it is, nobody knows."""
    (tmp_path / "b.html").write_text("mine")
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b.zip")]) == 2
    assert "b.html is there already" in capsys.readouterr().err
    assert left(tmp_path) == ["b.html", "data"]


def test_labels_without_pictures_are_refused(tmp_path, capsys):
    """A polygon whose picture is gone."""
    data = tmp_path / "data"
    jpeg(data / "a.jpg")
    label(data / "a.json", ("pit", "polygon", [[0, 0], [9, 0], [9, 9]]))
    label(data / "gone.json", ("pit", "polygon", [[0, 0], [9, 0], [9, 9]]))
    assert main(["train", "defects", str(data), "-o", str(tmp_path / "b"), "--check"]) == 2
    assert "gone.json: is a label without a picture" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_the_recipes_that_come_along_are_recipes(name):
    """Each reads, and says under which licence its data are."""
    recipe = read_recipe(name)
    assert recipe.name == name
    assert all(each.licence and each.source for each in recipe.data)
