"""The agent's side of a camera: starts its eye process, listens, and ends it when it hangs.

::

    eye process ──verdict──▶ this thread ──on_verdict──▶ alarm, record
       ▲   └──picture──▶ evidence/<camera>/*.jpg, named by ──on_evidence──▶ record
       └── start · no sign of life within the deadline: SIGKILL, back-off, start again

OpenCV, NumPy and model runtimes live over there; nothing of them is imported here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Final

from edge_agent.camera_settings import CameraSection, TriggerSection, UncertainSection
from edge_agent.child import Child
from edge_agent.clock import NS, Clock, Stamp, iso
from edge_agent.eye_link import Alive, NonsenseError, Trial, alive_from, evidence_from, part_from, verdict_from
from edge_agent.health import Health
from edge_agent.minder import NAP_S, Minder
from edge_agent.roster import Asked, Roster, Settle, Spec
from edge_agent.vocabulary import NO_PICTURE, NO_TRIGGER, NOT_INSPECTED, TIMEOUT, UNKNOWN, Evidence, Verdict

_COUNTS: Final = ("grabbed", "dropped", "judged", "not-inspected", "evidence-lost", "evidence-evicted")
_SLOW_AFTER = 3  # reports in a row
_PARTS_MOST: Final = 1000  # that wait for a verdict; far more than an eye lets wait


def _forget(model: str, candidate: Spec, trial: Trial) -> None:
    """Where nobody keeps a record."""


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
        models: Callable[[], Sequence[Asked]] = tuple,
        settle: Settle = _forget,
    ) -> None:
        """``evidence``: each camera has its own folder in it. ``relative_to``: the folder of the config.

        ``models``, ``settle``: as of :class:`~edge_agent.roster.Roster`; behind each model stands the camera's rule.
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
        self._source = f"camera.{name}"
        self.roster = Roster(lambda: self._asked(models()), settle, f"{self._source}.", clock, health)
        self._minder = Minder(self, self._source, clock, health)
        self._since_ns = clock.mono_ns()
        self._trouble: str | None = None  # why no pictures come
        self._sensor_fails = False
        self._parts: deque[Stamp] = deque(maxlen=_PARTS_MOST)  # were seen, and nothing was said of them yet
        self._last_part: Stamp | None = None
        self._reported_ns: int | None = None  # when that was last put on record
        self._refused_since_ns: int | None = None
        self._allowed_s = settings.open_deadline
        self._slow = 0  # reports in a row
        self._rss_bytes = 0

    def body(self, stop: Event, progress: Callable[[], None]) -> None:
        """Until stop."""
        self._minder.body(stop, progress)
        self._give_up(NO_PICTURE)

    def summary(self) -> dict[str, object]:
        """What triggers it, and when that last happened: a trigger that never comes is no fault, but it is seen."""
        last = self._last_part
        kind = self._settings.trigger.kind
        fields: dict[str, object] = {"fps": self.fps, "trigger": kind}
        return fields if kind == "time" else {**fields, "last_part": iso(last.wall_ms) if last else None}

    # --- for the minder

    def start(self) -> Child:
        self._give_up(NO_PICTURE)  # the one before was ended on purpose
        self._allowed_s, self._slow, self._rss_bytes = self._settings.open_deadline, 0, 0
        order = {
            "camera": self._name,
            "kind": self._kind,
            "settings": self._settings.model_dump(mode="json", by_alias=True),
            "models": self.roster.order(),
            "evidence": self._folder,
            "folder": str(self._relative_to.absolute()),
            "since_ns": self._since_ns,
        }
        return Child.start("edge_agent.eye_process", order, self._clock)

    def allowed_s(self) -> float:
        return self._allowed_s

    def tend(self, child: Child) -> float | None:
        self._remind()
        if self._settings.recycle_above is not None and self._rss_bytes > self._settings.recycle_above:
            self._health.count(f"{self._source}.recycled")
            return None
        return NAP_S if self.roster.follow(child) else None

    def wait(self) -> None:
        self._remind()

    def lost(self, reason: str, why: str, asked: int) -> None:
        blamed = self.roster.blame(asked, why)
        self._complain(reason, f"{why} ({blamed})" if blamed else why)
        self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Parts that were seen, and of which the process that has ended can say nothing any more."""
        while self._parts:
            part: dict[str, object] = {"part": iso(self._parts.popleft().wall_ms)}
            at = self._clock.stamp()
            self._on_verdict(Verdict(self._name, at, NOT_INSPECTED, "eye", reason=reason, details=part))

    def _asked(self, models: Sequence[Asked]) -> list[Asked]:
        """The camera's rule behind every model, or alone."""
        rule = self._settings.rule.model_dump(mode="json")
        return [each._replace(order=(*each.order, rule)) for each in models] or [Asked("rule", (rule,))]

    # --- what it says

    def hear(self, message: Mapping[str, Any]) -> None:
        """Raises NonsenseError for what no eye says."""
        say = message["say"]
        if say == "alive":
            self._count(alive_from(message.get("alive")))
        elif say == "verdict":
            self._allowed_s = self._settings.deadline
            self._judged(verdict_from(message.get("verdict"), self._name))
        elif say == "evidence":
            self._on_evidence(evidence_from(message.get("evidence"), self._name, self._folder))
        elif say == "fault":
            self._complain(str(message.get("reason")), f"{message.get('why')}"[:500])
        elif say == "trial":
            self.roster.hear_trial(message.get("trial"))
        elif say == "part":
            self._last_part = part_from(message.get("at"))
            self._parts.append(self._last_part)
        elif say == "sensor":
            self._sense(works=message.get("works") is True, why=f"{message.get('why')}"[:500])
        elif say == "opening":
            self._allowed_s = self._settings.open_deadline
        elif say != "open":
            raise NonsenseError(f"what is {say!r}?")

    def _count(self, alive: Alive) -> None:
        for name in _COUNTS:
            if number := alive.counts.get(name, 0):
                self._health.count(f"{self._source}.{name}", number)
        if alive.counts.get("grabbed"):
            self._allowed_s = self._settings.deadline
            self._pictures_come()
        self._rss_bytes = alive.rss_bytes
        self.fps = alive.fps
        self.roster.count(alive)
        remarks = "; ".join(alive.remarks)[:500]
        if remarks:
            self._health.fault(f"{self._source}.remarks", remarks)
        else:
            self._health.clear(f"{self._source}.remarks")
        self._check_pace()

    def _check_pace(self) -> None:
        expected = self._settings.fps
        is_slow = expected is not None and 0 < self.fps < expected / 2  # none at all is another matter
        self._slow = self._slow + 1 if is_slow else 0
        if self._slow >= _SLOW_AFTER:
            self._health.fault(f"{self._source}.pace", "slow", hint=f"{self.fps} of {expected} pictures per second")
        elif self._slow == 0:
            self._health.clear(f"{self._source}.pace")

    def _judged(self, verdict: Verdict) -> None:
        now_ns = self._clock.mono_ns()
        is_of_part = "part" in verdict.details
        if is_of_part and self._parts:
            self._parts.popleft()
        if not (is_of_part and verdict.reason == self._trouble):  # else there was no picture of it
            self._trouble = self._reported_ns = None
        if verdict.label not in (NOT_INSPECTED, UNKNOWN):
            self._refused_since_ns = None
            self._health.clear(self._source)
        elif self._refused_since_ns is None:
            self._refused_since_ns = now_ns
        elif now_ns - self._refused_since_ns > self._settings.deadline * NS:
            self._health.fault(self._source, verdict.reason or verdict.label, hint="its pictures cannot be judged")
        self._on_verdict(verdict)

    # --- what is wrong

    def _pictures_come(self) -> None:
        """Where no part comes for hours, nothing else would say that the camera is back."""
        if self._settings.trigger.kind != "time" and self._trouble is not None and self._refused_since_ns is None:
            self._trouble = self._reported_ns = None
            self._health.clear(self._source)

    def _sense(self, *, works: bool, why: str) -> None:
        """Whether parts are seen at all. Without a sensor nothing is inspected, and that is put on record."""
        self._sensor_fails = not works
        if works:
            self._health.clear(f"{self._source}.trigger")
            return
        self._health.fault(f"{self._source}.trigger", NO_TRIGGER, hint=why)
        self._remind()

    def _complain(self, reason: str, hint: str) -> None:
        if reason != self._trouble:
            self._trouble, self._reported_ns = reason, None
        self._health.fault(self._source, reason, hint=hint)
        self._remind()

    def _remind(self) -> None:
        """Put on record that nothing is inspected: at once when the reason is new, and again every so often."""
        now_ns = self._clock.mono_ns()
        trouble = self._trouble or (NO_TRIGGER if self._sensor_fails else None)
        if trouble is None:
            return
        if self._reported_ns is None or now_ns - self._reported_ns >= self._settings.report_every * NS:
            self._reported_ns = now_ns
            at = self._clock.stamp()
            self._on_verdict(Verdict(self._name, at, NOT_INSPECTED, "eye", reason=trouble))


def at_once(settings: CameraSection) -> CameraSection:
    """The same camera, to be looked at without waiting for a part, and without keeping anything."""
    unsure = UncertainSection(margin=0)
    evidence = settings.evidence.model_copy(update={"labels": (), "uncertain": unsure})
    return settings.model_copy(update={"evidence": evidence, "trigger": TriggerSection()})


def glance(
    name: str, kind: str, settings: CameraSection, clock: Clock, within_s: float, relative_to: Path = Path()
) -> Verdict:
    """Look once, in a process of its own, and keep nothing: what ``check`` asks. It never takes much longer."""
    nothing = at_once(settings)
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
