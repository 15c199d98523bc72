"""What is delivered: the package list, the wheel's content, its dependencies, and what importing it costs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = {"edge_agent", "drivers", "models"}


def test_the_package_list_is_what_the_folders_say():
    """Every folder with Python files is listed in pyproject.toml, and nothing else."""
    folders = {
        str(path.parent.relative_to(ROOT)).replace("/", ".") for name in OURS for path in (ROOT / name).rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders


def test_every_package_is_declared_as_one():
    """No folder is a package by accident: each has its __init__.py."""
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        assert (ROOT / package.replace(".", "/") / "__init__.py").is_file(), package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in the wheel that the tree builds; in a copy, because building leaves its traces."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in OURS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "pyproject.toml", *ROOT.glob(PROJECT["project"]["readme"])):
        shutil.copy(path, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("edge_agent-*-py3-none-any.whl"))) as archive:
        return set(archive.namelist())


def test_the_wheel_has_only_our_names_at_the_top(wheel):
    """Installing the product adds three names and no more."""
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == OURS


def test_the_wheel_carries_everything_that_is_no_code(wheel):
    """Meter tables, shipped models and type markers travel with the code."""
    data = {
        str(path.relative_to(ROOT))
        for name in OURS
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc", ".md"} and "train" not in path.parts
    }
    assert any(name.startswith("drivers/meters/") for name in data)
    assert sorted(data - wheel) == [], "add them to package-data in pyproject.toml"


def test_the_wheel_has_every_module(wheel):
    """No module is forgotten."""
    modules = {str(path.relative_to(ROOT)) for name in OURS for path in (ROOT / name).rglob("*.py")}
    assert sorted(modules - wheel) == []


def test_every_dependency_is_pinned():
    """requirements.lock has an exact version of everything that pyproject.toml asks for."""
    lock = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"], *extras["demo"], *extras["dev"]]
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in asked}
    assert sorted(names - lock) == [], "run ./do lock"


def test_it_cannot_be_uploaded_by_mistake():
    """The product is no library: the index refuses it."""
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]


@pytest.mark.parametrize("module", ["edge_agent.agent", "edge_agent.commands.run"])
def test_what_no_config_asks_for_costs_nothing(module):
    """Before a config asks for it the daemon loads no array, picture, model, web, drawing, wire or network library."""
    code = f"import edge_agent.cli, {module}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"numpy", "cv2", "onnxruntime", "ai_edge_litert", "tflite_runtime", "picamera2", "gpiozero", "lgpio"}
    wires = {"paho", "pymodbus", "serial", "smbus2"}
    other = {"rich", "amqtt", "nicegui", "fastapi", "uvicorn", "scipy"}
    assert not set(done.stdout.split()) & (heavy | wires | other)


def test_without_arguments_the_script_shows_what_there_is():
    """`./do` names its commands, and refuses those that it does not know."""
    done = subprocess.run([ROOT / "do"], capture_output=True, text=True, check=True, env=os.environ)
    assert "./do demo" in done.stdout
    assert "./do test" in done.stdout
    assert subprocess.run([ROOT / "do", "nonsense"], capture_output=True, check=False).returncode == 2


def test_what_fails_while_preparing_is_not_passed_over(tmp_path):
    """An environment that could not be made complete stops the command, and the next call tries again."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "VENV": str(tmp_path / "venv")}
    for command in ("demo", "docs", "lint"):
        done = subprocess.run([ROOT / "do", command], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 1, done.stdout + done.stderr
        assert not (tmp_path / "venv").exists()
