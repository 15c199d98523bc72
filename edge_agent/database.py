"""One SQLite file (or memory) with the tables of the spool: opened, checked, migrated, quarantined.

SQLite before 3.51.3 can corrupt a WAL database when two connections write or checkpoint at once, so
exactly one connection, in one thread, writes and checkpoints; readers are read-only.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from edge_agent.errors import SpoolError

log = structlog.get_logger("database")

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 2.0
CHECK_LIMIT_S = 20.0  # of wall time for the quick check; a database that takes longer is used unchecked

# outbox.id > 0 is the seq of this database's own stream. Rows rescued from another stream (memory
# while the disk was away, or a quarantined file) have id < 0, so that they sort, and leave, first.
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE boots(id INTEGER PRIMARY KEY, boot TEXT UNIQUE NOT NULL, offset_ms INTEGER);
CREATE TABLE outbox(
    id INTEGER PRIMARY KEY,
    stream TEXT, seq INTEGER,
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


class DamagedError(Exception):
    """The file is not a database that can be used."""


class Database:
    """The writing connection. ``path`` None: in memory, shared with readers of the same process."""

    def __init__(self, path: Path | None, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        self._memory_name = f"file:spool-{secrets.token_hex(4)}?mode=memory&cache=shared"
        self._writer: sqlite3.Connection | None = None
        self.stream = ""

    @property
    def writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise SpoolError("the database is not open")
        return self._writer

    def open(self) -> None:
        """Open, check and if needed create; raises DamagedError, or SpoolError when the disk refuses."""
        try:
            self._writer = self._connect()
            self._prepare(self._writer)
        except sqlite3.DatabaseError as error:
            self.close()
            if is_damage(error):
                raise DamagedError(str(error)) from error
            raise spool_error(error, self.path) from error
        except OSError as error:
            self.close()
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
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
        db.execute("PRAGMA journal_size_limit=4194304")
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("PRAGMA cache_size=-1024")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise SpoolError(
                f"{self.path} was written by a newer edge-agent (schema {version}, this one knows {SCHEMA_VERSION})",
                hint="install that version again, or move the file aside",
            )
        self._quick_check(db)
        with transaction(db):
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute(
                    "INSERT INTO meta VALUES('stream', ?), ('next_seq', 1), ('next_rescue', -1)",
                    (secrets.token_hex(6),),
                )
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self.stream = str(self.meta("stream"))

    def _quick_check(self, db: sqlite3.Connection) -> None:
        deadline = time.monotonic() + CHECK_LIMIT_S
        db.set_progress_handler(lambda: int(time.monotonic() > deadline), 100_000)
        try:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            log.warning("quick check took too long, used unchecked", path=str(self.path))
            return
        finally:
            db.set_progress_handler(None, 0)
        if verdict != "ok":
            raise DamagedError(str(verdict))

    def meta(self, key: str) -> object:
        row = self.writer.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return row[0] if row else None

    def reader(self) -> sqlite3.Connection:
        """A read-only connection for another thread; it never checkpoints."""
        if self.path is None:
            db = self._connect()
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
        db.execute("PRAGMA cache_size=-512")
        return db

    def checkpoint(self) -> None:
        """Move the WAL into the file and give its space back."""
        self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
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
    return SpoolError(f"{path or 'memory'}: {error}", hint=_HINTS.get(code, ""))


def quarantine(path: Path, wall_ms: int) -> Path:
    """Move a damaged database and its companions aside; the new name of the main file."""
    aside = path.with_name(f"{path.name}.corrupt-{wall_ms}")
    for suffix in ("", "-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return aside
