"""What the broker has not confirmed yet: on disk, in order, bounded, and never silently shortened.

    record thread ──append──▶ outbox ──read──▶ publish thread
         ▲                      │                    │ PUBACK
         └──────── settle ◀─────┴────────────────────┘

All writes come from one thread. A row leaves only after it was settled (PUBACK, or parked as poison)
or when the byte limit is reached: then the oldest telemetry is thinned to one row per device and
minute, then dropped; evidence and verdicts follow, alarms go last; every loss is itself a row (a *gap*).

When the disk cannot be used the spool lives in memory, as a stream of its own, and comes back by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from edge_agent.clock import Clock, iso
from edge_agent.counters import Mark, MarkRow
from edge_agent.database import DamagedError, Database, is_full, keep_marks, read_marks, spool_error, transaction
from edge_agent.errors import SpoolError
from edge_agent.eviction import choose
from edge_agent.health import Health
from edge_agent.history import HistoryRow, add_minutes
from edge_agent.ledger import NO_NOTES, Ledger, Notes, Parked
from edge_agent.outbox import Loss, Row, Stored, stored
from edge_agent.reader import Reader
from edge_agent.rescue import replace, rescue
from edge_agent.room import LARGEST_BITE, SMALLEST_BITE, Room

log = structlog.get_logger("spool")

_FORGOTTEN_MAX: Final = 1_000_000  # more rows than ever fit a WAL


class Spool:
    """The outbox of one agent. Every method but :meth:`reader` and :meth:`usage` belongs to the record thread."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        health: Health,
        *,
        limit_bytes: int,
        durable: bool = True,
        floor_bytes: int = 64 << 20,
    ) -> None:
        self.path = path
        self._clock = clock
        self._health = health
        self._room = Room(path, limit_bytes, floor_bytes)
        self._durable = durable
        self._db = Database(None)
        self._source = (self._db, 0)  # and its generation, swapped at once for the reader's thread
        self._ledger: Ledger  # of the database in use
        self._oldest_ms: int | None = None

    # --- opening, losing and finding the disk

    def open(self) -> None:
        """Open the file; a damaged one is put aside and salvaged, an unusable disk means memory. Never fails."""
        try:
            self._use(*self._open_disk())
        except SpoolError as error:
            self.fall_back(error)

    def _open_disk(self) -> tuple[Database, list[Row]]:
        """The database on disk, and what has to be said there first."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"cannot make {self.path.parent}: {error}") from error
        disk = Database(self.path, durable=self._durable)
        try:
            disk.open(self._clock.boot_id)
        except DamagedError as damage:
            return disk, self._replace_damaged(disk, damage)
        if disk.forgot:
            self._health.count("spool.forgot")
            log.warning("the last commits may be missing, numbering goes on further up", stream=disk.stream)
            first = int(str(disk.meta("next_seq")))
            last = first + _FORGOTTEN_MAX - 1
            with self._translated():
                disk.writer.execute("UPDATE meta SET value=? WHERE key='next_seq'", (last + 1,))
            return disk, [Loss(disk.stream, first, last, 0, "unclean end").row(self._clock.stamp())]
        return disk, []

    def _replace_damaged(self, disk: Database, damage: DamagedError) -> list[Row]:
        aside, saved, lost = replace(disk, damage, self._clock.boot_id, self._clock.stamp().wall_ms)
        self._health.count("spool.quarantined")
        self._health.fault(
            "spool.quarantine",
            f"database was damaged ({damage}), kept as {aside.name}",
            hint=f"{saved} rows were salvaged",
        )
        stamp = self._clock.stamp()
        return [loss.row(stamp) for loss in lost]

    def _use(self, db: Database, first: Sequence[Row] = (), waiting: Sequence[Stored] = ()) -> None:
        """Write to ``db`` from now on, behind ``waiting``; raises SpoolError: all as before, ``db`` closed."""
        try:
            with self._translated():
                rescue(db, waiting, self._clock.boot_id)
                ledger = Ledger(db, self._clock.boot_id)
        except SpoolError:
            db.close()
            raise
        if self.generation:
            ledger.written_bytes = self._ledger.written_bytes
        self._db, self._ledger = db, ledger
        self._room.volatile = self.volatile
        with suppress(SpoolError):
            if first:
                self.append(first)
            self._look_at_oldest()
        # Last, for nobody offers these first rows: whoever sends must find them in the backlog.
        self._source = (db, self.generation + 1)

    @property
    def generation(self) -> int:
        """Changes whenever the database behind it does."""
        return self._source[1]

    @property
    def volatile(self) -> bool:
        """Whether rows live in memory only, because the disk cannot be used."""
        return self._db.path is None

    def open_again(self) -> None:
        """Somebody could not read it: check it as at the start, put it aside if it is damaged. Never fails."""
        self._db.close()
        self.open()

    def fall_back(self, error: Exception) -> None:
        """Go on in memory, as a new stream, until the disk is usable."""
        self._health.fault("spool.disk", str(error), hint="rows are kept in memory and lost if the agent stops")
        self._db.close()
        memory = Database(None)
        memory.open()
        self._use(memory)

    def return_to_disk(self) -> bool:
        """Try the disk again; rows that wait in memory move there under their own stream and seq."""
        memory = self._db
        try:
            with self._translated():
                rows = memory.writer.execute("SELECT * FROM outbox ORDER BY id").fetchall()
            disk, first = self._open_disk()
            self._use(disk, first, [stored(row, memory.stream) for row in rows])
        except SpoolError:
            return False
        memory.close()
        self._health.clear("spool.disk")
        return True

    # --- writing

    @property
    def stream(self) -> str:
        return self._db.stream

    @property
    def next_id(self) -> int:
        """The place in the queue that the next row will get."""
        return self._ledger.next_id

    @property
    def next_seq(self) -> int:
        """The seq that the next row will get."""
        return self._ledger.next_seq

    def append(
        self, rows: Sequence[Row], settled: Iterable[int] = (), parked: Parked = (), notes: Notes = NO_NOTES
    ) -> list[Stored]:
        """Keep ``rows`` and forget ``settled`` ids, in one commit; what was kept, with its seq.

        ``parked``: ids with the reason why no broker will take them. ``notes``: what is to be remembered with the
        rows. Raises SpoolError with nothing changed; the caller still holds everything.
        """
        settled, parked, now = list(settled), list(parked), self._clock.stamp()
        gaps: list[Stored] = []
        for make_room in (self._spend_reserve, self._evict_a_bite):
            try:
                return gaps + self._ledger.commit(rows, settled, parked, notes=notes, now=now)
            except sqlite3.DatabaseError as error:
                if not is_full(error):
                    raise spool_error(error, self._db.path) from error
            with self._translated():
                gaps = make_room()
        with self._translated():
            return gaps + self._ledger.commit(rows, settled, parked, notes=notes, now=now)

    def _spend_reserve(self) -> list[Stored]:
        self._room.spend_reserve()
        self._db.checkpoint()
        return []

    def _evict_a_bite(self) -> list[Stored]:
        gaps = self._evict(min(max(SMALLEST_BITE, self._ledger.bytes // 10), LARGEST_BITE))
        self._db.checkpoint()
        return gaps

    def anchor(self) -> None:
        """Once UTC is known: remember this boot's offset, so that its unsynced rows get their true time."""
        with self._translated():
            self._ledger.anchor(self._clock.stamp())

    # --- the limit

    def enforce_limit(self) -> list[Stored]:
        """Stay within the byte limit and above the free-space floor, a bite at a time; the gaps that were written."""
        with self._translated():
            self._look_at_oldest()
            excess = self._room.excess(self._db.writer, self._ledger.bytes)
            gaps = self._evict(min(excess, LARGEST_BITE)) if excess > 0 else []
            if self._room.tight:
                self._db.checkpoint()
            return gaps

    @property
    def roomy(self) -> bool:
        """Whether the limit is far again, and the disk has room for others too."""
        return self._room.is_plenty(self._ledger.bytes)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise spool_error(error, self._db.path) from error
        except OSError as error:
            raise error if isinstance(error, SpoolError) else SpoolError(str(error)) from error

    def _evict(self, wanted: int) -> list[Stored]:
        """Let go of ``wanted`` bytes, class by class; loss and its gap in one commit."""
        ledger, now = self._ledger, self._clock.stamp()
        newest_half = ledger.next_id - ledger.rows // 2
        forget, thinned, losses = choose(self._db.writer, self._db.stream, wanted, newest_half)
        if not forget:
            return []
        self._health.count("spool.evicted", len(forget))
        return ledger.commit([loss.row(now) for loss in losses], forget, (), thinned, now=now)

    # --- reading

    def reader(self) -> Reader:
        """For another thread: valid until ``generation`` changes. Raises SpoolError."""
        db, generation = self._source
        return Reader(db.reader(), db.stream, generation, db.path)

    def _look_at_oldest(self) -> None:
        with self._translated():
            self._oldest_ms = self._ledger.oldest_ms()

    def usage(self) -> dict[str, object]:
        """How full it is, for ``status``; from any thread."""
        return {
            "stream": self.stream,
            "rows": self._ledger.rows,
            "bytes": self._ledger.bytes,
            "written_bytes": self._ledger.written_bytes,
            "limit_bytes": self._room.limit_bytes,
            "volatile": self.volatile,
            "oldest": None if self._oldest_ms is None else iso(self._oldest_ms),
            "next_seq": self._ledger.next_seq,
        }

    def history(self, rows: Sequence[HistoryRow], keep_after_minute: int, marks: Iterable[MarkRow] = ()) -> None:
        """Write minute aggregates, adding to those that are there, and forget those before ``keep_after_minute``.

        ``marks``: where the counters stood at their end, in the same commit.
        """
        db = self._db.writer
        with self._translated(), transaction(db):
            add_minutes(db, rows, keep_after_minute)
            keep_marks(db, marks)

    def notes(self, begin: str) -> dict[str, object]:
        """What was remembered under keys that begin so; nothing where that cannot be read."""
        with suppress(sqlite3.Error):
            return self._ledger.notes(begin)
        return {}

    def marks(self) -> dict[str, dict[str, Mark]]:
        """Device → quantity → where the counter stood when that was last written."""
        try:
            return read_marks(self._db.writer)
        except sqlite3.Error as error:
            self._health.fault("spool.marks", str(spool_error(error, self._db.path)))
            return {}

    def close(self) -> None:
        self._db.close()
