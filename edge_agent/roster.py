"""Who decides, as the parent of a judging process knows it: in which order, under which number, who is left out.

Everybody has a number in the process's :class:`~edge_agent.mark.Mark`, so that a crash has a culprit: twice in a
row, and the process starts without it. A candidate is tried beside the one who decides, and goes at its first crash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from edge_agent.child import Child
from edge_agent.clock import Clock
from edge_agent.eye_link import Alive, NonsenseError, Trial, trial_from
from edge_agent.health import Health
from edge_agent.mark import LARGEST
from edge_agent.minder import Strikes

Spec = Mapping[str, object]
"""Settings of a judge, with its ``kind`` in the catalogue."""

_MOST: Final = 0.5  # a larger share of fallbacks is a fault


class Asked(NamedTuple):
    """A model of the config: who is asked for its decision, one after the other, and who is tried beside them.

    ``judgements``: after so many in common the candidate has shown what it is.
    """

    model: str
    order: tuple[Spec, ...]
    candidate: Spec | None = None
    judgements: int = 300


Settle = Callable[[str, Spec, Trial], None]
"""``settle(model, candidate, trial)``: put on record what became of a candidate."""


class Roster:
    """Of one judging process. Used by the thread of its minder only, but for ``look_again``."""

    def __init__(
        self, wanted: Callable[[], Sequence[Asked]], settle: Settle, source: str, clock: Clock, health: Health
    ) -> None:
        """``wanted``: what config and state folder say now. ``source``: of counters and faults, before the model."""
        self._wanted = wanted
        self._settle = settle
        self._source = source
        self._health = health
        self._strikes = Strikes(clock)
        self._running: list[Asked] = []
        self._numbers: dict[int, tuple[str, Spec]] = {}
        self._changed = False
        self.fallbacks: dict[str, float] = {}
        """Model → share of its last hundred decisions that were not made by who comes first."""

    def order(self) -> list[dict[str, object]]:
        """What the new process is told, anew at every start."""
        self._changed = False
        self._running = self._look()
        self._numbers = {}
        return [
            {
                "model": asked.model,
                "asked": [{**self._entry(asked.model, spec), "out": self._is_out(spec)} for spec in asked.order],
                "candidate": self._candidate(asked),
                "judgements": asked.judgements,
            }
            for asked in self._running
        ]

    def look_again(self) -> None:
        """From any thread: what is wanted may have changed."""
        self._changed = True

    def follow(self, child: Child) -> bool:
        """Tell the running process of new candidates; False: it must be started anew."""
        if not self._changed:
            return True
        self._changed = False
        wanted = self._look()
        if [(each.model, each.order) for each in wanted] != [(each.model, each.order) for each in self._running]:
            return False
        for now, before in zip(wanted, self._running, strict=True):
            if now.candidate != before.candidate:
                candidate = self._candidate(now)
                if not child.offer("candidate", model=now.model, candidate=candidate, judgements=now.judgements):
                    return False
        self._running = wanted
        return True

    def blame(self, who: int, why: str) -> str:
        """Who was being asked when the process ended; a clause for a person, or nothing."""
        model, spec = self._numbers.get(who, ("", {}))
        if not spec:
            return ""
        self._strikes.strike(_identity(spec))
        if any(asked.model == model and asked.candidate == spec for asked in self._running):
            self._strikes.strike(_identity(spec))  # a candidate has no second try
            self._settle(model, spec, Trial(model, who, good=False, why=why))
        left_out = ", which is left out from now on" if self._is_out(spec) else ""
        return f"while {named(spec)} was asked{left_out}"

    def hear_trial(self, fields: object) -> None:
        """A candidate has shown what it is. Raises NonsenseError."""
        trial = trial_from(fields)
        model, spec = self._numbers.get(trial.who, ("", {}))
        for index, asked in enumerate(self._running):
            if asked.model == model and asked.candidate == spec:
                # Over there it leads already, or is gone: nothing needs to be started anew.
                order = (spec, *asked.order[:1], *_rules(asked.order)) if trial.good else asked.order
                self._running[index] = Asked(model, order, None, asked.judgements)
                self._settle(model, spec, trial)
                return
        raise NonsenseError(f"{trial.model} has no candidate {trial.who}")

    def count(self, alive: Alive) -> None:
        """Decisions and fallbacks, and whether they are too many."""
        for model in (asked.model for asked in self._running if asked.order[0]["kind"] == "model"):
            source = f"{self._source}{model}"
            for what in ("decisions", "fallbacks"):
                if number := alive.counts.get(f"{model}.{what}", 0):
                    self._health.count(f"{source}.{what}", number)
            share = self.fallbacks[model] = alive.fallbacks.get(model, 0.0)
            if share > _MOST:
                self._health.fault(
                    f"{source}.fallbacks",
                    "most decisions are made by a fallback",
                    hint="models list shows what is wrong",
                )
            else:
                self._health.clear(f"{source}.fallbacks")

    def _look(self) -> list[Asked]:
        found = self._wanted()
        return [asked._replace(candidate=None) if self._is_out(asked.candidate) else asked for asked in found]

    def _candidate(self, asked: Asked) -> dict[str, object] | None:
        return None if asked.candidate is None else self._entry(asked.model, asked.candidate)

    def _entry(self, model: str, spec: Spec) -> dict[str, object]:
        who = len(self._numbers) % LARGEST + 1
        self._numbers[who] = (model, spec)
        return {"who": who, "spec": dict(spec)}

    def _is_out(self, spec: Spec | None) -> bool:
        return spec is not None and self._strikes.is_out(_identity(spec))


def _rules(order: Sequence[Spec]) -> tuple[Spec, ...]:
    return tuple(spec for spec in order if spec["kind"] != "model")


def named(spec: Spec) -> str:
    """For a person: ``pitting 4-1f0c…``, ``rule dark-spot``."""
    if spec["kind"] == "model":
        return f"{spec['name']} {spec.get('release') or ''}".strip()
    return f"rule {spec['kind']}"


def _identity(spec: Spec) -> str:
    return json.dumps(spec, sort_keys=True, default=str)
