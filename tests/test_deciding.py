"""A candidate beside the one who decides: what makes it take over, and what makes it go."""

import pytest

from edge_agent import catalogue
from edge_agent.clock import ManualClock
from edge_agent.deciding import opened
from edge_agent.errors import ModelError
from edge_agent.mark import Mark
from edge_agent.settings import Section
from edge_agent.vocabulary import Judgement


class Scripted:
    """Says what its script says, a letter a picture: good, defect, unknown, or an error."""

    class Settings(Section):
        kind: str
        script: str

    model_sha256 = None

    def __init__(self, settings):
        self.decided_by = settings.script
        self._script = settings.script

    def open(self):
        pass

    def judge(self, given):
        word = {"g": "good", "d": "defect", "u": "unknown"}.get(self._script[given % len(self._script)])
        if word is None:
            raise ModelError("it cannot")
        return Judgement(word, 0.5, 0.5, {})


@pytest.fixture
def trial(monkeypatch):
    """Ask both about 100 pictures: what became of the candidate, and who decides afterwards."""
    monkeypatch.setitem(catalogue.JUDGES, "scripted", "tests.test_deciding:Scripted")

    def run(old, new, judgements=100):
        def entry(who, script):
            return {"who": who, "spec": {"kind": "scripted", "script": script}, "out": False}

        order = {"model": "m", "asked": [entry(1, old)], "candidate": entry(2, new), "judgements": judgements}
        clock = ManualClock()
        deciding = opened(order, "cam", Mark.fresh(), clock, 5.0)
        said = [deciding.decide(number, clock.stamp()) for number in range(1000)]
        return deciding.trial, said[-1].decided_by

    return run


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("g", "g"),
        ("g" * 98 + "dd", "g" * 98 + "dg"),  # one of two
        ("g" * 98 + "dg", "g" * 100),  # one defect alone may be a borderline case
        ("g" * 100, "g" * 97 + "ddd"),
        ("x", "d"),  # who cannot decide has nothing against anybody
    ],
)
def test_who_agrees_takes_over(trial, old, new):
    """Nearly always the same, and of each label at least half."""
    found, decides = trial(old, new)

    assert found.good, found.why
    assert decides == new


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("g" * 90 + "d" * 10, "g" * 96 + "d" * 4, "agrees in 94.0%"),
        ("g" * 98 + "dd", "g" * 100, "of 2 that are defect now, it says so of 0 only"),
        ("d" * 96 + "g" * 4, "d" * 99 + "g", "of 4 that are good now, it says so of 1 only"),
        ("g", "u", "it decided only 0 times of 1000"),
        ("g", "gx", "it failed: ModelError: it cannot"),
    ],
)
def test_who_does_not_goes(trial, old, new, why):
    """A model that is blind agrees with anybody on a line that makes few defects: each label counts by itself."""
    found, decides = trial(old, new)

    assert not found.good
    assert why in found.why
    assert decides == old
