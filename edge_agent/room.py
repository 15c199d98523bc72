"""How much room the spool may take: its own limit, and what others need on the same disk."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

RESERVE_BYTES: Final = 1 << 20  # a DELETE needs room in the WAL even when the disk is full
MEMORY_LIMIT_BYTES: Final = 32 << 20
SMALLEST_BITE: Final = 16 << 10  # bytes evicted at once, at least …
LARGEST_BITE: Final = 8 << 20  # … and at most: it is done within one commit
_ROOM_INSIDE_PAGES: Final = 64  # free pages in the file that are room enough to go on


class Room:
    """Beside the database at ``path``. ``volatile``: rows live in memory; ``tight``: the disk was full."""

    def __init__(self, path: Path, limit_bytes: int, floor_bytes: int) -> None:
        self.volatile = False
        self.tight = False
        self._folder = path.parent
        self._reserve = path.with_name("reserve")
        self._limit_bytes = limit_bytes
        self._floor_bytes = floor_bytes
        self._crowded = False  # others need the disk too

    @property
    def limit_bytes(self) -> int:
        return min(self._limit_bytes, MEMORY_LIMIT_BYTES) if self.volatile else self._limit_bytes

    def is_plenty(self, taken: int) -> bool:
        """Whether the limit is far again, and the disk has room for others too."""
        return taken < 0.9 * self.limit_bytes and not self._crowded

    def spend_reserve(self) -> None:
        """The disk is full: from here on the room of the reserve is for the WAL, which is kept short."""
        self.tight = True
        self._reserve.unlink(missing_ok=True)

    def excess(self, db: sqlite3.Connection, taken: int) -> int:
        """How many bytes of those that are taken have to go. Raises sqlite3.Error."""
        limit = self.limit_bytes
        if taken > limit:
            # A little more than needed, so that not every commit evicts.
            return taken - limit + min(limit // 50, LARGEST_BITE // 2)
        self._crowded = not self.volatile and (self._free_bytes() < self._floor_bytes or self.tight)
        if not self._crowded:
            return 0
        # The disk fills up, whoever does it: the file must not grow, so live on the room inside it.
        if taken < RESERVE_BYTES and not self.tight:
            return 0  # a few rows in flight are not what fills a disk
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        return max(SMALLEST_BITE, taken // 50) if free < min(_ROOM_INSIDE_PAGES, pages // 8) else 0

    def _free_bytes(self) -> int:
        """Room on the disk; with plenty of it, some is set aside for the day when there is none."""
        try:
            disk = os.statvfs(self._folder)
            free = disk.f_bavail * disk.f_frsize
            if free > self._floor_bytes + 2 * RESERVE_BYTES and not self._reserve.exists():
                self._reserve.write_bytes(bytes(RESERVE_BYTES))
                self.tight = False
        except OSError:
            return self._floor_bytes
        return free
