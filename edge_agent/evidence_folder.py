"""The files of evidence: whole or not there, within their quota, oldest first out; and whose turn it is to be kept."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge_agent.camera_settings import EvidenceSection
from edge_agent.clock import NS, Stamp
from edge_agent.evidence_index import Index, Kept
from edge_agent.whole import UNFINISHED, whole

_DAY_NS: Final = 86_400 * NS


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
