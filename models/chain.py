"""Who decides when the model cannot: the previous model, then a named rule, then nobody, and that is said.

::

    model ──NaN, exception, too late──▶ previous model ──▶ rule ──▶ unknown
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

from edge_agent.clock import NS, Clock, Stamp
from edge_agent.errors import ModelError
from edge_agent.vocabulary import JUDGE_FAILED, NOT_INSPECTED, TIMEOUT, UNKNOWN, Verdict
from models.task import Decider

NOBODY: Final = "nobody"
_RECENT: Final = 100  # decisions that the share is about


class Chain:
    """Decides about one subject. Called from one thread only; no I/O.

    It cannot interrupt who is late, only not listen any more: what hangs for good is ended by whoever watches
    the process.
    """

    def __init__(
        self, subject: str, deciders: Sequence[Decider], clock: Clock, deadline_s: float, *, they_remember: bool = False
    ) -> None:
        """``deciders``: in the order in which they are asked. ``deadline_s``: for each of them.

        ``they_remember``: all see everything, so that each knows what came before when its turn comes.
        """
        self.decisions = 0
        self.fallbacks = 0
        self._subject = subject
        self._deciders = list(deciders)
        self._clock = clock
        self._deadline_ns = int(deadline_s * NS)
        self._they_remember = they_remember
        self._recent: deque[bool] = deque(maxlen=_RECENT)

    def lead(self, decider: Decider) -> None:
        """From here on it is asked first, before all others."""
        self._deciders = [decider, *self._deciders]

    @property
    def fallback_share(self) -> float:
        """Of the last hundred decisions: the share that was not made by who comes first."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    def decide(self, given: Any, at: Stamp) -> Verdict:
        """The first trustworthy answer; ``details["failed"]`` says who could not, and why. Never raises."""
        began_ns = self._clock.mono_ns()
        failures: list[str] = []
        verdict: Verdict | None = None
        for decider in self._deciders:
            if verdict is None:
                verdict = self._ask(decider, given, at, failures)
            elif self._they_remember:
                self._ask(decider, given, at, [])
        if verdict is None:
            verdict = Verdict(self._subject, at, UNKNOWN, NOBODY, reason=JUDGE_FAILED)
        verdict.latency_ms = round((self._clock.mono_ns() - began_ns) / 1e6, 3)
        if failures:
            verdict.details["failed"] = failures
        self.decisions += 1
        self.fallbacks += bool(failures)
        self._recent.append(bool(failures))
        return verdict

    def _ask(self, decider: Decider, given: Any, at: Stamp, failures: list[str]) -> Verdict | None:
        """What it says, or None where that cannot be trusted; the reason goes to ``failures``."""
        began_ns = self._clock.mono_ns()
        try:
            verdict = answer(self._subject, decider, given, at)
        except Exception as error:  # whatever a model runtime throws: the next one decides
            failures.append(f"{decider.decided_by}: {type(error).__name__}: {error}"[:300])
            return None
        if self._clock.mono_ns() - began_ns > self._deadline_ns:
            failures.append(f"{decider.decided_by}: {TIMEOUT}")
            return None
        return verdict


def answer(subject: str, decider: Decider, given: Any, at: Stamp) -> Verdict:
    """What one decider says, as a verdict. Raises whatever it raises, and ModelError for a score that is no number."""
    said = decider.judge(given)
    verdict = Verdict(subject, at, said.label, decider.decided_by, model_sha256=decider.model_sha256)
    verdict.details = dict(said.details)
    if said.label == NOT_INSPECTED:
        verdict.reason = str(verdict.details.pop("reason", JUDGE_FAILED))
    elif said.label != UNKNOWN:
        if not (isfinite(said.score) and isfinite(said.threshold)):  # it would pass for a low score
            raise ModelError(f"score {said.score!r}, threshold {said.threshold!r}")
        verdict.score, verdict.threshold = said.score, said.threshold
    return verdict
