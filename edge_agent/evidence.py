"""Pictures kept as evidence: complete or not there, within their quota, oldest first out.

The files lie beside the database; their hashes travel in its rows. What a picture shows stands in the index of its
folder. Pictures of which the model was unsure have a room of their own, so that defects never push them out.
"""

from __future__ import annotations

import hashlib
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from edge_agent.camera_settings import EvidenceSection
from edge_agent.clock import Clock, Stamp, iso
from edge_agent.contracts import Frame
from edge_agent.errors import PictureError
from edge_agent.evidence_folder import EvidenceFolder, Turns
from edge_agent.evidence_index import UNCERTAIN, kept_as
from edge_agent.vocabulary import Evidence, Verdict

_JPEG: Final = b"\xff\xd8"


def new_id(camera: str, at: Stamp) -> str:
    """Unique for ever, and in order of time where the clock was right."""
    return f"{camera}-{iso(at.wall_ms).translate({ord(mark): None for mark in '-:.'})}-{secrets.token_hex(4)}"


Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


@dataclass(slots=True)
class Shot:
    """A judged picture: as it came where that was a JPEG, else its pixels, which are ten times as large.

    ``region``: what was judged, and where boxes count from. ``heat``: rows of levels from ``0`` to ``f`` that cover it.
    """

    at: Stamp
    image: Any
    jpeg: bytes | None
    verdict: Verdict
    region: Box
    heat: Sequence[str] = ()


class Job(NamedTuple):
    """One picture to be written. ``of``: id of the verdict that it is kept for."""

    id: str
    shot: Shot
    role: str
    of: str


class Pencil(NamedTuple):
    """What is needed to write pictures.

    ``encode(image, quality)``; ``shrunk(source)``: a copy of an image or JPEG, and how many times smaller it is. Into
    that draw ``mark(image, box, text)``: a box around what was found, and who says so; and ``glow(image, region,
    levels)``: where it is hot.
    """

    shrunk: Callable[[Any], tuple[Any, int]]
    encode: Callable[[Any, int], bytes]
    mark: Callable[[Any, Box, str], None]
    glow: Callable[[Any, Box, Sequence[str]], None]


class Keeper:
    """Writes evidence in a thread of its own, so that a slow disk does not slow the judge.

    ``report``: called when a file is complete; ``lost``: when one could not be kept.
    """

    def __init__(
        self,
        camera: str,
        settings: EvidenceSection,
        folder: EvidenceFolder,
        pencil: Pencil,
        clock: Clock,
        report: Callable[[Evidence], None],
        lost: Callable[[str], None],
    ) -> None:
        self._camera = camera
        self._settings = settings
        self._folder = folder
        self._room = EvidenceFolder(folder.path / UNCERTAIN, settings, settings.uncertain.quota)
        self._turns = Turns(settings.uncertain.per_day, settings.uncertain.apart)
        self._pencil = pencil
        self._clock = clock
        self._report = report
        self._lost = lost
        self._recent: deque[Shot] = deque(maxlen=settings.pre)
        self._after: tuple[str, int] = ("", 0)  # id of the last verdict, how many of its post pictures came
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=settings.pre + settings.post + 6)
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)

    @property
    def evicted(self) -> int:
        """Pictures that made room for others."""
        return self._folder.evicted + self._room.evicted

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Write what waits, then end."""
        try:
            self._jobs.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def plan(self, frame: Frame, image: Any, verdict: Verdict, region: Box, heat: Sequence[str] = ()) -> list[Job]:
        """What of this judged picture and of those before it will be kept; ``verdict.evidence`` then names its own.

        Called for every judged picture, in order; nothing is written before ``submit``. When the disk is so
        slow that the queue is full, nothing is kept, and that is counted.
        """
        jpeg = frame.encoded if frame.encoded and frame.encoded.startswith(_JPEG) else None
        shot = Shot(frame.at, None if jpeg else image, jpeg, verdict, region, heat)
        known, came = self._after
        if verdict.label in self._settings.labels:
            jobs = self._around(shot)
            after = (jobs[-1].of, 0)
        elif known and came < self._settings.post:
            jobs = [Job(f"{known}-post{came + 1}", shot, "post", known)]
            after = (known, came + 1)
        else:
            after = self._after
            jobs = self._unsure(shot)
            self._recent.append(shot)
        if self._jobs.maxsize - self._jobs.qsize() < len(jobs):
            self._lost("the disk is too slow")
            return []
        self._after = after
        if any(job.role in ("pre", "verdict", "post") for job in jobs):
            self._recent.clear()  # they are kept once, not again before the next verdict
        verdict.evidence = next((job.id for job in jobs if job.role in ("verdict", UNCERTAIN)), None)
        return jobs

    def _around(self, shot: Shot) -> list[Job]:
        """The picture of a verdict that is kept, those before it, and a copy that says where."""
        kept = new_id(self._camera, shot.at)
        before = reversed(list(enumerate(reversed(self._recent), start=1)))
        jobs = [*(Job(f"{kept}-pre{n}", old, "pre", kept) for n, old in before), Job(kept, shot, "verdict", kept)]
        if self._settings.overlay and (shot.heat or box_of(shot) is not None):
            jobs.append(Job(f"{kept}-overlay", shot, "overlay", kept))
        return jobs

    def _unsure(self, shot: Shot) -> list[Job]:
        """What nobody else keeps, and somebody should label."""
        if "uncertain" not in shot.verdict.details or not self._turns.take(self._clock.mono_ns()):
            return []
        kept = new_id(self._camera, shot.at)
        return [Job(kept, shot, UNCERTAIN, kept)]

    def submit(self, jobs: Iterable[Job]) -> None:
        """Write them; there is room for what ``plan`` returned last."""
        for job in jobs:
            self._jobs.put_nowait(job)

    def _run(self) -> None:
        try:
            self._folder.open()
            self._room.open()
            stamp = self._clock.stamp()
            offset_ns = stamp.wall_ms * 1_000_000 - stamp.mono_ns
            self._turns.remember(modified_ns - offset_ns for modified_ns in self._room.modified_ns())
        except OSError as error:
            self._lost(str(error))
        while (job := self._jobs.get()) is not None:
            folder = self._room if job.role == UNCERTAIN else self._folder
            try:
                data = self._drawn(job)
                path = folder.write(data, job.shot.at, kept_as(job.id, job.role, job.of, job.shot.verdict))
            except (OSError, PictureError) as error:
                self._lost(str(error))
                continue
            digest = hashlib.sha256(data).hexdigest()
            self._report(Evidence(self._camera, job.shot.at, job.id, str(path), digest, len(data), job.role))

    def _drawn(self, job: Job) -> bytes:
        """The bytes of the file: as they came, wherever that is possible."""
        shot, quality = job.shot, self._settings.jpeg_quality
        if job.role != "overlay":
            return shot.jpeg or self._pencil.encode(shot.image, quality)
        verdict = shot.verdict
        image, factor = self._pencil.shrunk(shot.jpeg or shot.image)
        if shot.heat:
            self._pencil.glow(image, _smaller(shot.region, factor), shot.heat)
        text = f"{verdict.label} {verdict.score} of {verdict.threshold}, {verdict.decided_by}"
        self._pencil.mark(image, _smaller(box_of(shot) or shot.region, factor), text)
        return self._pencil.encode(image, quality)


def _smaller(box: Box, factor: int) -> Box:
    left, top, wide, high = (side // factor for side in box)
    return left, top, wide, high


_AROUND: Final = 12  # pixels on each side of a place without a size


def box_of(shot: Shot) -> Box | None:
    """Where the judge found something, in the whole picture; None: it did not say."""
    left, top, *_ = shot.region
    match shot.verdict.details:
        case {"box_px": [int(x), int(y), int(wide), int(high)]}:
            return left + x, top + y, wide, high
        case {"at_px": [int(x), int(y)]}:
            return left + x - _AROUND, top + y - _AROUND, 2 * _AROUND, 2 * _AROUND
        case _:
            return None
