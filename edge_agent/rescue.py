"""Rows that outlive their database: from memory back to disk, or out of a damaged file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import structlog

from edge_agent.database import Database, transaction
from edge_agent.outbox import Stored, stored

log = structlog.get_logger("rescue")


def rescue(target: Database, rows: Sequence[Stored], boot_id: str, offset_ms: int | None = None) -> int:
    """Put rows of another stream in front of the queue of ``target``, with their own stream and seq."""
    db = target.writer
    with transaction(db):
        db.execute("INSERT OR IGNORE INTO boots(boot, offset_ms) VALUES(?, ?)", (boot_id, offset_ms))
        (boot,) = db.execute("SELECT id FROM boots WHERE boot=?", (boot_id,)).fetchone()
        lowest = int(str(target.meta("next_rescue"))) - len(rows) + 1
        db.executemany(
            "INSERT INTO outbox(id, stream, seq, class, topic, retain, boot, mono_ns, wall_ms, synced, body) "
            "VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            [
                (lowest + n, r.stream, r.seq, r.kind, r.topic, r.retain, boot, r.mono_ns, r.wall_ms, r.synced, r.body)
                for n, r in enumerate(rows)
            ],
        )
        db.execute("UPDATE meta SET value=? WHERE key='next_rescue'", (lowest - 1,))
    return len(rows)


def salvage(damaged: Path, target: Database) -> int:
    """Read what can still be read of a quarantined file into ``target``; how many rows. Never fails."""
    saved: list[Stored] = []
    try:
        db = sqlite3.connect(f"{damaged.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error:
        return 0
    try:
        (stream,) = db.execute("SELECT value FROM meta WHERE key='stream'").fetchone()
        saved.extend(stored(row, stream) for row in db.execute("SELECT * FROM outbox ORDER BY id"))
    except (sqlite3.Error, TypeError, ValueError) as error:
        log.warning("salvage stopped", after_rows=len(saved), why=str(error))
    finally:
        db.close()
    try:
        return rescue(target, saved, "salvaged")
    except sqlite3.Error:
        return 0
