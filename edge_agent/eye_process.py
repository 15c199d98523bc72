"""The eye process: one camera and who judges its pictures, in a process of its own that may hang or crash.

It speaks to the agent as :mod:`edge_agent.eye_link` says, and lives and ends as :mod:`edge_agent.judging_process` does.

::

    grab thread ──newest frame──▶ judge loop ──verdict──▶ link
     opens, grabs,                 decodes, gate,  └─picture─▶ evidence thread ──▶ files, link
     opens again                   models, rule
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from drivers import opencv
from drivers.pictures import Gate
from edge_agent import catalogue
from edge_agent.clock import NS, Clock, SystemClock
from edge_agent.contracts import Camera, Frame
from edge_agent.deciding import Deciding, opened
from edge_agent.errors import PictureError
from edge_agent.evidence import EvidenceFolder, Keeper
from edge_agent.eye_link import Alive, Link, LinkClosedError, NonsenseError, Trial, packed
from edge_agent.grabber import Grabber, Shot
from edge_agent.judging_process import main, rss_bytes
from edge_agent.mark import Mark
from edge_agent.schedule import Periodic
from edge_agent.settings import CameraSection
from edge_agent.vocabulary import DEFECT, FROZEN, GOOD, NOT_INSPECTED, Evidence, Verdict

_NAP_S: Final = 0.5


_GRAVEST: Final = {DEFECT: 0, GOOD: 2}  # everything else is between them


class Eye:
    """The judge loop: looks at the newest picture every so often and says what it is."""

    def __init__(
        self, name: str, settings: CameraSection, models: list[Deciding], keeper: Keeper, clock: Clock
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._name = name
        self._models = models
        self._keeper = keeper
        self._gate = Gate(settings.picture, settings.size, settings.roi)
        self._frozen_since_ns: int | None = None

    def look(self, shot: Shot) -> tuple[Verdict, list[Any]]:
        """The verdict about one picture, and what to keep as evidence for it."""
        if isinstance(shot, PictureError):
            return self._refused(shot.reason, str(shot)), []
        details: dict[str, object] = {"file": shot.name} if shot.name else {}
        try:
            image = (
                shot.image if shot.encoded is None else opencv.decode(shot.encoded, self.settings.picture.max_pixels)
            )
        except PictureError as error:
            return self._refused(error.reason, str(error), shot, details), []
        reason = self._gate.refuse(image)
        verdict = self._decide(shot, image, details) if reason is None else self._refused(reason, "", shot, details)
        self._notice_frozen(reason)
        verdict.latency_ms = round((self.clock.mono_ns() - shot.at.mono_ns) / 1e6, 2)
        jobs = self._keeper.plan(shot, image, verdict.label)
        verdict.evidence = next((job.id for job in jobs if job.role == "verdict"), None)
        return verdict, jobs

    def _decide(self, shot: Frame, image: Any, details: dict[str, object]) -> Verdict:
        region = self._gate.region(image)
        verdicts = {model.model: model.decide(region, shot.at) for model in self._models}
        # Of several models, the one that has something against it speaks; never "good" while one does not know.
        verdict = min(verdicts.values(), key=lambda each: _GRAVEST.get(each.label, 1))
        if len(verdicts) > 1:
            details["models"] = {
                name: {"label": each.label, "score": each.score, "decided_by": each.decided_by}
                for name, each in verdicts.items()
            }
        verdict.details = {**details, **verdict.details}
        return verdict

    def obey(self, message: Mapping[str, Any]) -> None:
        """A candidate is to be tried, or none any more."""
        for model in self._models:
            if message["say"] == "candidate" and message["model"] == model.model:
                model.try_beside(message["candidate"], message["judgements"])

    def trials(self) -> Iterator[Trial]:
        """What became of candidates, once."""
        for model in self._models:
            if model.trial is not None:
                yield model.trial
                model.trial = None

    def _refused(
        self, reason: str, why: str, shot: Frame | None = None, details: dict[str, object] | None = None
    ) -> Verdict:
        said = {**(details or {}), **({"why": why} if why else {})}
        at = shot.at if shot is not None else self.clock.stamp()
        return Verdict(self._name, at, NOT_INSPECTED, "gate", reason=reason, details=said)

    def _notice_frozen(self, reason: str | None) -> None:
        now_ns = self.clock.mono_ns()
        self._frozen_since_ns = (self._frozen_since_ns or now_ns) if reason == FROZEN else None

    def is_stuck(self) -> bool:
        """The same picture for longer than the deadline: opening the camera again may help."""
        since_ns = self._frozen_since_ns
        stuck = since_ns is not None and self.clock.mono_ns() - since_ns > self.settings.deadline * NS
        if stuck:
            self._frozen_since_ns = None
        return stuck


class Report:
    """Tells the agent that there is life, and how much: only if something was grabbed since."""

    def __init__(
        self,
        link: Link,
        grabber: Grabber,
        folder: EvidenceFolder,
        models: list[Deciding],
        clock: Clock,
        every_s: float,
    ) -> None:
        self.judged = 0
        self.refused = 0
        self._models = models
        self._link = link
        self._grabber = grabber
        self._folder = folder
        self._clock = clock
        self._every_ns = int(every_s * NS)
        self._last_ns = clock.mono_ns()
        self._progress = 0
        self._said: dict[str, int] = {}
        self._lost = 0
        self._why_lost = ""

    def lose(self, why: str) -> None:
        """A picture could not be kept."""
        self._lost += 1
        self._why_lost = why

    def keep(self, evidence: Evidence) -> None:
        """A picture is complete."""
        self._why_lost = ""
        self._link.send("evidence", evidence=packed(evidence))

    def beat(self) -> None:
        """To be called often."""
        now_ns = self._clock.mono_ns()
        if now_ns - self._last_ns < self._every_ns or self._grabber.progress == self._progress:
            return
        totals = {
            "grabbed": self._grabber.slot.grabbed,
            "dropped": self._grabber.slot.dropped,
            "judged": self.judged,
            "not-inspected": self.refused,
            "evidence-lost": self._lost,
            "evidence-evicted": self._folder.evicted,
        }
        counts = {name: total - self._said.get(name, 0) for name, total in totals.items()}
        for model in self._models:
            counts |= model.counts()
        fps = round(counts["grabbed"] / ((now_ns - self._last_ns) / NS), 2)
        lost = [f"evidence is lost: {self._why_lost}"] if self._why_lost else []
        standing = [remark for model in self._models for remark in model.remarks]
        remarks = [remark[:300] for remark in (*standing, *self._grabber.remarks, *lost)]
        shares = {model.model: model.fallback_share for model in self._models}
        self._last_ns, self._progress, self._said = now_ns, self._grabber.progress, totals
        self._link.send("alive", alive=packed(Alive(counts, fps, rss_bytes(), remarks, shares)))


def _live(link: Link, mark: Mark, order: dict[str, Any]) -> None:
    """Look until the link closes. ``order``: what the parent said first."""
    clock, stop = SystemClock(), threading.Event()
    name = order["camera"]
    with contextlib.suppress(OSError):  # then relative paths are not found, and that is told
        os.chdir(order["folder"])  # relative paths are relative to the config
    kind = catalogue.load(catalogue.CAMERAS, order["kind"])
    settings: CameraSection = kind.Settings.model_validate(order["settings"])
    camera: Camera = kind(name, settings, clock, order["since_ns"])
    folder = EvidenceFolder(Path(order["evidence"]), settings.evidence)
    grabber = Grabber(camera, min(1.0, settings.every), clock, stop, link.send)
    models = [opened(each, name, mark, clock, settings.deadline) for each in order["models"]]
    report = Report(link, grabber, folder, models, clock, min(1.0, settings.deadline / 3))
    keeper = Keeper(name, settings.evidence, folder, opencv.encode_jpeg, report.keep, report.lose)
    heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
    keeper.start()
    threading.Thread(target=grabber.run, name="grab", daemon=True).start()
    threading.Thread(target=_listen, args=(link, stop, heard), name="link", daemon=True).start()
    _judge_until(stop, Eye(name, settings, models, keeper, clock), grabber, report, keeper, link, heard)
    keeper.finish(1.0)


def _judge_until(
    stop: threading.Event,
    eye: Eye,
    grabber: Grabber,
    report: Report,
    keeper: Keeper,
    link: Link,
    heard: SimpleQueue[dict[str, Any]],
) -> None:
    clock = eye.clock
    tick = Periodic.every(eye.settings.every, clock.mono_ns())
    while not stop.is_set():
        report.beat()
        while not heard.empty():
            eye.obey(heard.get())
        now_ns = clock.mono_ns()
        if not tick.is_due(now_ns):
            clock.wait(stop, min((tick.due_ns - now_ns) / NS, _NAP_S))
            continue
        shot = grabber.slot.take(_NAP_S)
        if shot is None:
            continue
        tick.advance(clock.mono_ns())
        verdict, jobs = eye.look(shot)
        report.judged += 1
        link.send("verdict", verdict=packed(verdict))  # first: the light does not wait for the disk
        keeper.submit(jobs)
        for trial in eye.trials():
            link.send("trial", trial=packed(trial))
        if verdict.label == NOT_INSPECTED:
            report.refused += 1
        else:
            grabber.works()
        if eye.is_stuck():
            grabber.open_again()


def _listen(link: Link, stop: threading.Event, heard: SimpleQueue[dict[str, Any]]) -> None:
    """What the parent says later; when its end closes, that is the order to stop."""
    try:
        while True:
            message = link.receive(None)
            if message is not None:
                heard.put(message)
    except (LinkClosedError, NonsenseError):
        stop.set()


if __name__ == "__main__":
    main(_live)
