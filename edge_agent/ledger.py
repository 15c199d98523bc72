"""The queue in one database: what is put into it and taken out, numbered and counted.

``id`` is the place in the queue, given once within the life of a ledger; ``seq`` is what the integrator counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from edge_agent.clock import Stamp
from edge_agent.database import Database, transaction
from edge_agent.outbox import ROW_OVERHEAD_BYTES, ROW_SIZE, Row, Stored, ranges
from edge_agent.parking import park

Parked = Iterable[tuple[int, str]]
"""Ids with the reason why no broker will take them."""
Notes = Mapping[str, str]
"""What is to be remembered, by key; see the table meta."""
NO_NOTES: Final[Notes] = {}


class Ledger:
    """The only one that changes the queue. Everything raises sqlite3.Error, and has then changed nothing."""

    def __init__(self, db: Database, boot_id: str) -> None:
        """Reads where the database, which is open, stands; ``boot_id`` becomes known to it."""
        writer = db.writer
        with transaction(writer):
            writer.execute("INSERT OR IGNORE INTO boots(boot) VALUES(?)", (boot_id,))
        found = writer.execute("SELECT id, offset_ms FROM boots WHERE boot=?", (boot_id,)).fetchone()
        self._boot: int = found[0]
        self._anchored = found[1] is not None
        self.next_seq = int(str(db.meta("next_seq")))
        (last,) = writer.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
        self.next_id: int = last + 1
        self.rows, self.bytes = self._counted(db) if last else (0, 0)
        self.written_bytes = 0
        self._db = db

    @staticmethod
    def _counted(db: Database) -> tuple[int, int]:
        """How many rows there are, and their size: as was noted, for on a slow card counting takes minutes."""
        rows, size = db.meta("rows"), db.meta("bytes")
        if isinstance(rows, int) and isinstance(size, int):
            return rows, size
        found: tuple[int, int] = db.writer.execute(
            f"SELECT count(*), coalesce(sum({ROW_SIZE}), 0) FROM outbox"
        ).fetchone()
        return found

    def commit(
        self,
        rows: Sequence[Row],
        forget: Iterable[int] = (),
        parked: Parked = (),
        thinned: Iterable[int] = (),
        *,
        notes: Notes = NO_NOTES,
        now: Stamp,
    ) -> list[Stored]:
        """Put ``rows`` in and take ids out, in one transaction; the rows as they stand there.

        ``parked``: ids with the reason why no broker will take them; gaps that say so follow ``rows``.
        ``notes``: what is to be remembered with them.
        """
        db = self._db.writer
        freed = freed_rows = 0
        with transaction(db):
            gone = park(db, self._db.stream, parked)
            rows = [*rows, *(loss.row(now) for loss in gone)]
            for low, high in ranges([*forget, *(row_id for row_id, _ in parked)]):
                count, size = db.execute(
                    f"SELECT count(*), coalesce(sum({ROW_SIZE}), 0) FROM outbox WHERE id BETWEEN ? AND ?", (low, high)
                ).fetchone()
                db.execute("DELETE FROM outbox WHERE id BETWEEN ? AND ?", (low, high))
                freed, freed_rows = freed + size, freed_rows + count
            db.executemany("UPDATE outbox SET thinned=1 WHERE id=?", [(row_id,) for row_id in thinned])
            db.executemany("INSERT OR REPLACE INTO meta VALUES(?,?)", notes.items())
            kept = [self._numbered(n, row) for n, row in enumerate(rows)]
            if kept:
                db.executemany(
                    "INSERT INTO outbox(id, seq, class, topic, retain, boot, mono_ns, wall_ms, synced, body) "
                    "VALUES(?,?,?,?,?,?,?,?,?,?)",
                    [(s[0], *s[2:]) for s in kept],
                )
                db.execute("UPDATE meta SET value=? WHERE key='next_seq'", (self.next_seq + len(kept),))
            size = sum(len(row.body) + ROW_OVERHEAD_BYTES for row in rows)
            held = (self.rows + len(kept) - freed_rows, self.bytes + size - freed)
            db.executemany("INSERT OR REPLACE INTO meta VALUES(?,?)", zip(("rows", "bytes"), held, strict=True))
        self.next_id += len(kept)
        self.next_seq += len(kept)
        self.rows, self.bytes = held
        self.written_bytes += size
        return kept

    def _numbered(self, n: int, row: Row) -> Stored:
        kind, topic, at, body, retain = row
        identity = (self.next_id + n, self._db.stream, self.next_seq + n)
        return Stored(*identity, kind, topic, retain, self._boot, at.mono_ns, at.wall_ms, at.synced, body)

    def anchor(self, now: Stamp) -> None:
        """Once UTC is known: remember this boot's offset, so that its unsynced rows get their true time."""
        if self._anchored or not now.synced:
            return
        offset_ms = now.wall_ms - now.mono_ns // 1_000_000
        with transaction(self._db.writer):
            self._db.writer.execute("UPDATE boots SET offset_ms=? WHERE id=?", (offset_ms, self._boot))
        self._anchored = True

    def notes(self, begin: str) -> dict[str, object]:
        """What was remembered under keys that begin so."""
        return dict(
            self._db.writer.execute("SELECT key, value FROM meta WHERE substr(key, 1, ?)=?", (len(begin), begin))
        )

    def oldest_ms(self) -> int | None:
        """When its oldest row was taken."""
        oldest = self._db.writer.execute("SELECT wall_ms FROM outbox ORDER BY id LIMIT 1").fetchone()
        return oldest[0] if oldest else None
