"""Who decides, inside a judging process: judges are opened, asked under their number, and tried beside each other.

::

    order of the parent ─▶ open each judge ─▶ chain: model ─▶ previous ─▶ rule ─▶ unknown ──▶ verdict
                            └─ cannot: Missing     └ beside it, unheard: the candidate ──▶ trial
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from edge_agent import catalogue
from edge_agent.clock import Clock, Stamp
from edge_agent.contracts import Judge
from edge_agent.errors import EdgeAgentError, ModelError
from edge_agent.eye_link import LABELS, Trial
from edge_agent.mark import Mark
from edge_agent.vocabulary import UNKNOWN, Judgement, Verdict
from models.chain import Chain, answer

SAME: Final = 0.95
"""Of the judgements that both make: the least share that a candidate must share with the one who decides."""
_FEWEST: Final = 2  # of a label: who never says "defect" agrees with anybody on a line that makes few of them
_SLOWER: Final = 2.0  # times as slow as the old one is too slow …
_SLOW_MS: Final = 10.0  # … if anybody would notice
_PATIENCE: Final = 10  # times the judgements that are wanted, and it has not decided often enough
_DETAILS: Final = 16_384  # bytes


class Numbered:
    """A judge that is asked under its number; a :class:`models.task.Decider`."""

    def __init__(self, judge: Judge, who: int, mark: Mark) -> None:
        self.who = who
        self._judge = judge
        self._mark = mark

    @property
    def decided_by(self) -> str:
        return self._judge.decided_by

    @property
    def model_sha256(self) -> str | None:
        return self._judge.model_sha256

    @property
    def period_s(self) -> float | None:
        """How often it wants to be asked; None: whenever there is something."""
        return getattr(self._judge, "period_s", None)

    @property
    def quantities(self) -> tuple[str, ...]:
        """What it wants to know, where it judges rows."""
        return getattr(self._judge, "quantities", ())

    def open(self) -> None:
        with self._mark.asking(self.who):
            self._judge.open()

    @property
    def key(self) -> str:
        """Whose memory it is: another release has another."""
        return f"{self.decided_by} {self.model_sha256}"

    def memory(self) -> Mapping[str, Any] | None:
        """What it learnt from what it saw, fit for JSON; None: nothing."""
        remember = getattr(self._judge, "memory", None)
        return None if remember is None else remember()

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from there; what does not fit is passed over."""
        recall = getattr(self._judge, "recall", None)
        if recall is not None:
            with self._mark.asking(self.who), contextlib.suppress(ValueError, KeyError, TypeError):
                recall(memory)

    def judge(self, given: Any) -> Judgement:
        """As the judge; raises ModelError for what cannot be a judgement, or cannot be told."""
        with self._mark.asking(self.who):
            said = self._judge.judge(given)
        if said.label not in LABELS or not isfinite(said.score) or not isfinite(said.threshold):
            raise ModelError(f"label {said.label!r}, score {said.score!r}, threshold {said.threshold!r}")
        if len(json.dumps(said.details, allow_nan=False)) > _DETAILS:
            raise ModelError("too many details")
        return said


class Missing:
    """In the place of a judge that cannot be asked: it never decides, and says why."""

    model_sha256 = None
    period_s = None
    quantities: tuple[str, ...] = ()

    def __init__(self, decided_by: str, why: str) -> None:
        self.decided_by = decided_by
        self.why = why

    def judge(self, given: Any) -> Judgement:
        del given
        raise ModelError(self.why)


class _Beside:
    """A candidate, and what is known of it so far."""

    def __init__(self, candidate: Numbered, judgements: int, clock: Clock) -> None:
        self.candidate = candidate
        self._wanted = judgements
        self._clock = clock
        self._asked = self._both = self._same = 0
        self._given: Counter[str] = Counter()  # by the one who decides: label → how often …
        self._shared: Counter[str] = Counter()  # … and how often by the candidate too
        self._old_ms: list[float] = []
        self._new_ms: list[float] = []

    def compare(self, old: Verdict, given: Any, deadline_s: float) -> tuple[bool, str] | None:
        """Ask it the same; whether it is good, and why, once that is known."""
        began_ns = self._clock.mono_ns()
        try:
            said = answer(old.subject, self.candidate, given, old.at)
        except Exception as error:  # whatever a model runtime throws: it is not good enough
            return False, f"it failed: {type(error).__name__}: {error}"[:300]
        took_ms = (self._clock.mono_ns() - began_ns) / 1e6
        self._asked += 1
        if took_ms > deadline_s * 1000:
            return False, f"it took {took_ms:.0f} ms"
        failed = "failed" in old.details
        if said.label != UNKNOWN and (failed or old.label != UNKNOWN):
            self._both += 1
            self._same += failed or said.label == old.label
            if not failed:
                self._given[old.label] += 1
                self._shared[old.label] += said.label == old.label
            self._new_ms.append(took_ms)
            self._old_ms.append(old.latency_ms or 0.0)
        if self._both >= self._wanted:
            return self._conclude()
        if self._asked >= _PATIENCE * self._wanted:
            return False, f"it decided only {self._both} times of {self._asked}"
        return None

    def _conclude(self) -> tuple[bool, str]:
        share, old, new = self._same / self._both, _p95(self._old_ms), _p95(self._new_ms)
        if share < SAME:
            return False, f"it agrees in {share:.1%} of {self._both} judgements only"
        for label, given in self._given.items():
            if given >= _FEWEST and self._shared[label] < given / 2:
                return False, f"of {given} that are {label} now, it says so of {self._shared[label]} only"
        if new > _SLOWER * old and new > _SLOW_MS:
            return False, f"it takes {new:.1f} ms instead of {old:.1f} ms"
        return True, f"it agrees in {share:.1%} of {self._both} judgements, {new:.1f} ms instead of {old:.1f} ms"

    def trial(self, model: str, *, good: bool, why: str) -> Trial:
        """For the parent."""
        old, new = round(_p95(self._old_ms), 3), round(_p95(self._new_ms), 3)
        return Trial(model, self.candidate.who, good, why, self._both, self._same, old, new)


class Deciding:
    """One model of the config. ``remarks``: for a person, why somebody cannot be asked."""

    def __init__(
        self,
        model: str,
        subject: str,
        deciders: Sequence[Numbered | Missing],
        mark: Mark,
        clock: Clock,
        deadline_s: float,
        *,
        remember: bool = False,
    ) -> None:
        """``subject``: of the verdicts. ``deciders``: as they are asked. ``deadline_s``, ``remember``: see Chain."""
        self.model = model
        self.remarks = [
            f"{each.decided_by} cannot decide: {each.why}" for each in deciders if isinstance(each, Missing)
        ]
        self.period_s: float | None = next((each.period_s for each in deciders if each.period_s), None)
        self._quantities = frozenset(name for each in deciders for name in each.quantities)
        self._asked = [each for each in deciders if isinstance(each, Numbered)]
        self.trial: Trial | None = None
        """What became of a candidate; whoever tells it takes it away."""
        self._mark = mark
        self._clock = clock
        self._deadline_s = deadline_s
        self._beside: _Beside | None = None
        self._said = (0, 0)
        self._chain = Chain(subject, deciders, clock, deadline_s, they_remember=remember)

    @property
    def quantities(self) -> frozenset[str]:
        """What anybody wants to know, the candidate too."""
        return self._quantities | frozenset(self._beside.candidate.quantities if self._beside else ())

    def decide(self, given: Any, at: Stamp) -> Verdict:
        """The verdict; the candidate is asked after it was made."""
        verdict = self._chain.decide(given, at)
        beside = self._beside
        if beside is not None and (found := beside.compare(verdict, given, self._deadline_s)) is not None:
            good, why = found
            self.trial = beside.trial(self.model, good=good, why=why)
            self._beside = None
            if good:
                self._quantities |= frozenset(beside.candidate.quantities)
                self._asked.append(beside.candidate)
                self._chain.lead(beside.candidate)
        return verdict

    def memory(self) -> dict[str, Any]:
        """What each of those who are asked learnt, by its key."""
        return {each.key: memory for each in self._asked if (memory := each.memory()) is not None}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from there, whoever was there before; before the first decision."""
        for each in self._asked:
            if each.key in memory:
                each.recall(memory[each.key])

    def try_beside(self, entry: Mapping[str, Any] | None, judgements: int) -> None:
        """A candidate from here on, or none any more."""
        self._beside = None
        if entry is None:
            return
        judge = _made(entry["spec"])
        candidate = Numbered(judge, entry["who"], self._mark)
        beside = _Beside(candidate, judgements, self._clock)
        try:
            candidate.open()
        except (EdgeAgentError, OSError) as error:
            self.trial = beside.trial(self.model, good=False, why=f"it cannot be loaded: {error}"[:300])
        else:
            self._beside = beside

    def counts(self) -> dict[str, int]:
        """Decisions and fallbacks since this was last asked."""
        now = (self._chain.decisions, self._chain.fallbacks)
        decisions, fallbacks = (new - old for new, old in zip(now, self._said, strict=True))
        self._said = now
        return {f"{self.model}.decisions": decisions, f"{self.model}.fallbacks": fallbacks}

    @property
    def fallback_share(self) -> float:
        return self._chain.fallback_share


def opened(
    order: Mapping[str, Any], subject: str, mark: Mark, clock: Clock, deadline_s: float, *, remember: bool = False
) -> Deciding:
    """With everybody opened who can be. ``order``: one model of :meth:`edge_agent.roster.Roster.order`."""
    deciders = [_opened(entry, mark) for entry in order["asked"]]
    deciding = Deciding(order["model"], subject, deciders, mark, clock, deadline_s, remember=remember)
    deciding.try_beside(order["candidate"], order["judgements"])
    return deciding


def _opened(entry: Mapping[str, Any], mark: Mark) -> Numbered | Missing:
    """It, or why it cannot be asked: that leaves the decision to the next."""
    judge = _made(entry["spec"])
    if entry["out"]:
        return Missing(judge.decided_by, "left out: its process ended twice while it was asked")
    numbered = Numbered(judge, entry["who"], mark)
    try:
        numbered.open()
    except (EdgeAgentError, OSError) as error:
        return Missing(judge.decided_by, str(error)[:300])
    return numbered


def _made(spec: Mapping[str, Any]) -> Judge:
    kind = catalogue.load(catalogue.JUDGES, spec["kind"])
    judge: Judge = kind(kind.Settings.model_validate(spec))
    return judge


def _p95(numbers: list[float]) -> float:
    return sorted(numbers)[int(0.95 * (len(numbers) - 1))] if numbers else 0.0
