"""The one thread that writes the disk: everything that happened becomes a numbered row, in batches.

    wire threads ──readings──┐
    eye, alarm ────rows──────┼──▶ one commit per ``commit_every`` ──▶ publish
    publish ──────settled────┘    (at once for alarms)

Readings cost no wakeup: they lie in a deque until the next commit. While the disk refuses, they stay
in memory up to a bound; then the oldest readings go, and what went is said in a gap.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog

from edge_agent.clock import NS, Clock
from edge_agent.errors import SpoolError
from edge_agent.health import Health
from edge_agent.history import MINUTE_MS, HistoryRow, MinuteAggregates
from edge_agent.outbox import TELEMETRY, Loss, Row, Stored
from edge_agent.payload import TelemetryWriter, alarm_row, evidence_row, verdict_row
from edge_agent.reader import Reader
from edge_agent.shifts import Tally
from edge_agent.spool import Spool
from edge_agent.vocabulary import AlarmChange, Evidence, Reading, Verdict

log = structlog.get_logger("record")

_READINGS_MAX: Final = 20_000
_ROWS_MAX: Final = 5_000
_GIVE_UP_AFTER_S: Final = 10.0  # of failing commits, then memory
_DISK_AGAIN_S: Final = 30.0
_ROOM_AGAIN_S: Final = 60.0  # without a loss; near the limit rows come and go
_COMMIT_MARGIN: Final = 0.9  # of commit_every: the commit itself takes time too


class Recorder:
    """Owns the spool. ``on_kept(rows, generation)`` is told of every row that is safe.

    ``counters``: device → which of its quantities are counts.
    """

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        health: Health,
        *,
        commit_every_s: float,
        history_days: float,
        formats: Mapping[str, Mapping[str, str]],
        counters: Mapping[str, Collection[str]] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.spool = spool
        self.on_kept: Callable[[list[Stored], int], None] = lambda _rows, _generation: None
        self._clock = clock
        self._health = health
        self._wait_s = commit_every_s * _COMMIT_MARGIN
        self._history_days = history_days
        self._writer = TelemetryWriter(formats)
        self._readings: deque[Reading] = deque()
        self._tally = tally or Tally()
        self._rows: deque[Row | Verdict] = deque()
        self._settled: deque[tuple[list[int], int]] = deque()
        self._parked: deque[tuple[int, str, int]] = deque()
        self._held: list[Row] = []  # numbered by nobody yet, because the last commit failed
        self._drop_lock = threading.Lock()
        self._wake = threading.Event()
        self._minutes = MinuteAggregates(counters)
        self._dropped = 0
        self._failing_since_ns = 0
        self._disk_tried_ns = 0
        self._evicted_ns = 0
        self._suspected: int | None = None  # generation
        self.recorded = 0

    # --- from other threads

    def reading(self, reading: Reading) -> None:
        """Keep a reading with the next commit. Never blocks: full means the oldest goes, counted."""
        if len(self._readings) >= _READINGS_MAX:
            self._readings.popleft()
            self._drop(1)
        self._readings.append(reading)

    def verdict(self, verdict: Verdict) -> None:
        self._offer(verdict)

    def evidence(self, evidence: Evidence) -> None:
        self._offer(evidence_row(evidence))

    def alarm(self, change: AlarmChange) -> None:
        """Keep an alarm, at once."""
        self._rows.append(alarm_row(change))
        self._wake.set()

    def row(self, row: Row) -> None:
        """Keep anything else."""
        self._offer(row)

    def _offer(self, row: Row | Verdict) -> None:
        if len(self._rows) >= _ROWS_MAX:
            self._drop(1)
            return
        self._rows.append(row)

    def _drop(self, count: int) -> None:
        self._health.count("record.dropped", count)
        with self._drop_lock:
            self._dropped += count

    def settle(self, ids: list[int], generation: int) -> None:
        """The broker has these; they leave with the next commit."""
        self._settled.append((ids, generation))

    def park(self, row_id: int, reason: str, generation: int) -> None:
        """No broker will ever take this one; it is put aside with the next commit."""
        self._parked.append((row_id, reason, generation))
        self._health.count("publish.parked")

    def suspect(self, generation: int) -> None:
        """A part of that database cannot be read: it is looked at soon, and put aside if it is damaged."""
        self._suspected = generation
        self.wake()

    @property
    def generation(self) -> int:
        return self.spool.generation

    @property
    def next_id(self) -> int:
        return self.spool.next_id

    def reader(self) -> Reader:
        return self.spool.reader()

    def wake(self) -> None:
        self._wake.set()

    # --- the thread

    def body(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        while not stop.is_set():
            self._wake.wait(self._wait_s)
            self._wake.clear()
            self.commit()
            self._look_after_disk()
            progress()
        self.commit()
        self._write_history(self._minutes.close_all())

    def close(self) -> None:
        """After every thread ended: what the broker confirmed last need not be sent again."""
        self.commit()
        self.spool.close()

    def commit(self) -> None:
        """One transaction with all that is waiting; on failure everything is still waiting."""
        rows = self._take()
        settled, parked = self._take_done()
        with self._drop_lock:
            dropped, self._dropped = self._dropped, 0
        if not (rows or settled or parked or dropped):
            return
        try:
            kept = self.spool.append([*rows, *self._said(dropped)], settled, parked, self._tally.notes())
        except SpoolError as error:
            with self._drop_lock:
                self._dropped += dropped
            self._failed(error, rows, settled, parked)
            return
        self._held = []
        self._tally.kept()
        self._failing_since_ns = 0
        self._health.clear("spool.write")
        self.recorded += len(kept)
        if kept:
            self.on_kept(kept, self.spool.generation)
        self._stay_within_limit()

    def _stay_within_limit(self) -> None:
        try:
            gaps = self.spool.enforce_limit()
        except SpoolError as error:
            self._health.fault("spool.write", str(error))
            return
        now_ns = self._clock.mono_ns()
        if gaps:
            self._evicted_ns = now_ns
            self._health.fault("spool.limit", "no more room: the oldest rows are dropped")
            self.on_kept(gaps, self.spool.generation)
        elif self.spool.roomy and now_ns - self._evicted_ns >= _ROOM_AGAIN_S * NS:
            self._health.clear("spool.limit")

    def _take(self) -> list[Row]:
        """All that waits, as rows."""
        rows = list(self._held)
        write, count_in = self._writer.row, self._minutes.add
        while self._readings:
            reading = self._readings.popleft()
            rows.append(write(reading))
            count_in(reading)
        while self._rows:
            row = self._rows.popleft()
            if isinstance(row, Verdict):
                rows += [verdict_row(row), *self._tally.add(row)]
            else:
                rows.append(row)
        return rows + self._tally.due(self._clock.stamp())

    def _said(self, dropped: int) -> list[Row]:
        """What was dropped before it had a number: an empty range says when, the count says how many."""
        if not dropped:
            self._health.clear("record.full")
            return []
        self._health.fault("record.full", "more comes than the disk takes")
        next_seq = self.spool.next_seq
        return [Loss(self.spool.stream, next_seq, next_seq - 1, dropped, "memory").row(self._clock.stamp())]

    def _take_done(self) -> tuple[list[int], list[tuple[int, str]]]:
        generation = self.spool.generation
        settled: list[int] = []
        while self._settled:
            ids, of = self._settled.popleft()
            if of == generation:
                settled += ids
        parked = []
        while self._parked:
            row_id, reason, of = self._parked.popleft()
            if of == generation:
                parked.append((row_id, reason))
        return settled, parked

    def _failed(self, error: SpoolError, rows: list[Row], settled: list[int], parked: list[tuple[int, str]]) -> None:
        """Hold everything for the next try; after some seconds go on in memory."""
        generation = self.spool.generation
        self._settled.appendleft((settled, generation))
        self._parked.extendleft((row_id, reason, generation) for row_id, reason in reversed(parked))
        self._held = self._bounded(rows)
        self._health.fault("spool.write", str(error))
        self._health.count("spool.failed_commits")
        now_ns = self._clock.mono_ns()
        self._failing_since_ns = self._failing_since_ns or now_ns
        if now_ns - self._failing_since_ns > _GIVE_UP_AFTER_S * NS and not self.spool.volatile:
            self.spool.fall_back(error)
            self._failing_since_ns = 0
            self._disk_tried_ns = now_ns

    def _bounded(self, rows: list[Row]) -> list[Row]:
        """Without the oldest telemetry (or, of nothing else, the oldest) beyond what memory may hold."""
        surplus = len(rows) - _READINGS_MAX
        if surplus <= 0:
            return rows
        self._drop(surplus)
        rows.sort(key=lambda row: row.kind != TELEMETRY)  # stable: both parts stay in order
        return rows[surplus:]

    def _look_after_disk(self) -> None:
        stamp = self._clock.stamp()
        if self._suspected == self.spool.generation and not self.spool.volatile:
            self.spool.open_again()
        if self.spool.volatile and stamp.mono_ns - self._disk_tried_ns > _DISK_AGAIN_S * NS:
            self._disk_tried_ns = stamp.mono_ns
            self.spool.return_to_disk()
        try:
            self.spool.anchor()
        except SpoolError as error:
            self._health.fault("spool.write", str(error))
        if not self.spool.volatile:
            self._write_history(self._minutes.take(stamp.wall_ms))

    def _write_history(self, rows: list[HistoryRow]) -> None:
        if not rows:
            return
        stamp = self._clock.stamp()
        # A clock that may be wrong by years must not decide what is old.
        oldest = stamp.wall_ms // MINUTE_MS - int(self._history_days * 1440) if stamp.synced else 0
        try:
            self.spool.history(rows, oldest, self._minutes.marks())
        except SpoolError as error:
            self._minutes.give_back(rows)
            self._health.fault("spool.history", str(error))
        else:
            self._health.clear("spool.history")
