"""Models behind a camera: who decides, who is left out, who takes over."""

import json

import pytest

from edge_agent.clock import SystemClock
from edge_agent.deciders import asked_of, settling
from edge_agent.health import Health
from edge_agent.settings import ModelSection
from models import bundle, keys
from models.library import Library
from tests.models.building import bundle_files, card, golden_of
from tests.stages.test_eye import watch  # noqa: F401 - a fixture
from tests.stages.test_judge import Config


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def install(state, version=1, *, name="pixel", offer=False, threshold=0.999):
    """A model that finds every part good, or with threshold 0 none."""
    state.mkdir(exist_ok=True)
    says = card(name=name, version=version, threshold={"value": threshold, "set_for": "a test"})
    labels = ("defect" if threshold == 0 else "good",) * 3
    files = bundle_files(says, golden_data=golden_of(labels), key=keys.device_key(state))
    library = Library(state, SystemClock())
    change = library.offer if offer else library.install
    change(bundle.verify(files, keys.trusted(state)), lambda _: None, who="test", why="a test")


@pytest.fixture
def eye(watch, state, tmp_path):  # noqa: F811
    """A simulated camera with models."""

    def start(*models, **settings):
        config = Config(state, {name: ModelSection(bundle=name, trial=10) for name in models})
        clock = SystemClock()
        more = {"models": asked_of(config, models), "settle": settling(config, clock, Health(clock))}
        return watch(_folder=tmp_path, _more=more, **{"every": "20ms", **settings})

    return start


def by(seen, who):
    return lambda: any(who in verdict.decided_by for verdict in seen.verdicts)


def test_the_model_decides_about_pictures(eye, state):
    """The bundle that is installed, with its hash; the rule is not asked."""
    install(state)
    seen = eye("pixel")
    seen.until(by(seen, "pixel@1/fp32-onnx"))
    verdict = seen.verdicts[-1]
    assert (verdict.label, len(verdict.model_sha256)) == ("good", 64)
    assert seen.health.faults() == []


def test_a_model_that_crashes_the_eye_twice_leaves_it_to_the_rule(eye, state, fault):
    """The camera is looked at again at once, and the verdict names who decides and who could not."""
    install(state)
    fault({"1": "crash"})
    seen = eye("pixel")
    seen.until(by(seen, "rule/dark-spot@1"))
    verdict = next(verdict for verdict in seen.verdicts if verdict.decided_by == "rule/dark-spot@1")
    assert "left out" in verdict.details["failed"][0]
    assert seen.reasons().count("camera-crashed") <= 2
    seen.until(lambda: "camera.cam.pixel.fallbacks" in [known.source for known in seen.health.faults()])
    install(state, version=2)
    seen.eye.roster.look_again()
    seen.until(by(seen, "pixel@2"))


def test_of_several_models_the_one_with_an_objection_speaks(eye, state):
    """Every model is asked, and what each said is told."""
    install(state)
    install(state, name="scratches", threshold=0)
    seen = eye("pixel", "scratches")
    seen.until(lambda: "defect" in seen.labels())
    verdict = next(verdict for verdict in seen.verdicts if verdict.label == "defect")
    assert verdict.decided_by == "scratches@1/fp32-onnx"
    assert {name: said["label"] for name, said in verdict.details["models"].items()} == {
        "pixel": "good",
        "scratches": "defect",
    }


def test_without_its_bundle_the_rule_decides_and_that_is_a_fault(eye, state):
    """A camera is never blind because a file is missing."""
    seen = eye("pixel")
    seen.until(by(seen, "rule/dark-spot@1"))
    seen.until(lambda: any("is installed" in known.reason for known in seen.health.faults()))


def test_a_candidate_is_tried_while_the_camera_looks_on(eye, state):
    """The process is not started anew for it, neither to try nor to take it over."""
    install(state)
    seen = eye("pixel")
    seen.until(by(seen, "pixel@1"))
    install(state, version=2, offer=True)
    seen.eye.roster.look_again()
    seen.until(by(seen, "pixel@2"))
    record = [json.loads(line) for line in (state / "audit" / "models.jsonl").read_text().splitlines()]
    assert (record[-1]["what"], record[-1]["same"]) == ("promote", 10)
    assert seen.count("restarts") == 0


def test_a_candidate_that_loads_slowly_costs_no_restart(eye, state, fault):
    """Loading may take longer than a picture: no sign of life is expected meanwhile."""
    install(state)
    fault({"2": "slow-to-load"})
    seen = eye("pixel")
    seen.until(by(seen, "pixel@1"))
    install(state, version=2, offer=True)
    seen.eye.roster.look_again()
    seen.until(by(seen, "pixel@2"))
    assert seen.count("restarts") == 0
