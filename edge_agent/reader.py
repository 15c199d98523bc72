"""How another thread reads the outbox while the record thread writes it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_agent.database import spool_error
from edge_agent.outbox import ALARM, Stored, stored


class Reader:
    """Rows of the outbox in order, for one other thread. Its methods raise SpoolError."""

    def __init__(self, db: sqlite3.Connection, stream: str, generation: int, path: Path | None = None) -> None:
        self.generation = generation
        self._db = db
        self._stream = stream
        self._path = path

    def rows(self, after: int, before: int, count: int, *, alarms: bool) -> list[Stored]:
        """Up to ``count`` rows with ``after < id < before``: alarms only, or everything else."""
        relation = "=" if alarms else "<>"
        try:
            cursor = self._db.execute(
                f"SELECT * FROM outbox WHERE id > ? AND id < ? AND class {relation} {ALARM} ORDER BY id LIMIT ?",
                (after, before, count),
            )
            return [stored(row, self._stream) for row in cursor]
        except sqlite3.Error as error:
            raise spool_error(error, self._path) from error

    def offset_ms(self, boot: int) -> int | None:
        """UTC minus monotonic milliseconds of a boot, once that boot's clock was synced."""
        try:
            row = self._db.execute("SELECT offset_ms FROM boots WHERE id=?", (boot,)).fetchone()
        except sqlite3.Error as error:
            raise spool_error(error, self._path) from error
        return int(row[0]) if row and row[0] is not None else None

    def close(self) -> None:
        self._db.close()
