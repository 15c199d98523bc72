"""Pictures kept as evidence: complete or not there, within their quota, oldest first out.

The files lie beside the database; their hashes travel in its rows. What a picture shows stands in the index of its
folder. Pictures of which the model was unsure have a room of their own, so that defects never push them out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_agent.clock import NS, Clock, Stamp, iso
from edge_agent.contracts import Frame
from edge_agent.errors import PictureError
from edge_agent.evidence_index import UNCERTAIN, Index, Kept, kept_as
from edge_agent.settings import EvidenceSection
from edge_agent.vocabulary import Evidence, Verdict
from edge_agent.whole import UNFINISHED, whole

_JPEG: Final = b"\xff\xd8"
_DAY_NS: Final = 86_400 * NS


def new_id(camera: str, at: Stamp) -> str:
    """Unique for ever, and in order of time where the clock was right."""
    return f"{camera}-{iso(at.wall_ms).translate({ord(mark): None for mark in '-:.'})}-{secrets.token_hex(4)}"


class EvidenceFolder:
    """The picture files of one camera. Only one process writes into it."""

    def __init__(self, path: Path, settings: EvidenceSection, quota: int | None = None) -> None:
        """``quota``: in bytes, instead of the settings' own."""
        self.path = path
        self.evicted = 0
        self._settings = settings
        self._quota = settings.quota if quota is None else quota
        self._index = Index(path)
        self._files: deque[tuple[int, str, int]] = deque()  # modified (ns), name, bytes; oldest first
        self._used = 0

    def open(self) -> None:
        """Take stock, and remove what a crash left unfinished; raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        found = []
        for file in self.path.iterdir():
            if file.name.endswith(UNFINISHED):
                file.unlink(missing_ok=True)
            elif file.suffix == ".jpg":
                status = file.stat()
                found.append((status.st_mtime_ns, file.stem, status.st_size))
        self._files = deque(sorted(found))
        self._used = sum(size for _, _, size in found)
        self._index.open({name for _, name, _ in found})

    def modified_ns(self) -> list[int]:
        """When each picture was written (Unix ns), oldest first."""
        return [modified_ns for modified_ns, _, _ in self._files]

    def write(self, data: bytes, at: Stamp, kept: Kept) -> Path:
        """Write the picture so that it is there whole, also after a power cut; raises OSError."""
        self._make_room(len(data), at)
        file = self.path / f"{kept.id}.jpg"
        with whole(file) as output:
            output.write(data)
        self._files.append((file.stat().st_mtime_ns, kept.id, len(data)))
        self._used += len(data)
        self._index.add(kept, (name for _, name, _ in self._files))
        return file

    def _make_room(self, size: int, at: Stamp) -> None:
        if size > self._quota:
            raise OSError(errno.EFBIG, "larger than the quota")
        while self._files and (self._used + size > self._quota or self._is_too_old(at)):
            _, name, freed = self._files.popleft()
            (self.path / f"{name}.jpg").unlink(missing_ok=True)
            self._used -= freed
            self.evicted += 1
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < self._settings.keep_free + size:
            raise OSError(errno.ENOSPC, "too little room left on the disk")

    def _is_too_old(self, at: Stamp) -> bool:
        """Age counts only while the clock is known to be right."""
        return at.synced and at.wall_ms * 1_000_000 - self._files[0][0] > self._settings.keep * 1e9


class Turns:
    """Whose turn it is to be kept for labelling: not too many in 24 hours, not one after the other."""

    def __init__(self, per_day: int, apart_s: float) -> None:
        self._per_day = per_day
        self._apart_ns = int(apart_s * NS)
        self._taken: deque[int] = deque()  # monotonic, oldest first

    def remember(self, taken_ns: Iterable[int]) -> None:
        """Those that were taken before a restart."""
        self._taken.extendleft(sorted(taken_ns, reverse=True))

    def take(self, now_ns: int) -> bool:
        while self._taken and now_ns - self._taken[0] >= _DAY_NS:
            self._taken.popleft()
        if len(self._taken) >= self._per_day or (self._taken and now_ns - self._taken[-1] < self._apart_ns):
            return False
        self._taken.append(now_ns)
        return True


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

    ``decode(jpeg)``, ``encode(image, quality)``. Into an image draw ``mark(image, box, text)``: a box around what was
    found, and who says so; ``glow(image, region, levels)``: where it is hot.
    """

    decode: Callable[[bytes], Any]
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
        image = shot.image.copy() if shot.jpeg is None else self._pencil.decode(shot.jpeg)
        if shot.heat:
            self._pencil.glow(image, shot.region, shot.heat)
        text = f"{verdict.label} {verdict.score} of {verdict.threshold}, {verdict.decided_by}"
        self._pencil.mark(image, box_of(shot) or shot.region, text)
        return self._pencil.encode(image, quality)


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
