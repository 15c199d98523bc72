"""Minute by minute: min, mean, max, last and count of every quantity, for export, pages and forecasts."""

from __future__ import annotations

import json
from typing import Final

from edge_agent.vocabulary import Reading

MINUTE_MS: Final = 60_000
_CLOSED_MAX: Final = 10_000  # rows that wait for a disk that refuses
HistoryRow = tuple[str, int, str]
"""device, minute since 1970 (UTC), JSON ``{quantity: [min, mean, max, last, count]}``."""


class MinuteAggregates:
    """The minutes that are still open, one per device."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, dict[str, list[float]]]] = {}
        self._closed: list[HistoryRow] = []

    def add(self, reading: Reading) -> None:
        """Count a reading in; its minute is that of its own stamp."""
        minute = reading.at.wall_ms // MINUTE_MS
        current = self._open.get(reading.device)
        if current is None or current[0] != minute:
            if current is not None:
                self._close(reading.device, *current)
            current = (minute, {})
            self._open[reading.device] = current
        totals = current[1]
        for name, value in reading.values.items():
            total = totals.get(name)
            if total is None:
                totals[name] = [value, value, value, value, 1]
                continue
            if value < total[0]:
                total[0] = value
            elif value > total[2]:
                total[2] = value
            total[1] += value
            total[3] = value
            total[4] += 1

    def _close(self, device: str, minute: int, totals: dict[str, list[float]]) -> None:
        body = {
            name: [low, round(total / count, 6), high, last, int(count)]
            for name, (low, total, high, last, count) in totals.items()
        }
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


def merged(earlier: str, later: str) -> str:
    """Two parts of one minute (a restart, or a clock set back, cut it) as one body."""
    totals = json.loads(earlier)
    for name, part in json.loads(later).items():
        known = totals.get(name)
        totals[name] = part if known is None else _added(known, part)
    return json.dumps(totals, separators=(",", ":"))


def _added(earlier: list[float], later: list[float]) -> list[float]:
    low, mean, high, _, count = earlier
    low2, mean2, high2, last, count2 = later
    both = count + count2
    return [min(low, low2), round((mean * count + mean2 * count2) / both, 6), max(high, high2), last, both]
