"""Pictures kept as evidence: complete or not there, within their quota, oldest first out.

The files lie beside the database; their hashes travel in its rows.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_agent.clock import Stamp, iso
from edge_agent.contracts import Frame
from edge_agent.errors import PictureError
from edge_agent.settings import EvidenceSection
from edge_agent.vocabulary import Evidence
from edge_agent.whole import UNFINISHED, whole

_JPEG: Final = b"\xff\xd8"


def new_id(camera: str, at: Stamp) -> str:
    """Unique for ever, and in order of time where the clock was right."""
    return f"{camera}-{iso(at.wall_ms).translate({ord(mark): None for mark in '-:.'})}-{secrets.token_hex(4)}"


class EvidenceFolder:
    """The picture files of one camera. Only one process writes into it."""

    def __init__(self, path: Path, settings: EvidenceSection) -> None:
        self.path = path
        self.evicted = 0
        self._settings = settings
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
                found.append((status.st_mtime_ns, file.name, status.st_size))
        self._files = deque(sorted(found))
        self._used = sum(size for _, _, size in found)

    def write(self, name: str, data: bytes, at: Stamp) -> None:
        """Write ``<name>.jpg`` so that it is there whole, also after a power cut; raises OSError."""
        self._make_room(len(data), at)
        file = self.path / f"{name}.jpg"
        with whole(file) as output:
            output.write(data)
        self._files.append((file.stat().st_mtime_ns, file.name, len(data)))
        self._used += len(data)

    def _make_room(self, size: int, at: Stamp) -> None:
        if size > self._settings.quota:
            raise OSError(errno.EFBIG, "larger than the quota")
        while self._files and (self._used + size > self._settings.quota or self._is_too_old(at)):
            _, name, freed = self._files.popleft()
            (self.path / name).unlink(missing_ok=True)
            self._used -= freed
            self.evicted += 1
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < self._settings.keep_free + size:
            raise OSError(errno.ENOSPC, "too little room left on the disk")

    def _is_too_old(self, at: Stamp) -> bool:
        """Age counts only while the clock is known to be right."""
        return at.synced and at.wall_ms * 1_000_000 - self._files[0][0] > self._settings.keep * 1e9


@dataclass(slots=True)
class _Shot:
    at: Stamp
    image: Any
    jpeg: bytes | None


class Job(NamedTuple):
    """One picture to be written."""

    id: str
    shot: _Shot
    role: str


class Keeper:
    """Writes evidence in a thread of its own, so that a slow disk does not slow the judge.

    ``encode``: an image as JPEG; ``report``: called when a file is complete; ``lost``: when one could not be kept.
    """

    def __init__(
        self,
        camera: str,
        settings: EvidenceSection,
        folder: EvidenceFolder,
        encode: Callable[[Any, int], bytes],
        report: Callable[[Evidence], None],
        lost: Callable[[str], None],
    ) -> None:
        self._camera = camera
        self._settings = settings
        self._folder = folder
        self._encode = encode
        self._report = report
        self._lost = lost
        self._recent: deque[_Shot] = deque(maxlen=settings.pre)
        self._after: tuple[str, int] = ("", 0)  # id of the last verdict, how many of its post pictures came
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=2 * (settings.pre + 1 + settings.post) + 2)
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Write what waits, then end."""
        try:
            self._jobs.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def plan(self, frame: Frame, image: Any, label: str) -> list[Job]:
        """What of this judged picture and of those before it will be kept; the verdict's own comes last.

        Called for every judged picture, in order; nothing is written before ``submit``. When the disk is so
        slow that the queue is full, nothing is kept, and that is counted.
        """
        shot = _Shot(frame.at, image, frame.encoded if frame.encoded and frame.encoded.startswith(_JPEG) else None)
        verdict, came = self._after
        if label in self._settings.labels:
            kept = new_id(self._camera, frame.at)
            before = reversed(list(enumerate(reversed(self._recent), start=1)))
            jobs = [*(Job(f"{kept}-pre{n}", old, "pre") for n, old in before), Job(kept, shot, "verdict")]
            after = (kept, 0)
        elif verdict and came < self._settings.post:
            jobs = [Job(f"{verdict}-post{came + 1}", shot, "post")]
            after = (verdict, came + 1)
        else:
            self._recent.append(shot)
            return []
        if self._jobs.maxsize - self._jobs.qsize() < len(jobs):
            self._lost("the disk is too slow")
            return []
        self._after = after
        self._recent.clear()  # they are kept once, not again before the next verdict
        return jobs

    def submit(self, jobs: Iterable[Job]) -> None:
        """Write them; there is room for what ``plan`` returned last."""
        for job in jobs:
            self._jobs.put_nowait(job)

    def _run(self) -> None:
        try:
            self._folder.open()
        except OSError as error:
            self._lost(str(error))
        while (job := self._jobs.get()) is not None:
            try:
                data = job.shot.jpeg or self._encode(job.shot.image, self._settings.jpeg_quality)
                self._folder.write(job.id, data, job.shot.at)
            except (OSError, PictureError) as error:
                self._lost(str(error))
                continue
            digest = hashlib.sha256(data).hexdigest()
            path = str(self._folder.path / f"{job.id}.jpg")
            self._report(Evidence(self._camera, job.shot.at, job.id, path, digest, len(data), job.role))
