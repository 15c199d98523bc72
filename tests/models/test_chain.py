"""Who decides when the model cannot."""

from math import inf, nan

import pytest

from edge_agent.clock import ManualClock
from edge_agent.errors import ModelError
from edge_agent.vocabulary import DEFECT, GOOD, UNKNOWN, Judgement
from models.chain import Chain


class Decider:
    """Says what it is told to, taking as long as it is told to."""

    def __init__(self, name, clock, says=GOOD, takes_s=0.0, score=0.1):
        self.decided_by = name
        self.model_sha256 = name[0] * 64
        self.says = says
        self.asked = 0
        self._clock, self._takes_s, self._score = clock, takes_s, score

    def judge(self, given):
        self.asked += 1
        self._clock.advance(self._takes_s)
        if isinstance(self.says, Exception):
            raise self.says
        return Judgement(self.says, self._score, 0.5, {"given": given})


@pytest.fixture
def clock():
    return ManualClock()


def decide(clock, *deciders, **how):
    chain = Chain("outfeed", deciders, clock, deadline_s=1.0, **how)
    return chain, chain.decide("picture", clock.stamp())


def test_the_model_decides_while_it_can(clock):
    """Nobody else is even asked, and the verdict says who it was."""
    model, rule = Decider("model@2", clock, DEFECT, takes_s=0.01), Decider("rule", clock)
    chain, verdict = decide(clock, model, rule)

    assert (
        verdict.label,
        verdict.decided_by,
        verdict.model_sha256,
        verdict.score,
        verdict.threshold,
    ) == (DEFECT, "model@2", "m" * 64, 0.1, 0.5)
    assert (verdict.latency_ms, verdict.details, rule.asked) == (10.0, {"given": "picture"}, 0)
    assert (chain.decisions, chain.fallbacks, chain.fallback_share) == (1, 0, 0.0)


@pytest.mark.parametrize(
    "failing",
    [
        {"says": ModelError("broken")},
        {"says": ZeroDivisionError("mistake")},
        {"says": MemoryError()},
        {"score": nan},
        {"score": inf},
        {"takes_s": 1.5},
    ],
)
def test_who_cannot_leaves_it_to_the_next(clock, failing):
    """An error of any kind, a score that is no number, an answer that comes too late."""
    model, before = Decider("model@2", clock, **failing), Decider("model@1", clock)
    chain, verdict = decide(clock, model, before, Decider("rule", clock))

    assert (verdict.label, verdict.decided_by) == (GOOD, "model@1")
    assert "model@2: " in verdict.details["failed"][0]
    assert chain.fallbacks == 1


def test_without_anybody_nothing_is_decided(clock):
    """Never "good" by default."""
    for deciders in ([], [Decider("model", clock, ModelError("x")), Decider("rule", clock, ModelError("y"))]):
        _, verdict = decide(clock, *deciders)

        assert (
            verdict.label,
            verdict.decided_by,
            verdict.score,
            verdict.reason,
        ) == (UNKNOWN, "nobody", None, "judge-failed")


def test_who_does_not_know_yet_gives_no_score(clock):
    """A model that warms up decides nothing, and that is no failure."""
    chain, verdict = decide(clock, Decider("model", clock, UNKNOWN, score=0.0), Decider("rule", clock))

    assert (verdict.label, verdict.decided_by, verdict.score, chain.fallbacks) == (UNKNOWN, "model", None, 0)


def test_who_remembers_sees_everything(clock):
    """Where judging depends on what came before, the next in turn has seen it too, also when it failed."""
    deciders = [Decider("model", clock), Decider("before", clock, ModelError("x")), Decider("rule", clock)]
    _, verdict = decide(clock, *deciders, they_remember=True)

    assert [each.asked for each in deciders] == [1, 1, 1]
    assert (verdict.decided_by, verdict.details) == ("model", {"given": "picture"})


def test_the_share_is_about_the_last_hundred(clock):
    """Old failures are forgotten by the share, not by the count."""
    model = Decider("model", clock, ModelError("x"))
    chain = Chain("outfeed", [model, Decider("rule", clock)], clock, deadline_s=1.0)
    for _ in range(50):
        chain.decide(None, clock.stamp())
    assert chain.fallback_share == 1.0
    model.says = GOOD
    for _ in range(75):
        chain.decide(None, clock.stamp())

    assert (chain.fallback_share, chain.fallbacks, chain.decisions) == (0.25, 50, 125)
