"""The backlog, read from the disk a chunk at a time."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from edge_agent.clock import NS
from edge_agent.outbox import Stored
from edge_agent.schedule import Backoff

_CHUNK: Final = 200


class Unread:
    """The disk cannot be read: since how many tries, and until when it is left alone. It outlives a session."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.until_ns = 0

    def __bool__(self) -> bool:
        return self._backoff.failures > 0

    def again(self, now_ns: int) -> None:
        self.until_ns = now_ns + int(self._backoff.fail() * NS)

    def over(self) -> None:
        self._backoff.reset()


class SpoolReader(Protocol):
    @property
    def generation(self) -> int: ...

    def rows(self, after: int, before: int, count: int, *, alarms: bool) -> list[Stored]: ...

    def offset_ms(self, boot: int) -> int | None: ...

    def close(self) -> None: ...


class Lane:
    """Rows of the backlog, read from the disk a chunk at a time: alarms, or everything else."""

    def __init__(self, reader: SpoolReader, *, alarms: bool) -> None:
        self._reader = reader
        self._alarms = alarms
        self._chunk: deque[Stored] = deque()
        self._ranges: deque[tuple[int, int]] = deque()

    def __bool__(self) -> bool:
        """Whether there may be more; only :meth:`next` knows."""
        return bool(self._chunk or self._ranges)

    def add(self, first: int, before: int) -> None:
        """Also what lies in ``first ≤ id < before``."""
        if self._ranges and self._ranges[-1][1] == first:
            first = self._ranges.pop()[0]
        self._ranges.append((first, before))

    def put_back(self, row: Stored) -> None:
        self._chunk.appendleft(row)

    def next(self) -> Stored | None:
        """The next row, oldest first, or None when there is none left. Raises SpoolError with nothing changed."""
        while not self._chunk and self._ranges:
            first, before = self._ranges[0]
            self._chunk.extend(self._reader.rows(first - 1, before, _CHUNK, alarms=self._alarms))
            self._ranges.popleft()
            if self._chunk:
                self._ranges.appendleft((self._chunk[-1].id + 1, before))
        return self._chunk.popleft() if self._chunk else None
