"""Rows that no broker takes: copied aside for people, and said aloud."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from edge_agent.outbox import Loss, losses, stored

_PARKED_MAX: Final = 1000


def park(db: sqlite3.Connection, own_stream: str, parked: Iterable[tuple[int, str]]) -> list[Loss]:
    """Copy rows (id, why) aside; the losses that tell of them. Within a transaction; raises sqlite3.Error."""
    gone: list[Loss] = []
    for row_id, reason in parked:
        found = db.execute("SELECT * FROM outbox WHERE id=?", (row_id,)).fetchone()
        if found is None:
            continue  # evicted meanwhile, and that was said
        row = stored(found, own_stream)
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
    return gone
