"""What the broker has not confirmed yet: on disk, in order, bounded, and never silently shortened.

    record thread ──append──▶ outbox ──read──▶ publish thread
         ▲                      │                    │ PUBACK
         └──────── settle ◀─────┴────────────────────┘

All writes come from one thread. A row leaves only after it was settled (PUBACK, or parked as poison)
or when the byte limit is reached: then the oldest telemetry is thinned to one row per device and
minute, then dropped; verdicts follow, alarms go last; every loss is itself a row (a *gap*).

When the disk cannot be used the spool lives in memory, as a stream of its own, and comes back by itself.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from edge_agent.clock import Clock, iso
from edge_agent.database import (
    DamagedError,
    Database,
    is_full,
    quarantine,
    spool_error,
    transaction,
)
from edge_agent.errors import SpoolError
from edge_agent.health import Health
from edge_agent.outbox import (
    ALARM,
    EVIDENCE,
    ROW_OVERHEAD_BYTES,
    TELEMETRY,
    VERDICT,
    Loss,
    Row,
    Stored,
    losses,
    ranges,
    stored,
)
from edge_agent.rescue import rescue, salvage

log = structlog.get_logger("spool")

RESERVE_BYTES: Final = 1 << 20  # a DELETE needs room in the WAL even when the disk is full
_THIN_TO_MS: Final = 60_000
_PARKED_MAX: Final = 1000
_SIZE: Final = f"length(body) + {ROW_OVERHEAD_BYTES}"


_Sized = tuple[int, str, int, str, int, int]
"""id, stream, seq, topic, wall_ms, bytes."""


class Spool:
    """The outbox of one agent. Every method but :meth:`reader` belongs to the record thread."""

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
        self.generation = 0  # changes whenever the database behind it does
        self._clock = clock
        self._health = health
        self._limit_bytes = limit_bytes
        self._floor_bytes = floor_bytes
        self._durable = durable
        self._db = Database(None)
        self._next_seq = 1
        self._bytes = 0
        self._written_bytes = 0  # since the start
        self._rows = 0
        self._boot = 0
        self._anchored = False

    # --- opening, losing and finding the disk

    def open(self) -> None:
        """Open the file; a damaged one is put aside and salvaged, an unusable disk means memory. Never fails."""
        try:
            self._use(self._open_disk())
        except SpoolError as error:
            self.fall_back(error)

    def _open_disk(self) -> Database:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"cannot make {self.path.parent}: {error}") from error
        disk = Database(self.path, durable=self._durable)
        try:
            disk.open()
        except DamagedError as damage:
            try:
                aside = quarantine(self.path, self._clock.stamp().wall_ms)
            except OSError as error:
                raise SpoolError(f"{self.path} is damaged and cannot be moved aside: {error}") from damage
            self._health.count("spool.quarantined")
            self._health.fault(
                "spool.quarantine",
                f"database was damaged ({damage}), kept as {aside.name}",
                hint="rows were salvaged where readable",
            )
            disk.open()
            salvaged = salvage(aside, disk)
            log.warning("database quarantined", file=str(aside), salvaged=salvaged)
        self._make_reserve()
        return disk

    def _use(self, db: Database) -> None:
        self._db = db
        self.generation += 1
        writer = db.writer
        self._next_seq = int(str(db.meta("next_seq")))
        with transaction(writer):
            writer.execute("INSERT OR IGNORE INTO boots(boot) VALUES(?)", (self._clock.boot_id,))
        (self._boot, offset) = writer.execute(
            "SELECT id, offset_ms FROM boots WHERE boot=?", (self._clock.boot_id,)
        ).fetchone()
        self._anchored = offset is not None
        self._recount()

    def _recount(self) -> None:
        self._rows, size = self._db.writer.execute(f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM outbox").fetchone()
        self._bytes = int(size)

    @property
    def volatile(self) -> bool:
        """Whether rows live in memory only, because the disk cannot be used."""
        return self._db.path is None

    def fall_back(self, error: Exception) -> None:
        """Go on in memory, as a new stream, until the disk is usable."""
        self._health.fault("spool.disk", str(error), hint="rows are kept in memory and lost if the agent stops")
        self._db.close()
        memory = Database(None)
        memory.open()
        self._use(memory)

    def return_to_disk(self) -> bool:
        """Try the disk again; rows that wait in memory move there under their own stream and seq."""
        try:
            disk = self._open_disk()
        except SpoolError:
            return False
        waiting = self._read(self._db.writer, "SELECT * FROM outbox ORDER BY id", ())
        try:
            rescue(disk, waiting, self._clock.boot_id)
        except sqlite3.Error:
            disk.close()
            return False
        memory = self._db
        self._use(disk)
        memory.close()
        self._health.clear("spool.disk")
        return True

    # --- writing

    @property
    def stream(self) -> str:
        return self._db.stream

    @property
    def next_seq(self) -> int:
        """The seq that the next row will get."""
        return self._next_seq

    def append(
        self, rows: Sequence[Row], settled: Iterable[int] = (), parked: Iterable[tuple[int, str]] = ()
    ) -> list[Stored]:
        """Keep ``rows`` and forget ``settled`` ids, in one commit; what was kept, with its seq.

        ``parked``: ids with the reason why no broker will take them. Raises SpoolError with nothing
        changed; the caller still holds everything.
        """
        try:
            return self._commit(rows, settled, parked)
        except sqlite3.DatabaseError as error:
            if not is_full(error):
                raise spool_error(error, self._db.path) from error
        # Full: make room by our own rules, then once more.
        with self._translated():
            self._drop_reserve()
            self._evict(max(RESERVE_BYTES, self._bytes // 10))
            self._db.checkpoint()
            return self._commit(rows, settled, parked)

    def _commit(
        self,
        rows: Sequence[Row],
        forget: Iterable[int],
        parked: Iterable[tuple[int, str]] = (),
        thinned: Iterable[int] = (),
    ) -> list[Stored]:
        db = self._db.writer
        freed = freed_rows = 0
        with transaction(db):
            rows = [*rows, *[self._park(db, row_id, reason) for row_id, reason in parked]]
            forget = [*forget, *[row_id for row_id, _ in parked]]
            for low, high in ranges(forget):
                count, size = db.execute(
                    f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM outbox WHERE id BETWEEN ? AND ?", (low, high)
                ).fetchone()
                db.execute("DELETE FROM outbox WHERE id BETWEEN ? AND ?", (low, high))
                freed, freed_rows = freed + size, freed_rows + count
            db.executemany("UPDATE outbox SET thinned=1 WHERE id=?", [(row_id,) for row_id in thinned])
            kept = [self._numbered(seq, row) for seq, row in enumerate(rows, self._next_seq)]
            if kept:
                db.executemany(
                    "INSERT INTO outbox(id, class, topic, retain, boot, mono_ns, wall_ms, synced, body) "
                    "VALUES(?,?,?,?,?,?,?,?,?)",
                    [(s.id, s.kind, s.topic, s.retain, s.boot, s.mono_ns, s.wall_ms, s.synced, s.body) for s in kept],
                )
                db.execute("UPDATE meta SET value=? WHERE key='next_seq'", (self._next_seq + len(kept),))
        self._next_seq += len(kept)
        self._rows += len(kept) - freed_rows
        size = sum(len(row.body) + ROW_OVERHEAD_BYTES for row in rows)
        self._written_bytes += size
        self._bytes += size - freed
        return kept

    def _numbered(self, seq: int, row: Row) -> Stored:
        at = row.at
        return Stored(
            seq,
            self._db.stream,
            seq,
            row.kind,
            row.topic,
            row.retain,
            self._boot,
            at.mono_ns,
            at.wall_ms,
            at.synced,
            row.body,
        )

    def _park(self, db: sqlite3.Connection, row_id: int, reason: str) -> Row:
        """Copy a row that no broker takes aside; the gap that tells of it."""
        stamp = self._clock.stamp()
        found = self._read(db, "SELECT * FROM outbox WHERE id=?", (row_id,))
        if not found:
            return Loss(self._db.stream, row_id, row_id, 0, reason).row(stamp)
        row = found[0]
        db.execute(
            "INSERT INTO parked(stream, seq, topic, at_ms, reason, body) VALUES(?,?,?,?,?,?)",
            (row.stream, row.seq, row.topic, row.wall_ms, reason, row.body),
        )
        db.execute("DELETE FROM parked WHERE id <= (SELECT max(id) FROM parked) - ?", (_PARKED_MAX,))
        return Loss(row.stream, row.seq, row.seq, 1, f"refused: {reason}").row(stamp)

    def anchor(self) -> None:
        """Once UTC is known: remember this boot's offset, so that its unsynced rows get their true time."""
        stamp = self._clock.stamp()
        if self._anchored or not stamp.synced:
            return
        offset_ms = stamp.wall_ms - stamp.mono_ns // 1_000_000
        with self._translated(), transaction(self._db.writer):
            self._db.writer.execute("UPDATE boots SET offset_ms=? WHERE id=?", (offset_ms, self._boot))
        self._anchored = True

    # --- the limit

    def enforce_limit(self) -> list[Stored]:
        """Stay within the byte limit and above the free-space floor; the gaps that were written."""
        excess = self._bytes - self._allowed_bytes()
        if excess <= 0:
            return []
        with self._translated():
            # A little more than needed, so that not every commit evicts.
            return self._evict(excess + self._limit_bytes // 50)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise spool_error(error, self._db.path) from error

    def _allowed_bytes(self) -> int:
        if self.volatile:
            return min(self._limit_bytes, 32 << 20)
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return self._limit_bytes
        shortage = self._floor_bytes - disk.f_bavail * disk.f_frsize
        return min(self._limit_bytes, self._bytes - shortage) if shortage > 0 else self._limit_bytes

    def _evict(self, wanted: int) -> list[Stored]:
        """Let go of ``wanted`` bytes: thin, then drop, class by class; loss and its gap in one commit."""
        gone: list[Loss] = []
        forget: list[int] = []
        thinned: list[int] = []
        if wanted > 0:
            drop, thinned, size = self._thin(wanted)
            gone += losses(((row[1], row[2]) for row in drop), "thinned", merge=True)
            forget += [row[0] for row in drop]
            wanted -= size
        for kind in (TELEMETRY, EVIDENCE, VERDICT, ALARM):
            if wanted <= 0:
                break
            already = set(forget)
            rows = [row for row in self._oldest(f"class={kind}", wanted) if row[0] not in already]
            gone += losses(((row[1], row[2]) for row in rows), "quota")
            forget += [row[0] for row in rows]
            wanted -= sum(row[5] for row in rows)
        self._health.count("spool.evicted", len(forget))
        stamp = self._clock.stamp()
        return self._commit([loss.row(stamp) for loss in gone], forget, (), thinned)

    def _oldest(self, where: str, wanted: int) -> list[_Sized]:
        """Oldest rows of a kind, until their sizes add up to ``wanted``."""
        chosen: list[_Sized] = []
        size = 0
        cursor = self._db.writer.execute(
            f"SELECT id, coalesce(stream, ?), coalesce(seq, id), topic, wall_ms, {_SIZE} "
            f"FROM outbox WHERE {where} ORDER BY id",
            (self._db.stream,),
        )
        for row in cursor:
            if size >= wanted:
                break
            chosen.append(row)
            size += row[5]
        cursor.close()
        return chosen

    def _thin(self, wanted: int) -> tuple[list[_Sized], list[int], int]:
        """Of the oldest telemetry: what to drop, what stays (one row per device and minute), bytes freed."""
        # The newest half is left alone: thinning is for what is old, not for what was just taken.
        newest_half = self._next_seq - self._rows // 2
        rows = self._oldest(f"class={TELEMETRY} AND thinned=0 AND id < {newest_half}", wanted * 2)
        seen: set[tuple[str, int]] = set()
        drop: list[_Sized] = []
        keep: list[int] = []
        for row in rows:
            minute = (row[3], row[4] // _THIN_TO_MS)
            if minute in seen:
                drop.append(row)
            else:
                keep.append(row[0])
            seen.add(minute)
        return drop, keep, sum(row[5] for row in drop)

    def _make_reserve(self) -> None:
        # There already, or no room: then there is nothing to reserve.
        with suppress(OSError), self.path.with_name("reserve").open("xb") as file:
            file.write(bytes(RESERVE_BYTES))

    def _drop_reserve(self) -> None:
        self.path.with_name("reserve").unlink(missing_ok=True)

    # --- reading

    def reader(self) -> Reader:
        """For the publish thread: valid until ``generation`` changes."""
        return Reader(self._db.reader(), self._db.stream, self.generation)

    def _read(self, db: sqlite3.Connection, sql: str, parameters: Sequence[object]) -> list[Stored]:
        return [stored(row, self._db.stream) for row in db.execute(sql, parameters)]

    def usage(self) -> dict[str, object]:
        """How full it is, for ``status``."""
        oldest = self._db.writer.execute("SELECT wall_ms FROM outbox ORDER BY id LIMIT 1").fetchone()
        return {
            "stream": self.stream,
            "rows": self._rows,
            "bytes": self._bytes,
            "written_bytes": self._written_bytes,
            "limit_bytes": self._limit_bytes,
            "volatile": self.volatile,
            "oldest": iso(oldest[0]) if oldest else None,
            "next_seq": self._next_seq,
        }

    def history(self, rows: Sequence[tuple[str, int, str]], keep_after_minute: int) -> None:
        """Write minute aggregates (device, minute, JSON) and forget those older than ``keep_after_minute``."""
        with self._translated(), transaction(self._db.writer):
            self._db.writer.executemany("INSERT OR REPLACE INTO history VALUES(?,?,?)", rows)
            self._db.writer.execute("DELETE FROM history WHERE minute < ?", (keep_after_minute,))

    def close(self) -> None:
        self._db.close()


class Reader:
    """Rows of the outbox in order, for one other thread."""

    def __init__(self, db: sqlite3.Connection, stream: str, generation: int) -> None:
        self._db = db
        self._stream = stream
        self.generation = generation

    def rows(self, after: int, before: int, count: int, *, alarms: bool) -> list[Stored]:
        """Up to ``count`` rows with ``after < id < before``: alarms only, or everything else."""
        relation = "=" if alarms else "<>"
        cursor = self._db.execute(
            f"SELECT * FROM outbox WHERE id > ? AND id < ? AND class {relation} {ALARM} ORDER BY id LIMIT ?",
            (after, before, count),
        )
        return [stored(row, self._stream) for row in cursor]

    def offset_ms(self, boot: int) -> int | None:
        """UTC minus monotonic milliseconds of a boot, once that boot's clock was synced."""
        row = self._db.execute("SELECT offset_ms FROM boots WHERE id=?", (boot,)).fetchone()
        return int(row[0]) if row and row[0] is not None else None

    def close(self) -> None:
        self._db.close()
