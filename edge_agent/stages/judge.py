"""The agent's side of the line's models: sends readings to their process, hears verdicts, ends it when it hangs.

::

    wire threads ──offer──▶ newest of each quantity ──one row per period──▶ judge process (all line models)
                                                                              │
          alarm ◀──on_verdict: every one── this thread ◀────────verdict───────┘
         record ◀──on_news: what changed, and once per `report_every`

NumPy and model runtimes live over there; nothing of them is imported here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, Final

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from edge_agent.child import Child
from edge_agent.clock import NS, Clock, iso
from edge_agent.eye_link import LinkClosedError, NonsenseError, alive_from, verdict_from
from edge_agent.health import Health
from edge_agent.minder import NAP_S, Minder
from edge_agent.roster import Asked, Roster, Settle
from edge_agent.schedule import Periodic
from edge_agent.settings import ModelSection
from edge_agent.vocabulary import JUDGE_FAILED, UNKNOWN, Reading, Verdict

_OPEN_S: Final = 60.0  # to start the process, and to load each model: as long as at its first load ever
_GRACE_S: Final = 2.0  # beyond what the models may take
_SHORTEST_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class _Ready:
    """What the process wants, once every model is loaded."""

    every_s: FiniteFloat
    quantities: list[str]


_READY: Final = TypeAdapter(_Ready)


class Judge:
    """The body of one worker. A model that hangs or crashes its process says ``unknown`` here, and nothing else."""

    def __init__(
        self,
        clock: Clock,
        health: Health,
        sections: Mapping[str, ModelSection],
        *,
        models: Callable[[], Sequence[Asked]],
        settle: Settle,
        on_verdict: Callable[[Verdict], None],
        on_news: Callable[[Verdict], None],
    ) -> None:
        """``sections``: of the models with devices. ``models``, ``settle``: see :class:`~edge_agent.roster.Roster`."""
        self._latest: dict[str, Verdict] = {}
        self._rss_bytes = 0
        self._sections = sections
        self._clock = clock
        self._health = health
        self._on_verdict = on_verdict
        self._on_news = on_news
        self.roster = Roster(models, settle, "model.", clock, health)
        self._minder = Minder(self, "models", clock, health)
        self._devices = frozenset(device for section in sections.values() for device in section.devices)
        self._lock = Lock()
        self._values: dict[str, float | None] = {}  # not sent yet; None: absent
        self._wanted: frozenset[str] = frozenset()
        self._tick: Periodic | None = None  # None: it loads a model
        self._memories: dict[str, str] = {}
        self._told: dict[str, tuple[tuple[object, ...], int]] = {}  # model → what was put on record, when (ns)

    def offer(self, reading: Reading) -> None:
        """From any thread: the newest value of each quantity waits for the next row. Never blocks."""
        if reading.device not in self._devices or not self._wanted:
            return
        found: dict[str, float | None] = {f"{reading.device}.{name}": None for name in reading.absent}
        found |= {f"{reading.device}.{name}": value for name, value in reading.values.items()}
        with self._lock:
            self._values.update((name, found[name]) for name in found.keys() & self._wanted)

    def summary(self) -> dict[str, object]:
        """What each model said last, for a person."""
        latest, deciders = dict(self._latest), self.deciders()
        return {
            name: {
                "at": iso(verdict.at.wall_ms),
                "label": verdict.label,
                "score": verdict.score,
                "threshold": verdict.threshold,
                "reason": verdict.reason,
                "latency_ms": verdict.latency_ms,
                **deciders[name],
                **verdict.details,
            }
            for name, verdict in latest.items()
        }

    def deciders(self) -> dict[str, dict[str, object]]:
        """Who decides for each model, and how many of its last hundred decisions somebody else made."""
        return {
            name: {
                "decided_by": verdict.decided_by,
                "model_sha256": verdict.model_sha256,
                "fallbacks": self.roster.fallbacks.get(name),
            }
            for name, verdict in dict(self._latest).items()
        }

    def body(self, stop: Event, progress: Callable[[], None]) -> None:
        """Until stop."""
        self._minder.body(stop, progress)

    def forget(self) -> None:
        """After the end: what was wrong with models that are no longer wanted is wrong no more."""
        sources = ["models", "models.remarks"]
        for name in self._sections:
            sources += [f"model.{name}.fallbacks", f"model.{name}.candidate"]
        for source in sources:
            self._health.clear(source)

    # --- for the minder

    def start(self) -> Child:
        self._tick = None
        deadlines = {name: section.deadline for name, section in self._sections.items()}
        order = {"models": self.roster.order(), "deadlines": deadlines}
        child = Child.start("edge_agent.judge_process", order, self._clock)
        # Only once: if it is what the process dies of, the next one begins anew.
        memories, self._memories = self._memories, {}
        with contextlib.suppress(LinkClosedError):
            for name, memory in memories.items():
                child.offer("recall", model=name, memory=memory)
        return child

    def allowed_s(self) -> float:
        if self._tick is None:
            return _OPEN_S
        return self._tick.period_ns / NS + sum(section.deadline for section in self._sections.values()) + _GRACE_S

    def tend(self, child: Child) -> float | None:
        if not self.roster.follow(child):
            return None
        tick, now_ns = self._tick, self._clock.mono_ns()
        if tick is None:
            return NAP_S
        if tick.is_due(now_ns):
            tick.advance(now_ns)
            self._send(child)
        return max(0.0, (tick.due_ns - self._clock.mono_ns()) / NS)

    def wait(self) -> None:
        self._remind()

    def lost(self, reason: str, why: str, asked: int) -> None:
        del reason  # those words are about cameras
        self._tick = None
        blamed = self.roster.blame(asked, why)
        why = f"{why} ({blamed})" if blamed else why
        self._health.fault("models", JUDGE_FAILED, hint=why)
        for name in self._sections:
            verdict = Verdict(name, self._clock.stamp(), UNKNOWN, "nobody", reason=JUDGE_FAILED, details={"why": why})
            self._heard(verdict)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Raises NonsenseError for what no judge says."""
        say = message["say"]
        if say == "verdict":
            self._health.clear("models")
            self._heard(verdict_from(message.get("verdict"), *self._sections))
        elif say == "alive":
            self._count(message)
        elif say == "trial":
            self.roster.hear_trial(message.get("trial"))
        elif say == "memory":
            self._remember(message)
        elif say == "open":
            self._open(message)
        elif say == "opening":
            self._tick = None
        else:
            raise NonsenseError(f"what is {say!r}?")

    # --- within

    def _open(self, message: Mapping[str, Any]) -> None:
        try:
            ready = _READY.validate_python({"every_s": message.get("every_s"), "quantities": message.get("quantities")})
        except ValidationError as error:
            raise NonsenseError(str(error)) from error
        self._wanted = frozenset(ready.quantities)
        self._tick = Periodic.every(max(ready.every_s, _SHORTEST_S), self._clock.mono_ns())

    def _remember(self, message: Mapping[str, Any]) -> None:
        """What a model learnt: nobody reads it here, the next process gets it."""
        name, memory = message.get("model"), message.get("memory")
        if not isinstance(name, str) or name not in self._sections:
            raise NonsenseError(f"a memory of {name!r}")
        if not isinstance(memory, str) or not memory.isascii():  # what is not could grow on its way back
            raise NonsenseError(f"a memory that is {type(memory).__name__}")
        self._memories[name] = memory

    def _send(self, child: Child) -> None:
        """The row of this moment. When there is no room for it over there, its values wait for the next."""
        with self._lock:
            values, self._values = self._values, {}
        if not child.offer("rows", at=self._clock.stamp(), values=values):
            self._health.count("models.dropped")
            with self._lock:
                self._values = {**values, **self._values}

    def _count(self, message: Mapping[str, Any]) -> None:
        alive = alive_from(message.get("alive"))
        self._rss_bytes = alive.rss_bytes
        if merged := alive.counts.get("merged", 0):
            self._health.count("models.dropped", merged)
        self.roster.count(alive)
        if alive.remarks:
            self._health.fault("models.remarks", "; ".join(alive.remarks)[:500])
        else:
            self._health.clear("models.remarks")

    def _heard(self, verdict: Verdict) -> None:
        """Every verdict is a sample for the alarms; on record goes what is new, and a reminder now and then."""
        self._latest[verdict.subject] = verdict
        self._on_verdict(verdict)
        news = (verdict.label, verdict.decided_by, verdict.reason, verdict.details.get("case_id"))
        before, told_ns = self._told.get(verdict.subject, (None, 0))
        is_due = self._clock.mono_ns() - told_ns >= self._sections[verdict.subject].report_every * NS
        if news != before or is_due:
            self._told[verdict.subject] = (news, self._clock.mono_ns())
            self._on_news(verdict)

    def _remind(self) -> None:
        """While there is no process, its last word is repeated."""
        for name, verdict in list(self._latest.items()):
            if verdict.reason == JUDGE_FAILED and verdict.decided_by == "nobody":
                self._heard(Verdict(name, self._clock.stamp(), UNKNOWN, "nobody", reason=JUDGE_FAILED))
