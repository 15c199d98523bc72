"""The agent's side of a camera: starts its eye process, listens, and ends it when it hangs.

::

    eye process ──verdict──▶ this thread ──on_verdict──▶ alarm, record
       ▲   └──picture──▶ evidence/<camera>/*.jpg, named by ──on_evidence──▶ record
       └── start · no sign of life within the deadline: SIGKILL, back-off, start again

OpenCV, NumPy and model runtimes live over there; nothing of them is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Final

from edge_agent.child import Child
from edge_agent.clock import NS, Clock
from edge_agent.eye_link import Alive, LinkClosedError, NonsenseError, alive_from, evidence_from, verdict_from
from edge_agent.health import Health
from edge_agent.schedule import Backoff
from edge_agent.settings import CameraSection
from edge_agent.vocabulary import CRASHED, HUNG, NOT_INSPECTED, TIMEOUT, Evidence, Verdict

_NAP_S: Final = 0.5  # how long a stop may go unnoticed
_COUNTS: Final = ("grabbed", "dropped", "judged", "not-inspected", "evidence-lost", "evidence-evicted")
_SLOW_AFTER = 3  # reports in a row


class _Life:
    """What is known of one eye process from its start to its end."""

    def __init__(self, child: Child, now_ns: int, allowed_s: float) -> None:
        self.child = child
        self.heard_ns = now_ns
        self.allowed_s = allowed_s  # how long it may be silent
        self.slow = 0  # reports in a row
        self.rss_bytes = 0


class Eye:
    """The body of one worker. A camera that is gone, hangs or crashes says "not inspected" here, and nothing else."""

    def __init__(
        self,
        name: str,
        kind: str,
        settings: CameraSection,
        evidence: Path,
        clock: Clock,
        health: Health,
        *,
        on_verdict: Callable[[Verdict], None],
        on_evidence: Callable[[Evidence], None],
        relative_to: Path = Path(),
        judges: Sequence[Mapping[str, object]] = (),
    ) -> None:
        """``evidence``: each camera has its own folder in it. ``relative_to``: the folder of the config.

        ``judges``: the models that are asked before the rule, as their settings with their ``kind``.
        """
        self.fps = 0.0
        self._name = name
        self._kind = kind
        self._settings = settings
        self._folder = str((evidence / name).absolute())
        self._clock = clock
        self._health = health
        self._on_verdict = on_verdict
        self._on_evidence = on_evidence
        self._relative_to = relative_to
        self._judges = judges
        self._source = f"camera.{name}"
        self._since_ns = clock.mono_ns()
        self._trouble: str | None = None  # why no pictures come
        self._reported_ns: int | None = None  # when that was last put on record
        self._refused_since_ns: int | None = None

    def body(self, stop: Event, progress: Callable[[], None]) -> None:
        """Until stop: start the process, listen, start it again."""
        backoff = Backoff(first_s=0.5, cap_s=60.0)
        while not stop.is_set():
            began_ns = self._clock.mono_ns()
            try:
                went_well = self._live(stop, progress)
            except OSError as error:  # no memory or no process left to start one
                went_well = False
                self._complain(CRASHED, f"its process cannot be started: {error}")
            if went_well:
                continue
            if self._clock.mono_ns() - began_ns > 60 * NS:
                backoff.reset()
            self._health.count(f"{self._source}.restarts")
            self._wait(backoff.fail(), stop, progress)

    def _wait(self, seconds: float, stop: Event, progress: Callable[[], None]) -> None:
        while seconds > 0 and not self._clock.wait(stop, min(seconds, _NAP_S)):
            progress()
            self._remind()
            seconds -= _NAP_S

    # --- one life

    def _live(self, stop: Event, progress: Callable[[], None]) -> bool:
        """From start to end; False when it ended although nobody asked."""
        life = self._start()
        try:
            while not stop.is_set():
                progress()
                message = life.child.receive(_NAP_S)
                if message is not None:
                    self._hear(life, message)
                elif self._clock.mono_ns() - life.heard_ns > life.allowed_s * NS:
                    self._health.count(f"{self._source}.killed")
                    self._complain(HUNG, "no sign of life; its process is started again")
                    return False
                if self._settings.recycle_above is not None and life.rss_bytes > self._settings.recycle_above:
                    self._health.count(f"{self._source}.recycled")
                    break
                self._remind()
            life.child.finish(lambda message: self._hear(life, message))
        except LinkClosedError:
            self._complain(CRASHED, f"its process {life.child.how_it_ended()}; it is started again")
            return False
        except NonsenseError as error:
            self._health.count(f"{self._source}.nonsense")
            self._complain(CRASHED, f"its process said something impossible: {error}"[:500])
            return False
        finally:
            if not life.child.end():
                self._health.count(f"{self._source}.unkillable")
        return True

    def _start(self) -> _Life:
        order = {
            "camera": self._name,
            "kind": self._kind,
            "settings": self._settings.model_dump(mode="json", by_alias=True),
            "judges": [*self._judges, self._settings.rule.model_dump(mode="json")],
            "evidence": self._folder,
            "folder": str(self._relative_to.absolute()),
            "since_ns": self._since_ns,
        }
        child = Child.start("edge_agent.eye_process", order, self._clock)
        return _Life(child, self._clock.mono_ns(), self._settings.open_deadline)

    # --- what it says

    def _hear(self, life: _Life, message: Mapping[str, Any]) -> None:
        """Raises NonsenseError for what no eye says."""
        life.heard_ns = self._clock.mono_ns()
        say = message["say"]
        if say == "alive":
            self._count(life, alive_from(message.get("alive")))
        elif say == "verdict":
            life.allowed_s = self._settings.deadline
            self._judged(verdict_from(message.get("verdict"), self._name))
        elif say == "evidence":
            self._on_evidence(evidence_from(message.get("evidence"), self._name, self._folder))
        elif say == "fault":
            self._complain(str(message.get("reason")), f"{message.get('why')}"[:500])
        elif say == "opening":
            life.allowed_s = self._settings.open_deadline
        elif say != "open":
            raise NonsenseError(f"what is {say!r}?")

    def _count(self, life: _Life, alive: Alive) -> None:
        for name in _COUNTS:
            if number := alive.counts.get(name, 0):
                self._health.count(f"{self._source}.{name}", number)
        if alive.counts.get("grabbed"):
            life.allowed_s = self._settings.deadline
        life.rss_bytes = alive.rss_bytes
        self.fps = alive.fps
        remarks = "; ".join(alive.remarks)[:500]
        if remarks:
            self._health.fault(f"{self._source}.remarks", remarks)
        else:
            self._health.clear(f"{self._source}.remarks")
        self._check_pace(life)

    def _check_pace(self, life: _Life) -> None:
        expected = self._settings.fps
        is_slow = expected is not None and 0 < self.fps < expected / 2  # none at all is another matter
        life.slow = life.slow + 1 if is_slow else 0
        if life.slow >= _SLOW_AFTER:
            self._health.fault(f"{self._source}.pace", "slow", hint=f"{self.fps} of {expected} pictures per second")
        elif life.slow == 0:
            self._health.clear(f"{self._source}.pace")

    def _judged(self, verdict: Verdict) -> None:
        now_ns = self._clock.mono_ns()
        self._trouble = self._reported_ns = None  # pictures come
        if verdict.label != NOT_INSPECTED:
            self._refused_since_ns = None
            self._health.clear(self._source)
        elif self._refused_since_ns is None:
            self._refused_since_ns = now_ns
        elif now_ns - self._refused_since_ns > self._settings.deadline * NS:
            self._health.fault(self._source, verdict.reason or NOT_INSPECTED, hint="its pictures cannot be judged")
        self._on_verdict(verdict)

    # --- what is wrong

    def _complain(self, reason: str, hint: str) -> None:
        if reason != self._trouble:
            self._trouble, self._reported_ns = reason, None
        self._health.fault(self._source, reason, hint=hint)
        self._remind()

    def _remind(self) -> None:
        """Put on record that nothing is inspected: at once when the reason is new, and again every so often."""
        now_ns = self._clock.mono_ns()
        if self._trouble is None:
            return
        if self._reported_ns is None or now_ns - self._reported_ns >= self._settings.report_every * NS:
            self._reported_ns = now_ns
            at = self._clock.stamp()
            self._on_verdict(Verdict(self._name, at, NOT_INSPECTED, "eye", reason=self._trouble))


def glance(
    name: str, kind: str, settings: CameraSection, clock: Clock, within_s: float, relative_to: Path = Path()
) -> Verdict:
    """Look once, in a process of its own, and keep nothing: what ``check`` asks. It never takes much longer."""
    nothing = settings.model_copy(update={"evidence": settings.evidence.model_copy(update={"labels": ()})})
    seen: list[Verdict] = []
    stop = Event()
    end_ns = clock.mono_ns() + int(within_s * NS)

    def note(verdict: Verdict) -> None:
        seen.append(verdict)
        stop.set()

    def progress() -> None:
        if clock.mono_ns() > end_ns:
            stop.set()

    eye = Eye(
        name,
        kind,
        nothing,
        Path(os.devnull),
        clock,
        Health(clock),
        on_verdict=note,
        on_evidence=lambda _: None,
        relative_to=relative_to,
    )
    eye.body(stop, progress)
    return seen[0] if seen else Verdict(name, clock.stamp(), NOT_INSPECTED, "eye", reason=TIMEOUT)
