"""One SQLite file (or memory) with the tables of the spool: opened, checked, migrated, quarantined.

SQLite before 3.51.3 can corrupt a WAL database when two connections write or checkpoint at once, so
exactly one connection, in one thread, writes and checkpoints; readers are read-only.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from edge_agent.counters import Mark, MarkRow
from edge_agent.errors import SpoolDamageError, SpoolError
from edge_agent.vocabulary import Origin

log = structlog.get_logger("database")

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 2.0
CHECK_LIMIT_S: Final = 20.0  # of wall time for the quick check; a database that takes longer is used unchecked
QUARANTINED_MAX: Final = 2

# outbox.id is the place in the queue, (stream, seq) the identity; stream NULL is the database's own.
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE boots(id INTEGER PRIMARY KEY, boot TEXT UNIQUE NOT NULL, offset_ms INTEGER);
CREATE TABLE outbox(
    id INTEGER PRIMARY KEY,
    stream TEXT, seq INTEGER NOT NULL,
    class INTEGER NOT NULL, topic TEXT NOT NULL, retain INTEGER NOT NULL,
    boot INTEGER NOT NULL, mono_ns INTEGER NOT NULL, wall_ms INTEGER NOT NULL, synced INTEGER NOT NULL,
    thinned INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL);
CREATE TABLE parked(
    id INTEGER PRIMARY KEY, stream TEXT, seq INTEGER, topic TEXT, at_ms INTEGER, reason TEXT, body TEXT);
CREATE TABLE history(
    device TEXT NOT NULL, minute INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY(device, minute)) WITHOUT ROWID;
"""
# Databases of the same version may lack it.
_COUNTERS = """
CREATE TABLE IF NOT EXISTS counters(
    device TEXT NOT NULL, quantity TEXT NOT NULL, value REAL NOT NULL,
    wall_ms INTEGER NOT NULL, synced INTEGER NOT NULL, basis TEXT, serial TEXT,
    PRIMARY KEY(device, quantity)) WITHOUT ROWID
"""


class DamagedError(Exception):
    """The file is not a database that can be used."""


class Database:
    """The writing connection. ``path`` None: in memory, shared with readers of the same process."""

    def __init__(self, path: Path | None, *, durable: bool = True) -> None:
        self.path = path
        self.stream = ""
        self.forgot = False  # commits of the last run may be missing: never number on from here
        self._durable = durable
        self._memory_name = f"file:spool-{secrets.token_hex(4)}?mode=memory&cache=shared"
        self._writer: sqlite3.Connection | None = None

    @property
    def writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise SpoolError("the database is not open")
        return self._writer

    def open(self, boot_id: str = "") -> None:
        """Open, check and if needed create; raises DamagedError, or SpoolError when the disk refuses."""
        try:
            self.forgot = self._has_forgotten(boot_id)
            self._writer = self._connect()
            self._prepare(self._writer)
            self._mark(boot_id)
        except SpoolError:
            self._close()
            raise
        except sqlite3.DatabaseError as error:
            self._close()
            if is_damage(error):
                raise DamagedError(str(error)) from error
            raise spool_error(error, self.path) from error
        except OSError as error:
            self._close()
            raise SpoolError(f"cannot open {self.path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        target, is_uri = (str(self.path), False) if self.path else (self._memory_name, True)
        return sqlite3.connect(
            target,
            uri=is_uri,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise SpoolError(
                f"{self.path} was written by a newer edge-agent (schema {version}, this one knows {SCHEMA_VERSION})",
                hint="install that version again, or move the file aside",
            )
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
        db.execute("PRAGMA journal_size_limit=4194304")
        db.execute("PRAGMA secure_delete=OFF")  # Debian turns it on; it writes every deleted page once more
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA cache_size=-256")  # more than a commit touches
        self._quick_check(db)
        with transaction(db):
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES('stream', ?), ('next_seq', 1)", (secrets.token_hex(6),))
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            db.execute(_COUNTERS)
        stream = self.meta("stream")
        if not isinstance(stream, str) or not isinstance(self.meta("next_seq"), int):
            raise DamagedError("it does not know its own stream")
        self.stream = stream

    def _quick_check(self, db: sqlite3.Connection) -> None:
        # A progress handler is not called while SQLite before 3.41 goes through the pages.
        limit = threading.Timer(CHECK_LIMIT_S, db.interrupt)
        limit.start()
        try:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            log.warning("quick check took too long, used unchecked", path=str(self.path))
            return
        finally:
            limit.cancel()
            limit.join()
        if verdict != "ok":
            raise DamagedError(str(verdict))

    # A file beside the database says that it is in use, and since which boot. Found at open, the last
    # run did not end by itself: if the WAL is gone with it (or was never forced to the disk before a
    # power cut), commits that the broker has seen may be missing here, and their numbers must not return.

    def _has_forgotten(self, boot_id: str) -> bool:
        if self.path is None or not self.path.exists():
            return False
        try:
            boot = _beside(self.path, "-running").read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        except (OSError, UnicodeDecodeError):
            boot = ""
        return not _beside(self.path, "-wal").exists() or (not self._durable and boot != boot_id)

    def _mark(self, boot_id: str) -> None:
        if self.path is not None:
            with suppress(OSError):  # a disk that refuses this has louder ways to say so
                _beside(self.path, "-running").write_text(boot_id, encoding="ascii")

    def meta(self, key: str) -> object:
        row = self.writer.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return row[0] if row else None

    def reader(self) -> sqlite3.Connection:
        """A read-only connection for another thread; it never checkpoints. Raises SpoolError."""
        try:
            if self.path is None:
                db = self._connect()
                # In memory, connections share pages and locks: a reader must not lock the writer out.
                db.execute("PRAGMA read_uncommitted=1")
            else:
                db = sqlite3.connect(
                    f"{self.path.resolve().as_uri()}?mode=ro",
                    uri=True,
                    timeout=BUSY_TIMEOUT_S,
                    isolation_level=None,
                    check_same_thread=False,
                )
                db.execute("PRAGMA wal_autocheckpoint=0")
            db.execute("PRAGMA query_only=1")
            db.execute("PRAGMA cache_size=-64")
        except sqlite3.Error as error:
            raise spool_error(error, self.path) from error
        return db

    def checkpoint(self) -> None:
        """Move the WAL into the file and give its space back."""
        self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close in good order: nothing is missing at the next open."""
        if self._writer is not None and self.path is not None:
            # Before the WAL goes: a kill in between must not look like a lost one.
            with suppress(OSError):
                _beside(self.path, "-running").unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT, or everything undone."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def keep_marks(db: sqlite3.Connection, marks: Iterable[MarkRow]) -> None:
    """Write where counters stood. Raises sqlite3.Error."""
    db.executemany(
        "INSERT OR REPLACE INTO counters VALUES(?,?,?,?,?,?,?)",
        [(device, quantity, *mark[:3], *(mark.origin or (None, None))) for device, quantity, mark in marks],
    )


def read_marks(db: sqlite3.Connection) -> dict[str, dict[str, Mark]]:
    """Device → quantity → where the counter stood. Raises sqlite3.Error."""
    marks: dict[str, dict[str, Mark]] = {}
    for device, quantity, value, wall_ms, synced, basis, serial in db.execute("SELECT * FROM counters"):
        origin = None if basis is None else Origin(basis, serial)
        marks.setdefault(device, {})[quantity] = Mark(value, wall_ms, bool(synced), origin)
    return marks


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is bad, as against busy, full or read-only."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT} or (
        code == sqlite3.SQLITE_ERROR and "no such table" in str(error)
    )


def is_full(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


_HINTS = {
    sqlite3.SQLITE_BUSY: "another program holds it locked; close it",
    sqlite3.SQLITE_LOCKED: "another program holds it locked; close it",
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "the disk or file is read-only: remount it or mend its permissions",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists and belongs to the user edge-agent",
    sqlite3.SQLITE_IOERR: "the disk reports errors: look at dmesg, replace the card",
}


def spool_error(error: sqlite3.Error, path: Path | None) -> SpoolError:
    """Join SQLite's failures into ours, with what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind = SpoolDamageError if isinstance(error, sqlite3.DatabaseError) and is_damage(error) else SpoolError
    return kind(f"{path or 'memory'}: {error}", hint=_HINTS.get(code, ""))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def quarantine(path: Path, wall_ms: int) -> Path:
    """Move a damaged database and its companions aside, and forget the oldest of those; the main file's new name."""
    aside = _beside(path, f".corrupt-{wall_ms}")
    for suffix in ("", "-wal", "-shm"):
        if _beside(path, suffix).exists():
            _beside(path, suffix).rename(_beside(aside, suffix))
    kept = sorted(path.parent.glob(f"{path.name}.corrupt-*[0-9]"), key=lambda found: found.stat().st_mtime_ns)
    for old in kept[:-QUARANTINED_MAX]:
        for suffix in ("", "-wal", "-shm"):
            _beside(old, suffix).unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return aside
