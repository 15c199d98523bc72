"""The floors of the house: imports only go down, one library has one door, time is passed in.

When a test here names your module, either the module stands on the wrong floor or a table below needs a line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("edge_agent", "drivers", "models")

# From the ground up. A module may import modules of its own floor and of any floor below.
# `package.*` means everything in that package.
FLOORS: list[tuple[str, ...]] = [
    ("edge_agent", "edge_agent.clock", "edge_agent.errors", "edge_agent.memory", "edge_agent.whole"),
    ("edge_agent.vocabulary", "edge_agent.psychrometrics"),
    ("edge_agent.settings", "edge_agent.camera_settings", "edge_agent.document", "edge_agent.declarations"),
    ("edge_agent.contracts",),
    ("edge_agent.schedule", "edge_agent.health"),
    ("edge_agent.catalogue",),
    (
        "edge_agent.worker",
        "edge_agent.database",
        "edge_agent.outbox",
        "edge_agent.rescue",
        "edge_agent.history",
        "edge_agent.spool",
        "edge_agent.ledger",
        "edge_agent.eviction",
        "edge_agent.parking",
        "edge_agent.reader",
        "edge_agent.room",
        "edge_agent.conditions",
        "edge_agent.rules",
        "edge_agent.lamps",
        "edge_agent.panel",
        "edge_agent.alarms",
        "edge_agent.annunciator",
        "edge_agent.payload",
        "edge_agent.readable",
        "edge_agent.mqtt",
        "edge_agent.broker",
        "edge_agent.flight",
        "edge_agent.lane",
        "edge_agent.receipts",
        "edge_agent.steadiness",
        "edge_agent.completeness",
        "edge_agent.listener",
        "edge_agent.counters",
        "edge_agent.bus_health",
        "edge_agent.bus_watch",
        "edge_agent.plausibility",
        "edge_agent.tap",
        "edge_agent.evidence",
        "edge_agent.evidence_folder",
        "edge_agent.evidence_index",
        "edge_agent.triggers",
        "edge_agent.shifts",
        "edge_agent.relabelling",
        "edge_agent.training_set",
        "edge_agent.eye_link",
        "edge_agent.mark",
        "edge_agent.child",
        "edge_agent.minder",
        "edge_agent.roster",
        "edge_agent.grabber",
        "edge_agent.calibration",
        "edge_agent.commissioning.finding",
        "edge_agent.commissioning.physics",
        "edge_agent.commissioning.angles",
        "edge_agent.commissioning.wiring",
        "edge_agent.commissioning.ratio",
        "edge_agent.commissioning.settling",
        "edge_agent.notify",
        "edge_agent.logs",
    ),
    ("edge_agent.stages.*", "drivers.*", "models.*"),
    ("edge_agent.config", "edge_agent.plan", "edge_agent.sharing"),
    (
        "edge_agent.agent",
        "edge_agent.corrections",
        "edge_agent.line",
        "edge_agent.parts",
        "edge_agent.report",
        "edge_agent.control",
        "edge_agent.remote",
        "edge_agent.deciders",
        "edge_agent.oddities",
        "edge_agent.deciding",
        "edge_agent.judging_process",
        "edge_agent.eye_process",
        "edge_agent.looking",
        "edge_agent.judge_process",
    ),
    ("edge_agent.demo.*",),
    (
        "edge_agent.inspection.*",
        "edge_agent.commissioning.*",
        "edge_agent.sample",
        "edge_agent.interview",
        "edge_agent.reference",
    ),
    ("edge_agent.commands.*",),
    ("edge_agent.cli", "edge_agent.__main__"),
]
# Neighbours on one floor who never import each other.
NEIGHBOURS = ("edge_agent.stages", "drivers", "models")
# What a driver or a model may know of the daemon; everything else reaches it through contracts.
SPEECH = {
    f"edge_agent.{name}"
    for name in (
        "vocabulary",
        "psychrometrics",
        "errors",
        "clock",
        "contracts",
        "settings",
        "camera_settings",
        "document",
        "declarations",
        "schedule",
        "health",
        "catalogue",
    )
}

# One hardware, network or model library, one importing file: it joins every way that library fails into our errors.
DOORS: dict[str, set[str]] = {
    "pymodbus": {"drivers/modbus.py"},
    "serial": {"drivers/modbus_transport.py"},
    "smbus2": {"drivers/i2c.py"},
    "gpiozero": {"drivers/gpio_lines.py"},
    "lgpio": {"drivers/gpio_lines.py"},
    "cv2": {"drivers/opencv.py"},
    "picamera2": {"drivers/cameras/csi.py"},
    "paho": {"edge_agent/mqtt.py"},
    "onnxruntime": {"models/onnx_session.py", "models/train/exported.py"},
    "torch": {f"models/train/{name}.py" for name in ("augment", "exported", "loop", "networks")},
    "sklearn": {"models/train/graphs.py"},
    "skl2onnx": {"models/train/graphs.py"},
    "ai_edge_litert": {"models/tflite_session.py"},
    "tflite_runtime": {"models/tflite_session.py"},
    "amqtt": {"edge_agent/demo/broker.py"},
}

# Who may ask the machine for the time or sleep, and why.
TIME_TELLERS = {"edge_agent/clock.py": "it is the clock"}
TIMES = {
    "time": {"time", "time_ns", "sleep", "localtime", "gmtime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}

# Who may catch Exception, and why.
CATCH_ALL = {
    "edge_agent/judging_process.py": "a process that fails in an unforeseen way is started again",
    "edge_agent/deciding.py": "a candidate that fails in any way is not good enough",
    "edge_agent/stages/alarm_record.py": "a record that fails must not stop the light",
    "models/chain.py": "a judge that fails in any way leaves it to the next",
    "models/onnx_session.py": "the runtime's errors have no other parent",
    "models/tflite_session.py": "the runtime raises whatever it likes, SystemError among them",
    "edge_agent/worker.py": "a stage that fails in an unforeseen way is restarted and leaves the rest alone",
    "edge_agent/cli.py": "the command line's own usage errors have no public type; everything else goes on",
}

LONGEST = 300  # lines of a file

EMPTY_WORDS = {"util", "utils", "helper", "helpers", "manager", "handler", "base", "common", "misc", "lib"}


def _modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()
each_module = pytest.mark.parametrize("module", sorted(MODULES))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), filename=str(MODULES[module]))


def _file(module: str) -> str:
    return str(MODULES[module].relative_to(ROOT))


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _imported(module: str) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in the file, also inside functions, with its line."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_file(module)}:{node.lineno}: write the whole name, not a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in MODULES else str(node.module)), node.lineno


def _ours(module: str) -> list[tuple[str, int]]:
    return [(name, line) for name, line in _imported(module) if name.split(".")[0] in PACKAGES]


def _floor(module: str) -> int:
    for number, names in enumerate(FLOORS):
        if any(_inside(module, name[:-2]) if name.endswith(".*") else module == name for name in names):
            return number
    pytest.fail(f"{module} has no floor yet: give it a line in FLOORS of tests/test_floors.py")


@each_module
def test_imports_only_go_down(module):
    """A module imports only its own floor and the floors below."""
    for name, line in _ours(module):
        assert _floor(name) <= _floor(module), f"{_file(module)}:{line} looks up to {name}"


@each_module
def test_neighbours_do_not_know_each_other(module):
    """Stages, drivers and models meet only through contracts and the catalogue."""
    home = next((package for package in NEIGHBOURS if _inside(module, package)), None)
    for name, line in _ours(module):
        other = next((package for package in NEIGHBOURS if _inside(name, package)), home)
        assert home is None or other == home, f"{_file(module)}:{line}: {home} imports {name}"


@each_module
def test_drivers_and_models_speak_only_our_language(module):
    """A driver or model knows the words and the contracts of the daemon, nothing of its insides."""
    if not (_inside(module, "drivers") or _inside(module, "models")):
        return
    for name, line in _ours(module):
        assert not _inside(name, "edge_agent") or name in SPEECH, f"{_file(module)}:{line} imports {name}"


def test_imports_make_no_circle():
    """No module imports itself by a detour."""
    state: dict[str, str] = {}

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != "open", "circle: " + " → ".join((*trail, module))
        if module in state:
            return
        state[module] = "open"
        for name, _ in _ours(module):
            if name in MODULES and name != module:
                walk(name, (*trail, module))
        state[module] = "done"

    for module in MODULES:
        walk(module, ())


def test_the_package_itself_imports_nothing():
    """Importing edge_agent costs nothing: what is not configured is not loaded."""
    assert not list(_imported("edge_agent"))


@pytest.mark.parametrize("library", sorted(DOORS))
def test_one_library_has_one_door(library):
    """Only the library's own file imports it."""
    importers = {
        _file(module) for module in MODULES if any(name.split(".")[0] == library for name, _ in _imported(module))
    }
    assert importers <= DOORS[library], f"{library} belongs into {DOORS[library]} (or DOORS needs another line)"


@each_module
def test_time_is_passed_in(module):
    """Nobody but the clock asks the machine for the time, and nobody sleeps where a stop could not wake him."""
    if _file(module) in TIME_TELLERS:
        return
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            assert node.attr not in TIMES.get(owner, ()), (
                f"{_file(module)}:{node.lineno}: {owner}.{node.attr}: pass a Clock"
            )
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            names = {alias.name for alias in node.names} & TIMES["time"]
            assert not names, f"{_file(module)}:{node.lineno}: from time import {names}: pass a Clock"


@each_module
def test_only_supervisors_catch_everything(module):
    """An `except Exception` hides mistakes, so only those who restart others may have one."""
    if _file(module) in CATCH_ALL:
        return
    for node in ast.walk(_tree(module)):
        caught: list[ast.expr] = []
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{_file(module)}:{node.lineno}: bare except"
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                continue  # it cleans up and lets the error pass
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = node.args
        for kind in caught:
            everything = ast.unparse(kind) in ("Exception", "BaseException")
            assert not everything, f"{_file(module)}:{node.lineno}: name what may fail (or give a reason in CATCH_ALL)"


@each_module
def test_a_file_is_named_after_what_it_holds(module):
    """No drawer for odds and ends."""
    assert not set(MODULES[module].stem.split("_")) & EMPTY_WORDS, f"{_file(module)} has a name that says nothing"


@each_module
def test_a_file_can_be_read_at_one_sitting(module):
    """A file that grows too long holds two things."""
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= LONGEST, f"{_file(module)} has {lines} lines"


def test_the_tables_name_only_what_is_there():
    """An exception whose file is gone, or that is no longer needed, goes too."""
    for table in (TIME_TELLERS, CATCH_ALL):
        assert not [name for name in table if not (ROOT / name).is_file()]


def test_the_checks_bite(tmp_path, monkeypatch):
    """A module that breaks the rules is caught by each of them."""
    bad = tmp_path / "drivers" / "utils.py"
    bad.parent.mkdir()
    bad.write_text(
        "import time\nfrom models import card\nimport edge_agent.config\nimport paho.mqtt\n"
        "try:\n    time.sleep(1)\nexcept Exception:\n    pass\n" + "\n" * 300
    )
    monkeypatch.setitem(MODULES, "drivers.utils", bad)
    monkeypatch.setattr("pathlib.Path.relative_to", lambda path, *_: path)
    for check in (
        test_imports_only_go_down,
        test_neighbours_do_not_know_each_other,
        test_drivers_and_models_speak_only_our_language,
        test_time_is_passed_in,
        test_only_supervisors_catch_everything,
        test_a_file_is_named_after_what_it_holds,
        test_a_file_can_be_read_at_one_sitting,
    ):
        with pytest.raises(AssertionError):
            check("drivers.utils")
    with pytest.raises(AssertionError):
        test_one_library_has_one_door("paho")
