"""The rows of the outbox: their classes, what they carry, and how a loss is said aloud."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from edge_agent.clock import Stamp

# Eviction order: lowest first.
TELEMETRY: Final = 0
EVIDENCE: Final = 1
VERDICT: Final = 2
GAP: Final = 3
ALARM: Final = 4

ROW_OVERHEAD_BYTES: Final = 96


class Row(NamedTuple):
    """What is to be kept: its class, topic below the root, stamp, and JSON without the envelope.

    ``body`` is the inside of a JSON object (``"values":{…}``): the envelope (stream, seq, time, late)
    is put around it when it leaves.
    """

    kind: int
    topic: str
    at: Stamp
    body: str
    retain: bool = False


class Stored(NamedTuple):
    """A row as it stands in the spool. ``stream``/``seq`` are what the integrator sees."""

    id: int
    stream: str
    seq: int
    kind: int
    topic: str
    retain: bool
    boot: int
    mono_ns: int
    wall_ms: int
    synced: bool
    body: str


class Loss(NamedTuple):
    """``rows`` rows with seq ``first``…``last`` of ``stream`` that will never arrive, and why."""

    stream: str
    first: int
    last: int
    rows: int
    reason: str

    def row(self, at: Stamp) -> Row:
        """The row that says it aloud."""
        body = (
            f'"of":{json.dumps(self.stream)},"from":{self.first},"to":{self.last},'
            f'"count":{self.rows},"reason":{json.dumps(self.reason)}'
        )
        return Row(GAP, "gap", at, body)


def losses(lost: Iterable[tuple[str, int]], reason: str, *, merge: bool = False) -> list[Loss]:
    """One loss per contiguous run of (stream, seq); ``merge``: one per stream, from its first to its last."""
    found: list[Loss] = []
    for stream, seq in lost:
        last = found[-1] if found else None
        if last and last.stream == stream and (merge or last.last == seq - 1):
            found[-1] = last._replace(last=seq, rows=last.rows + 1)
        else:
            found.append(Loss(stream, seq, seq, 1, reason))
    return found


def ranges(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Contiguous runs of a set of integers, in order."""
    runs: list[tuple[int, int]] = []
    for number in sorted(ids):
        if runs and number <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def stored(row: Sequence[Any], own_stream: str) -> Stored:
    """A row of ``SELECT * FROM outbox``; rows of the database's own stream do not repeat its name."""
    row_id, stream, seq, kind, topic, retain, boot, mono_ns, wall_ms, synced, _thinned, body = row
    return Stored(
        id=row_id,
        stream=stream or own_stream,
        seq=row_id if seq is None else seq,
        kind=kind,
        topic=topic,
        retain=bool(retain),
        boot=boot,
        mono_ns=mono_ns,
        wall_ms=wall_ms,
        synced=bool(synced),
        body=body,
    )
