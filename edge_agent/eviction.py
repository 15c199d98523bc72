"""What leaves the spool when there is no more room, and what is said of it.

The oldest telemetry is first thinned to one row per device and minute, then dropped; pictures, verdicts
and gaps follow, alarms go last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Sequence
from typing import Final, NamedTuple

from edge_agent.outbox import ALARM, EVIDENCE, GAP, ROW_SIZE, TELEMETRY, VERDICT, Loss, losses, retell

_THIN_TO_MS: Final = 60_000


class Eviction(NamedTuple):
    """Ids of the rows that go and of those that stay for their minute; the losses that say it."""

    forget: set[int]
    thinned: list[int]
    losses: list[Loss]


class _Sized(NamedTuple):
    id: int
    stream: str
    seq: int
    topic: str
    wall_ms: int
    size: int


def choose(db: sqlite3.Connection, stream: str, wanted: int, newest_half: int) -> Eviction:
    """Rows of at least ``wanted`` bytes, if there are so many; reads only. Raises sqlite3.Error.

    ``stream``: the database's own. ``newest_half``: from this id on nothing is thinned, which is for
    what is old, not for what was just taken.
    """
    drop, thinned = _thin(_oldest(db, stream, f"class={TELEMETRY} AND thinned=0 AND id < {newest_half}", wanted * 2))
    gone = losses(((row.stream, row.seq) for row in drop), "thinned", merge=True)
    forget = {row.id for row in drop}
    wanted -= sum(row.size for row in drop)
    for kind in (TELEMETRY, EVIDENCE, VERDICT, GAP, ALARM):
        if wanted <= 0:
            break
        rows = _oldest(db, stream, f"class={kind}", wanted, forget)
        gone += _retold(db, rows) if kind == GAP else _told(rows)
        forget.update(row.id for row in rows)
        wanted -= sum(row.size for row in rows)
    return Eviction(forget, thinned, gone)


def _oldest(db: sqlite3.Connection, stream: str, where: str, wanted: int, but: Container[int] = ()) -> list[_Sized]:
    """Oldest rows of a kind, but for some ids, until their sizes add up to ``wanted``."""
    chosen: list[_Sized] = []
    size = 0
    cursor = db.execute(
        f"SELECT id, coalesce(stream, ?), seq, topic, wall_ms, {ROW_SIZE} FROM outbox WHERE {where} ORDER BY id",
        (stream,),
    )
    for row in map(_Sized._make, cursor):
        if size >= wanted:
            break
        if row.id not in but:
            chosen.append(row)
            size += row.size
    cursor.close()
    return chosen


def _thin(rows: Sequence[_Sized]) -> tuple[list[_Sized], list[int]]:
    """What to drop, and ids of what stays: one row per topic and minute."""
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


def _told(rows: Sequence[_Sized]) -> list[Loss]:
    """Run by run, unless telling would take the room that dropping made."""
    lost = [(row.stream, row.seq) for row in rows]
    runs = losses(lost, "quota")
    return runs if 4 * len(runs) <= len(rows) else losses(lost, "quota", merge=True)


def _retold(db: sqlite3.Connection, rows: Sequence[_Sized]) -> list[Loss]:
    bodies = "SELECT body FROM outbox WHERE id=?"
    return retell((row.stream, row.seq, db.execute(bodies, (row.id,)).fetchone()[0]) for row in rows)
