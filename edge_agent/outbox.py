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
ROW_SIZE: Final = f"length(body) + {ROW_OVERHEAD_BYTES}"
"""What a row counts for, in SQL."""


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
    """A row as it stands in the spool. ``id``: its place in the queue; ``stream``/``seq``: what the integrator sees."""

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


def retell(gaps: Iterable[tuple[str, int, str]]) -> list[Loss]:
    """Gap rows (stream, seq, body) that make room for one per stream: what they said, and that they went."""
    said: dict[str, Loss] = {}
    for stream, seq, body in gaps:
        told = json.loads(f"{{{body}}}")
        for loss in (Loss(told["of"], told["from"], told["to"], told["count"], ""), Loss(stream, seq, seq, 1, "")):
            known = said.get(loss.stream, loss._replace(rows=0))
            said[loss.stream] = Loss(
                loss.stream, min(known.first, loss.first), max(known.last, loss.last), known.rows + loss.rows, "several"
            )
    return list(said.values())


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Contiguous runs of a set of integers, in order."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def stored(row: Sequence[Any], own_stream: str) -> Stored:
    """A row of ``SELECT * FROM outbox``; rows of the database's own stream do not repeat its name."""
    row_id, stream, seq, kind, topic, retain, boot, mono_ns, wall_ms, synced, _thinned, body = row
    return Stored(
        row_id, stream or own_stream, seq, kind, topic, bool(retain), boot, mono_ns, wall_ms, bool(synced), body
    )
