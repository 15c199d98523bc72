"""The eye process: one camera, one judge, in a process of its own that may hang or crash.

``python -m edge_agent.eye_process FD``: FD is its end of the link to the agent (:mod:`edge_agent.eye_link`).

::

    grab thread ──newest frame──▶ judge loop ──verdict──▶ link
     opens, grabs,                 decodes, gate,  └─picture─▶ evidence thread ──▶ files, link
     opens again                   judges

It ends when the link closes, and the kernel kills it when the agent dies. Signals that are meant for the
agent do not reach it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import traceback
from math import isfinite
from pathlib import Path
from typing import Any, Final

from drivers import opencv
from drivers.pictures import Gate
from edge_agent import catalogue
from edge_agent.clock import NS, Clock, SystemClock
from edge_agent.contracts import Camera, Frame, Judge
from edge_agent.errors import EdgeAgentError, PictureError
from edge_agent.evidence import EvidenceFolder, Keeper
from edge_agent.eye_link import LABELS, Alive, Link, LinkClosedError, NonsenseError, packed
from edge_agent.grabber import Grabber, Shot
from edge_agent.schedule import Periodic
from edge_agent.settings import CameraSection
from edge_agent.vocabulary import FROZEN, JUDGE_FAILED, NOT_INSPECTED, Evidence, Judgement, Verdict

_PR_SET_PDEATHSIG: Final = 1
_OOM_SCORE = "500"  # when memory runs out, an eye goes before the agent
_NAP_S = 0.5
_DETAILS = 16_384  # bytes
_BROKEN = 70  # exit status: a mistake of ours, not of the camera


class Eye:
    """The judge loop: looks at the newest picture every so often and says what it is."""

    def __init__(self, name: str, settings: CameraSection, judges: list[Judge], keeper: Keeper, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self._name = name
        self._judges = judges
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
        failures = []
        for judge in self._judges:
            try:
                said = judge.judge(self._gate.region(image))
                _check(said)
            except Exception as error:  # whatever a model runtime throws: the next judge decides, never "good"
                failures.append(f"{judge.decided_by}: {type(error).__name__}: {error}"[:300])
                continue
            return Verdict(
                self._name,
                shot.at,
                said.label,
                judge.decided_by,
                score=said.score,
                threshold=said.threshold,
                model_sha256=judge.model_sha256,
                details={**details, **said.details, **({"failed": failures} if failures else {})},
            )
        return self._refused(JUDGE_FAILED, "; ".join(failures), shot, details)

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


def _check(said: Judgement) -> None:
    """Raises for what cannot be a judgement, or cannot be told."""
    if said.label not in LABELS or not isfinite(said.score) or not isfinite(said.threshold):
        raise ValueError(f"label {said.label!r}, score {said.score!r}, threshold {said.threshold!r}")
    if len(json.dumps(said.details, allow_nan=False)) > _DETAILS:
        raise ValueError("too many details")


class Report:
    """Tells the agent that there is life, and how much: only if something was grabbed since."""

    def __init__(self, link: Link, grabber: Grabber, folder: EvidenceFolder, clock: Clock, every_s: float) -> None:
        self.judged = 0
        self.refused = 0
        self.standing: list[str] = []  # remarks that stay
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
        fps = round(counts["grabbed"] / ((now_ns - self._last_ns) / NS), 2)
        lost = [f"evidence is lost: {self._why_lost}"] if self._why_lost else []
        remarks = [*self.standing, *self._grabber.remarks, *lost]
        self._last_ns, self._progress, self._said = now_ns, self._grabber.progress, totals
        self._link.send("alive", alive=packed(Alive(counts, fps, _rss_bytes(), [remark[:300] for remark in remarks])))


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _live(link: Link, order: dict[str, Any]) -> None:
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
    report = Report(link, grabber, folder, clock, min(1.0, settings.deadline / 3))
    keeper = Keeper(name, settings.evidence, folder, opencv.encode_jpeg, report.keep, report.lose)
    judges = _judges(order["judges"], report.standing)
    keeper.start()
    threading.Thread(target=grabber.run, name="grab", daemon=True).start()
    threading.Thread(target=_listen, args=(link, stop), name="link", daemon=True).start()
    _judge_until(stop, Eye(name, settings, judges, keeper, clock), grabber, report, keeper, link)
    keeper.finish(1.0)


def _judges(specs: list[dict[str, Any]], remarks: list[str]) -> list[Judge]:
    """In the order in which they are asked; one that cannot be loaded leaves the decision to the next."""
    judges = []
    for spec in specs:
        try:
            kind = catalogue.load(catalogue.JUDGES, spec["kind"])
            judge: Judge = kind(kind.Settings.model_validate(spec))
            judge.open()
            judges.append(judge)
        except EdgeAgentError as error:
            remarks.append(f"{spec['kind']} cannot decide: {error}")
    return judges


def _judge_until(stop: threading.Event, eye: Eye, grabber: Grabber, report: Report, keeper: Keeper, link: Link) -> None:
    clock = eye.clock
    tick = Periodic.every(eye.settings.every, clock.mono_ns())
    while not stop.is_set():
        report.beat()
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
        if verdict.label == NOT_INSPECTED:
            report.refused += 1
        else:
            grabber.works()
        if eye.is_stuck():
            grabber.open_again()


def _listen(link: Link, stop: threading.Event) -> None:
    """The parent says nothing more; when its end closes, that is the order to stop."""
    try:
        while True:
            link.receive(None)
    except (LinkClosedError, NonsenseError):
        stop.set()


def _settle(parent: int) -> None:
    """Die with the parent, die before it when memory runs out, and leave its signals to it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    # Standard error itself may be borrowed while a picture is decoded.
    faulthandler.enable(os.dup(2))
    threading.excepthook = lambda failed: _break(failed.exc_value)


def _break(error: BaseException | None) -> None:
    """A thread failed: the whole process ends, so that the parent notices and starts it again."""
    if isinstance(error, LinkClosedError):
        os._exit(0)
    traceback.print_exception(error)
    os._exit(_BROKEN)


def main() -> None:
    """See the head of this file."""
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    try:
        order = link.receive(None)
        if order is not None:
            _settle(order["parent"])
            _live(link, order)
    except Exception as error:  # the one place where a mistake of ours ends
        _break(error)
    # Not the long way: a camera that hangs would keep the interpreter from ending.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
