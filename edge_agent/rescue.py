"""Rows that outlive their database: from memory back to disk, or out of a damaged file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from edge_agent.database import DamagedError, Database, keep_marks, quarantine, read_marks, transaction
from edge_agent.errors import SpoolError
from edge_agent.outbox import Loss, Stored, stored

log = structlog.get_logger("rescue")

_CHUNK: Final = 500
_LIMIT_S: Final = 20.0  # of wall time; what is not salvaged by then stays in the file that was put aside
_FURTHEST: Final = 1 << 40
_UNKNOWN_BOOT: Final = "salvaged"


def rescue(target: Database, rows: Sequence[Stored], boot_id: str = _UNKNOWN_BOOT) -> None:
    """Put rows of other streams at the end of the queue of ``target``, with their own stream and seq.

    Raises sqlite3.Error, with nothing changed.
    """
    db = target.writer
    with transaction(db):
        if rows:
            db.execute("DELETE FROM meta WHERE key IN ('rows', 'bytes')")  # to be counted anew
        db.execute("INSERT OR IGNORE INTO boots(boot) VALUES(?)", (boot_id,))
        (boot,) = db.execute("SELECT id FROM boots WHERE boot=?", (boot_id,)).fetchone()
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
        db.executemany(
            "INSERT INTO outbox(id, stream, seq, class, topic, retain, boot, mono_ns, wall_ms, synced, body) "
            "VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            [
                (n, r.stream, r.seq, r.kind, r.topic, r.retain, boot, r.mono_ns, r.wall_ms, r.synced, r.body)
                for n, r in enumerate(rows, last + 1)
            ],
        )


def replace(disk: Database, damage: DamagedError, boot_id: str, wall_ms: int) -> tuple[Path, int, list[Loss]]:
    """Put the damaged file of ``disk`` aside and open a new one: the old one's new name, and what :func:`salvage` says.

    Raises SpoolError.
    """
    path = disk.path
    if path is None:
        raise SpoolError("memory cannot be put aside")
    try:
        aside = quarantine(path, wall_ms)
        disk.open(boot_id)
    except (OSError, DamagedError) as error:
        raise SpoolError(f"{path} is damaged ({damage}) and cannot be replaced: {error}") from damage
    return aside, *salvage(aside, disk)


def salvage(damaged: Path, target: Database) -> tuple[int, list[Loss]]:
    """Bring what can still be read of a damaged file into ``target``: how many rows, and what may be lost.

    Never fails. A loss here is an upper bound: some of its rows may have been delivered long ago.
    """
    try:
        with closing(sqlite3.connect(f"{damaged.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            meta = dict(db.execute("SELECT key, value FROM meta"))
            _save_marks(db, target)
            return _Salvage(db, str(meta["stream"]), int(meta["next_seq"])).into(target)
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        log.warning("nothing to salvage", file=str(damaged), why=str(error))
        return 0, []


def _save_marks(damaged: sqlite3.Connection, target: Database) -> None:
    """Where the counters stood, if that page can still be read."""
    try:
        marks = read_marks(damaged)
        with transaction(target.writer):
            keep_marks(target.writer, [(device, *row) for device, rows in marks.items() for row in rows.items()])
    except (sqlite3.Error, ValueError) as error:
        log.warning("counters begin anew", why=str(error))


class _Salvage:
    """Reads over the holes, and remembers between which numbers they lie."""

    def __init__(self, db: sqlite3.Connection, stream: str, next_seq: int) -> None:
        self._db = db
        self._stream = stream
        self._next_seq = next_seq
        self._last: dict[str, int] = {}  # stream → last seq that was read
        self._hole = False
        self._losses: list[Loss] = []

    def into(self, target: Database) -> tuple[int, list[Loss]]:
        saved, last = 0, dict(self._last)
        try:
            for chunk in self._chunks():
                rescue(target, chunk)
                saved, last = saved + len(chunk), dict(self._last)
        except sqlite3.Error as error:  # of the target: full, most likely
            log.warning("salvage stopped", after_rows=saved, why=str(error))
            self._hole, self._last = True, last
        if self._hole:
            self._lose_until(self._stream, self._next_seq)
        return saved, self._losses

    def _chunks(self) -> Iterator[list[Stored]]:
        deadline = time.monotonic() + _LIMIT_S
        after, hop = -1, 1
        while hop < _FURTHEST and time.monotonic() < deadline:
            chunk: list[Stored] = []
            count = 0
            try:
                for row in self._db.execute("SELECT * FROM outbox WHERE id > ? ORDER BY id LIMIT ?", (after, _CHUNK)):
                    after, hop, count = row[0], 1, count + 1
                    if (sound := self._sound(row)) is not None:
                        chunk.append(sound)
            except sqlite3.Error:
                self._hole = True
                after, hop, count = after + hop, hop * 2, _CHUNK
            if chunk:
                yield chunk
            if count < _CHUNK:
                return
        self._hole = True

    def _sound(self, row: Sequence[object]) -> Stored | None:
        """The row, if its body is still JSON; and what was lost before it, if there was a hole."""
        found = stored(row, self._stream)
        try:
            json.loads(f"{{{found.body}}}")
        except (ValueError, TypeError):
            self._hole = True
            return None
        if self._hole:
            self._hole = False
            self._lose_until(found.stream, found.seq)
        self._last[found.stream] = found.seq
        return found

    def _lose_until(self, stream: str, seq: int) -> None:
        first = self._last.get(stream, 0) + 1
        if first < seq:
            self._losses.append(Loss(stream, first, seq - 1, seq - first, "damaged"))
