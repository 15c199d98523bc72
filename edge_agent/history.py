"""Minute by minute: min, mean, max, last and count of every quantity, for export, pages and forecasts.

With a minute go the marks of its counters: what is in no minute yet is counted from there after a crash.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from edge_agent.counters import Mark, MarkRow
from edge_agent.vocabulary import Reading

MINUTE_MS: Final = 60_000
_CLOSED_MAX: Final = 10_000  # rows that wait for a disk that refuses
HistoryRow = tuple[str, int, str]
"""device, minute since 1970 (UTC), JSON ``{quantity: [min, mean, max, last, count]}``."""


class _Columns:
    """Running low, high and total of a fixed set of quantities; what stands in a reading in that order."""

    __slots__ = ("cells", "count", "last", "names")

    def __init__(self, reading: Reading) -> None:
        self.names = tuple(reading.values)
        self.cells = [[value, value, 0.0] for value in reading.values.values()]
        self.count = 0
        self.last = reading

    def add(self, reading: Reading) -> None:
        for cell, value in zip(self.cells, reading.values.values(), strict=True):
            if value < cell[0]:
                cell[0] = value
            elif value > cell[1]:
                cell[1] = value
            cell[2] += value
        self.count += 1
        self.last = reading

    def body(self) -> dict[str, list[float]]:
        last = self.last.values
        return {
            name: [low, round(total / self.count, 6), high, last[name], self.count]
            for name, (low, high, total) in zip(self.names, self.cells, strict=True)
        }

    def mark(self, quantity: str) -> Mark | None:
        """Where a counter stood last; None when it is not among these."""
        reading = self.last
        if quantity not in reading.values:
            return None
        return Mark(reading.values[quantity], reading.at.wall_ms, reading.at.synced, reading.origin)


class MinuteAggregates:
    """The minutes that are still open, one per device. ``counters``: device → which of its quantities are counts."""

    def __init__(self, counters: Mapping[str, Collection[str]] | None = None) -> None:
        self._counters = {} if counters is None else counters
        self._open: dict[str, tuple[int, dict[tuple[str, ...], _Columns]]] = {}
        self._closed: list[HistoryRow] = []
        self._marks: dict[tuple[str, str], Mark] = {}

    def add(self, reading: Reading) -> None:
        """Count a reading in; its minute is that of its own stamp."""
        values = reading.values
        minute = reading.at.wall_ms // MINUTE_MS
        current = self._open.get(reading.device)
        if current is None or current[0] != minute:
            if current is not None:
                self._close(reading.device, *current)
            current = self._open[reading.device] = (minute, {})
        if values:
            names = tuple(values)  # almost always the same ones: what is absent is the exception
            columns = current[1].pop(names, None) or _Columns(reading)
            columns.add(reading)
            current[1][names] = columns  # the set that came last stands last

    def _close(self, device: str, minute: int, parts: Mapping[tuple[str, ...], _Columns]) -> None:
        body: dict[str, list[float]] = {}
        for columns in parts.values():
            _merge(body, columns.body())
            for quantity in self._counters.get(device, ()):
                if (mark := columns.mark(quantity)) is not None:
                    self._marks[device, quantity] = mark
        if body:
            self._closed.append((device, minute, json.dumps(body, separators=(",", ":"))))
            del self._closed[:-_CLOSED_MAX]

    def take(self, now_ms: int) -> list[HistoryRow]:
        """Rows of minutes that are over; the caller writes them, or gives them back."""
        minute = now_ms // MINUTE_MS
        for device, (began, totals) in list(self._open.items()):
            if began < minute:
                self._close(device, began, totals)
                del self._open[device]
        rows, self._closed = self._closed, []
        return rows

    def marks(self) -> list[MarkRow]:
        """Where the counters stood at the end of what was taken so far; the same until a minute closes."""
        return [(device, quantity, mark) for (device, quantity), mark in self._marks.items()]

    def give_back(self, rows: list[HistoryRow]) -> None:
        """They could not be written; a bounded number is kept for the next try."""
        self._closed = (rows + self._closed)[-_CLOSED_MAX:]

    def close_all(self) -> list[HistoryRow]:
        """Everything, also the running minute: for the end of the process."""
        for device, current in self._open.items():
            self._close(device, *current)
        self._open.clear()
        rows, self._closed = self._closed, []
        return rows


def add_minutes(db: sqlite3.Connection, rows: Iterable[HistoryRow], keep_after_minute: int) -> None:
    """Add to the minutes that are there, and forget those before ``keep_after_minute``. Raises sqlite3.Error."""
    for device, minute, body in rows:
        there = db.execute("SELECT body FROM history WHERE device=? AND minute=?", (device, minute)).fetchone()
        body_now = merged(there[0], body) if there else body
        db.execute("INSERT OR REPLACE INTO history VALUES(?,?,?)", (device, minute, body_now))
    db.execute("DELETE FROM history WHERE minute < ?", (keep_after_minute,))


def merged(earlier: str, later: str) -> str:
    """Two parts of one minute (a restart, or a clock set back, cut it) as one body."""
    totals = json.loads(earlier)
    _merge(totals, json.loads(later))
    return json.dumps(totals, separators=(",", ":"))


def _merge(totals: dict[str, list[float]], later: Mapping[str, list[float]]) -> None:
    for name, part in later.items():
        known = totals.get(name)
        totals[name] = part if known is None else _added(known, part)


def _added(earlier: list[float], later: list[float]) -> list[float]:
    low, mean, high, _, count = earlier
    low2, mean2, high2, last, count2 = later
    both = count + count2
    return [min(low, low2), round((mean * count + mean2 * count2) / both, 6), max(high, high2), last, both]
