"""The eye process: one camera and who judges its pictures, in a process of its own that may hang or crash.

It speaks to the agent as :mod:`edge_agent.eye_link` says, and lives and ends as :mod:`edge_agent.judging_process` does.

::

    grab thread ──newest frame, or a part's──▶ judge loop ──verdict──▶ link
     opens, grabs,           ▲                  decodes, gate,  └─picture─▶ evidence thread ──▶ files, link
     opens again   sensor ───┘ a part           models, rule
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from drivers import opencv
from edge_agent import catalogue
from edge_agent.camera_settings import CameraSection
from edge_agent.clock import NS, Clock, SystemClock
from edge_agent.contracts import Camera
from edge_agent.deciding import Deciding, opened
from edge_agent.evidence import Keeper, Pencil
from edge_agent.evidence_folder import EvidenceFolder
from edge_agent.eye_link import Alive, Link, LinkClosedError, NonsenseError, packed
from edge_agent.grabber import Grabber, Slot
from edge_agent.judging_process import main
from edge_agent.looking import Eye
from edge_agent.mark import Mark
from edge_agent.memory import give_back, rss_bytes
from edge_agent.schedule import Backoff
from edge_agent.triggers import ByPart, ByTime, Occasions, PartSlot, Sensor
from edge_agent.vocabulary import NOT_INSPECTED, Evidence

_SENSOR_AGAIN_S: Final = 0.5, 30.0  # first and longest wait before it is tried again


class Report:
    """Tells the agent that there is life, and how much: only if something was grabbed since."""

    def __init__(
        self,
        link: Link,
        grabber: Grabber,
        models: list[Deciding],
        clock: Clock,
        every_s: float,
    ) -> None:
        self.judged = 0
        self.refused = 0
        self._models = models
        self._link = link
        self._grabber = grabber
        self.evicted = 0
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
            "evidence-evicted": self.evicted,
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
    tell = partial(_tell, link)
    sensor = _sensor(settings, clock, order["since_ns"], stop)
    slot = PartSlot(settings.trigger, clock) if sensor else Slot()
    grabber = Grabber(camera, min(1.0, settings.every), clock, stop, link.send, slot)
    occasions: Occasions = ByTime(slot, settings.every, clock)
    if sensor is not None and isinstance(slot, PartSlot):
        occasions = ByPart(slot, sensor, clock, tell, Backoff(*_SENSOR_AGAIN_S))
    models = []
    for each in order["models"]:
        link.send("opening")
        models.append(opened(each, name, mark, clock, settings.deadline))
    give_back()
    report = Report(link, grabber, models, clock, min(1.0, settings.deadline / 3))
    folder = EvidenceFolder(Path(order["evidence"]), settings.evidence)
    pencil = Pencil(opencv.shrunk, opencv.encode_jpeg, opencv.mark, opencv.glow)
    keeper = Keeper(name, settings.evidence, folder, pencil, clock, report.keep, report.lose)
    heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
    keeper.start()
    threading.Thread(target=grabber.run, name="grab", daemon=True).start()
    threading.Thread(target=_listen, args=(link, stop, heard), name="link", daemon=True).start()
    eye = Eye(name, settings, models, keeper, clock, tell)
    _judge_until(stop, eye, occasions, grabber, report, keeper, link, heard)
    keeper.finish(1.0)


def _tell(link: Link, say: str, **what: object) -> None:
    """For threads that are not ours: who is gone hears nothing."""
    with contextlib.suppress(LinkClosedError):
        link.send(say, **what)


def _sensor(settings: CameraSection, clock: Clock, since_ns: int, stop: threading.Event) -> Callable[[], Sensor] | None:
    """How to make what sees parts, where the config names such a thing."""
    if settings.trigger.kind == "gpio":
        from drivers.gpio_input import PartSensor  # noqa: PLC0415 - only who has one pays for it

        return lambda: PartSensor("part sensor", settings.trigger)
    if settings.trigger.kind == "simulated":
        from drivers.simulated.part_sensor import SimulatedPartSensor  # noqa: PLC0415 - as above

        period_s = getattr(settings, "part_every", settings.every)
        return lambda: SimulatedPartSensor(period_s, clock, since_ns, stop)
    return None


def _judge_until(
    stop: threading.Event,
    eye: Eye,
    occasions: Occasions,
    grabber: Grabber,
    report: Report,
    keeper: Keeper,
    link: Link,
    heard: SimpleQueue[dict[str, Any]],
) -> None:
    while not stop.is_set():
        report.evicted = keeper.evicted
        report.beat()
        while not heard.empty():
            eye.obey(heard.get())
        occasion = occasions.next(stop)
        looked = eye.look(occasion) if occasion is not None else None
        if looked is None:
            continue
        verdict, jobs = looked
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
