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

import os
import sqlite3
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from edge_agent.clock import Clock, iso
from edge_agent.counters import Mark, MarkRow
from edge_agent.database import (
    DamagedError,
    Database,
    is_full,
    keep_marks,
    quarantine,
    read_marks,
    spool_error,
    transaction,
)
from edge_agent.errors import SpoolError
from edge_agent.health import Health
from edge_agent.history import HistoryRow, merged
from edge_agent.outbox import (
    ALARM,
    EVIDENCE,
    GAP,
    ROW_OVERHEAD_BYTES,
    TELEMETRY,
    VERDICT,
    Loss,
    Row,
    Stored,
    losses,
    ranges,
    retell,
    stored,
)
from edge_agent.rescue import rescue, salvage

log = structlog.get_logger("spool")

RESERVE_BYTES: Final = 1 << 20  # a DELETE needs room in the WAL even when the disk is full
MEMORY_LIMIT_BYTES: Final = 32 << 20
_SMALLEST_BITE: Final = 16 << 10  # bytes evicted at once, at least …
_LARGEST_BITE: Final = 8 << 20  # … and at most: it is done within one commit
_ROOM_INSIDE_PAGES: Final = 64  # free pages in the file that are room enough to go on
_FORGOTTEN_MAX: Final = 1_000_000  # more rows than ever fit a WAL
_THIN_TO_MS: Final = 60_000
_PARKED_MAX: Final = 1000
_SIZE: Final = f"length(body) + {ROW_OVERHEAD_BYTES}"


class _Sized(NamedTuple):
    id: int
    stream: str
    seq: int
    topic: str
    wall_ms: int
    size: int


def _told(rows: Sequence[_Sized]) -> list[Loss]:
    """Run by run, unless telling would take the room that dropping made."""
    lost = [(row.stream, row.seq) for row in rows]
    runs = losses(lost, "quota")
    return runs if 4 * len(runs) <= len(rows) else losses(lost, "quota", merge=True)


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
        self._limit_bytes = limit_bytes
        self._floor_bytes = floor_bytes
        self._durable = durable
        self._db = Database(None)
        self._source = (self._db, 0)  # and its generation, swapped at once for the reader's thread
        self._next_id = self._next_seq = 1
        self._bytes = 0
        self._written_bytes = 0  # since the start, for `status`
        self._rows = 0
        self._oldest_ms: int | None = None
        self._boot = 0
        self._anchored = False
        self._tight = False  # the reserve is spent
        self._crowded = False  # others need the disk too

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
        stamp = self._clock.stamp()
        try:
            aside = quarantine(self.path, stamp.wall_ms)
            disk.open(self._clock.boot_id)
        except (OSError, DamagedError) as error:
            raise SpoolError(f"{self.path} is damaged ({damage}) and cannot be replaced: {error}") from damage
        saved, lost = salvage(aside, disk)
        self._health.count("spool.quarantined")
        self._health.fault(
            "spool.quarantine",
            f"database was damaged ({damage}), kept as {aside.name}",
            hint=f"{saved} rows were salvaged",
        )
        return [loss.row(stamp) for loss in lost]

    def _use(self, db: Database, first: Sequence[Row] = ()) -> None:
        """Write to ``db`` from now on; raises SpoolError with everything as before."""
        with self._translated():
            writer = db.writer
            with transaction(writer):
                writer.execute("INSERT OR IGNORE INTO boots(boot) VALUES(?)", (self._clock.boot_id,))
            boot, offset = writer.execute(
                "SELECT id, offset_ms FROM boots WHERE boot=?", (self._clock.boot_id,)
            ).fetchone()
            next_seq = int(str(db.meta("next_seq")))
            rows, size, last = writer.execute(
                f"SELECT count(*), coalesce(sum({_SIZE}), 0), coalesce(max(id), 0) FROM outbox"
            ).fetchone()
        self._db, self._boot, self._anchored = db, boot, offset is not None
        self._next_seq, self._rows, self._bytes = next_seq, rows, size
        self._next_id = last + 1  # within one generation a place in the queue is never given twice
        self._source = (db, self.generation + 1)
        if first:
            with suppress(SpoolError):
                self.append(first)
        self._look_at_oldest()

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
            disk, first = self._open_disk()
        except SpoolError:
            return False
        try:
            with self._translated():
                waiting = memory.writer.execute("SELECT * FROM outbox ORDER BY id")
                rescue(disk, [stored(row, memory.stream) for row in waiting], self._clock.boot_id)
            self._use(disk, first)
        except SpoolError:
            disk.close()
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
        return self._next_id

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
        settled, parked = list(settled), list(parked)
        gaps: list[Stored] = []
        for make_room in (self._spend_reserve, self._evict_a_bite):
            try:
                return gaps + self._commit(rows, settled, parked)
            except sqlite3.DatabaseError as error:
                if not is_full(error):
                    raise spool_error(error, self._db.path) from error
            with self._translated():
                gaps = make_room()
        with self._translated():
            return gaps + self._commit(rows, settled, parked)

    def _spend_reserve(self) -> list[Stored]:
        """The disk is full: from here on the room of the reserve is for the WAL, which is kept short."""
        self._tight = True
        self._reserve.unlink(missing_ok=True)
        self._db.checkpoint()
        return []

    def _evict_a_bite(self) -> list[Stored]:
        gaps = self._evict(min(max(_SMALLEST_BITE, self._bytes // 10), _LARGEST_BITE))
        self._db.checkpoint()
        return gaps

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
            rows = [*rows, *self._park(db, parked)]
            for low, high in ranges([*forget, *(row_id for row_id, _ in parked)]):
                count, size = db.execute(
                    f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM outbox WHERE id BETWEEN ? AND ?", (low, high)
                ).fetchone()
                db.execute("DELETE FROM outbox WHERE id BETWEEN ? AND ?", (low, high))
                freed, freed_rows = freed + size, freed_rows + count
            db.executemany("UPDATE outbox SET thinned=1 WHERE id=?", [(row_id,) for row_id in thinned])
            kept = [self._numbered(n, row) for n, row in enumerate(rows)]
            if kept:
                db.executemany(
                    "INSERT INTO outbox(id, seq, class, topic, retain, boot, mono_ns, wall_ms, synced, body) "
                    "VALUES(?,?,?,?,?,?,?,?,?,?)",
                    [(s[0], *s[2:]) for s in kept],
                )
                db.execute("UPDATE meta SET value=? WHERE key='next_seq'", (self._next_seq + len(kept),))
        self._next_id += len(kept)
        self._next_seq += len(kept)
        self._rows += len(kept) - freed_rows
        size = sum(len(row.body) + ROW_OVERHEAD_BYTES for row in rows)
        self._written_bytes += size
        self._bytes += size - freed
        return kept

    def _numbered(self, n: int, row: Row) -> Stored:
        kind, topic, at, body, retain = row
        identity = (self._next_id + n, self._db.stream, self._next_seq + n)
        return Stored(*identity, kind, topic, retain, self._boot, at.mono_ns, at.wall_ms, at.synced, body)

    def _park(self, db: sqlite3.Connection, parked: Iterable[tuple[int, str]]) -> list[Row]:
        """Copy rows that no broker takes aside; the gaps that tell of them."""
        stamp = self._clock.stamp()
        gone: list[Loss] = []
        for row_id, reason in parked:
            found = db.execute("SELECT * FROM outbox WHERE id=?", (row_id,)).fetchone()
            if found is None:
                continue  # evicted meanwhile, and that was said
            row = stored(found, self._db.stream)
            db.execute(
                "INSERT INTO parked(stream, seq, topic, at_ms, reason, body) VALUES(?,?,?,?,?,?)",
                (row.stream, row.seq, row.topic, row.wall_ms, reason, row.body),
            )
            db.execute("DELETE FROM parked WHERE id <= (SELECT max(id) FROM parked) - ?", (_PARKED_MAX,))
            (loss,) = losses([(row.stream, row.seq)], f"refused: {reason}")
            last = gone[-1] if gone else None
            if last and (last.stream, last.reason, last.last) == (loss.stream, loss.reason, loss.first - 1):
                gone[-1] = last._replace(last=loss.last, rows=last.rows + 1)
            else:
                gone.append(loss)
        return [loss.row(stamp) for loss in gone]

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
        """Stay within the byte limit and above the free-space floor, a bite at a time; the gaps that were written."""
        with self._translated():
            self._look_at_oldest()
            excess = self._excess()
            gaps = self._evict(min(excess, _LARGEST_BITE)) if excess > 0 else []
            if self._tight:
                self._db.checkpoint()
            return gaps

    @property
    def roomy(self) -> bool:
        """Whether the limit is far again, and the disk has room for others too."""
        return self._bytes < 0.9 * self._limit and not self._crowded

    @property
    def _limit(self) -> int:
        return min(self._limit_bytes, MEMORY_LIMIT_BYTES) if self.volatile else self._limit_bytes

    def _excess(self) -> int:
        over = self._bytes - self._limit
        if over > 0:
            # A little more than needed, so that not every commit evicts.
            return over + min(self._limit // 50, _LARGEST_BITE // 2)
        self._crowded = not self.volatile and (self._free_bytes() < self._floor_bytes or self._tight)
        if not self._crowded:
            return 0
        # The disk fills up, whoever does it: the file must not grow, so live on the room inside it.
        if self._bytes < RESERVE_BYTES and not self._tight:
            return 0  # a few rows in flight are not what fills a disk
        (free,) = self._db.writer.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._db.writer.execute("PRAGMA page_count").fetchone()
        return max(_SMALLEST_BITE, self._bytes // 50) if free < min(_ROOM_INSIDE_PAGES, pages // 8) else 0

    def _free_bytes(self) -> int:
        """Room on the disk; with plenty of it, some is set aside for the day when there is none."""
        try:
            disk = os.statvfs(self.path.parent)
            free = disk.f_bavail * disk.f_frsize
            if free > self._floor_bytes + 2 * RESERVE_BYTES and not self._reserve.exists():
                self._reserve.write_bytes(bytes(RESERVE_BYTES))
                self._tight = False
        except OSError:
            return self._floor_bytes
        return free

    @property
    def _reserve(self) -> Path:
        return self.path.with_name("reserve")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise spool_error(error, self._db.path) from error
        except OSError as error:
            raise error if isinstance(error, SpoolError) else SpoolError(str(error)) from error

    def _evict(self, wanted: int) -> list[Stored]:
        """Let go of ``wanted`` bytes: thin, then drop, class by class; loss and its gap in one commit."""
        drop, thinned = self._thin(wanted)
        gone = losses(((row.stream, row.seq) for row in drop), "thinned", merge=True)
        forget = {row.id for row in drop}
        wanted -= sum(row.size for row in drop)
        for kind in (TELEMETRY, EVIDENCE, VERDICT, GAP, ALARM):
            if wanted <= 0:
                break
            rows = self._oldest(f"class={kind}", wanted, forget)
            gone += self._retell(rows) if kind == GAP else _told(rows)
            forget.update(row.id for row in rows)
            wanted -= sum(row.size for row in rows)
        if not forget:
            return []
        self._health.count("spool.evicted", len(forget))
        stamp = self._clock.stamp()
        return self._commit([loss.row(stamp) for loss in gone], forget, (), thinned)

    def _retell(self, rows: Sequence[_Sized]) -> list[Loss]:
        bodies = "SELECT body FROM outbox WHERE id=?"
        return retell((row.stream, row.seq, self._db.writer.execute(bodies, (row.id,)).fetchone()[0]) for row in rows)

    def _oldest(self, where: str, wanted: int, but: Container[int] = ()) -> list[_Sized]:
        """Oldest rows of a kind, but for some ids, until their sizes add up to ``wanted``."""
        chosen: list[_Sized] = []
        size = 0
        cursor = self._db.writer.execute(
            f"SELECT id, coalesce(stream, ?), seq, topic, wall_ms, {_SIZE} FROM outbox WHERE {where} ORDER BY id",
            (self._db.stream,),
        )
        for row in map(_Sized._make, cursor):
            if size >= wanted:
                break
            if row.id not in but:
                chosen.append(row)
                size += row.size
        cursor.close()
        return chosen

    def _thin(self, wanted: int) -> tuple[list[_Sized], list[int]]:
        """Of the oldest telemetry: what to drop, and what stays (one row per device and minute)."""
        # The newest half is left alone: thinning is for what is old, not for what was just taken.
        newest_half = self._next_id - self._rows // 2
        rows = self._oldest(f"class={TELEMETRY} AND thinned=0 AND id < {newest_half}", wanted * 2)
        seen: set[tuple[str, int]] = set()
        drop: list[_Sized] = []
        keep: list[int] = []
        for row in rows:
            minute = (row.topic, row.wall_ms // _THIN_TO_MS)
            if minute in seen:
                drop.append(row)
            else:
                keep.append(row.id)
            seen.add(minute)
        return drop, keep

    # --- reading

    def reader(self) -> Reader:
        """For another thread: valid until ``generation`` changes. Raises SpoolError."""
        db, generation = self._source
        return Reader(db.reader(), db.stream, generation, db.path)

    def _look_at_oldest(self) -> None:
        oldest = self._db.writer.execute("SELECT wall_ms FROM outbox ORDER BY id LIMIT 1").fetchone()
        self._oldest_ms = oldest[0] if oldest else None

    def usage(self) -> dict[str, object]:
        """How full it is, for ``status``; from any thread."""
        return {
            "stream": self.stream,
            "rows": self._rows,
            "bytes": self._bytes,
            "written_bytes": self._written_bytes,
            "limit_bytes": self._limit,
            "volatile": self.volatile,
            "oldest": None if self._oldest_ms is None else iso(self._oldest_ms),
            "next_seq": self._next_seq,
        }

    def history(self, rows: Sequence[HistoryRow], keep_after_minute: int, marks: Iterable[MarkRow] = ()) -> None:
        """Write minute aggregates, adding to those that are there, and forget those before ``keep_after_minute``.

        ``marks``: where the counters stood at their end, in the same commit.
        """
        db = self._db.writer
        with self._translated(), transaction(db):
            for device, minute, body in rows:
                there = db.execute("SELECT body FROM history WHERE device=? AND minute=?", (device, minute)).fetchone()
                body_now = merged(there[0], body) if there else body
                db.execute("INSERT OR REPLACE INTO history VALUES(?,?,?)", (device, minute, body_now))
            db.execute("DELETE FROM history WHERE minute < ?", (keep_after_minute,))
            keep_marks(db, marks)

    def marks(self) -> dict[str, dict[str, Mark]]:
        """Device → quantity → where the counter stood when that was last written."""
        try:
            return read_marks(self._db.writer)
        except sqlite3.Error as error:
            self._health.fault("spool.marks", str(spool_error(error, self._db.path)))
            return {}

    def close(self) -> None:
        self._db.close()


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
