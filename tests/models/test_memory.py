"""A detector's memory: another one goes on from it as if nothing had happened."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import judge
from models.task import Row
from tests.models.building import bundle_of
from tests.models.lines import line_bundle

LIMITS = {"main.active_power": 100.0, "main.voltage_l1": 5.0, "cabinet.temperature": 1.0}


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    return line_bundle(tmp_path_factory.mktemp("state"), LIMITS, slow_s=20.0)


def rows(count, seed=0):
    """A machine at two rates, with absences, that leaves its past after two thirds."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        at_s = 1000.0 + number * 0.5
        power = 1000.0 + draw.normal(0, 5) + (300.0 if number > 2 * count // 3 else 0.0)
        values = {"main.active_power": power, "main.voltage_l1": 230.0 + draw.normal(0, 0.1)}
        if number % 4 == 0:
            values["cabinet.temperature"] = 40.0 if draw.random() < 0.8 else float("nan")
        yield Row(at_s, values)


@settings(deadline=None)
@given(st.integers(0, 119))
def test_who_recalls_goes_on_as_if_nothing_had_happened(line, cut):
    """The same labels, scores and reasons from any moment on: warming up, calm, and in the middle of a case."""
    whole, first, second = (judge.build(line) for _ in range(3))
    given_ = list(rows(120))
    expected = [whole.judge(row) for row in given_]

    said = [first.judge(row) for row in given_[:cut]]
    second.recall(json.loads(json.dumps(first.memory(), allow_nan=False)))
    said += [second.judge(row) for row in given_[cut:]]

    assert said == expected
    assert {"unknown", "normal", "anomaly"} == {each.label for each in expected}


@pytest.mark.parametrize(
    "change",
    [
        lambda memory: memory.pop("case"),
        lambda memory: memory["case"].append(1.0),
        lambda memory: memory["case"].__setitem__(2, "yesterday"),
        lambda memory: memory["holding"].update(values=[1.0]),
        lambda memory: memory["holding"].update(values="nonsense"),
        lambda memory: memory["deviations"].update(last_s=[]),
        lambda memory: memory["deviations"]["arrays"].pop(),
        lambda memory: memory["deviations"]["arrays"][0][0].__setitem__(0, None),
        lambda memory: memory["deviations"].update(arrays=None),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(line, change):
    """Of another model, or damaged: whoever asks begins anew."""
    one = judge.build(line)
    for row in rows(10):
        one.judge(row)
    memory = json.loads(json.dumps(one.memory()))
    change(memory)

    with pytest.raises((ValueError, KeyError, TypeError)):
        judge.build(line).recall(memory)


def test_who_judges_pictures_has_no_memory():
    """Each picture is judged by itself."""
    one = judge.build(bundle_of())

    one.recall({})

    assert one.memory() is None
