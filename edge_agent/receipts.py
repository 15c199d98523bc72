"""What the broker took and the collector has not confirmed, where the config names a receipt topic."""

from __future__ import annotations

from edge_agent.outbox import Stored


class Receipts:
    """Waiting rows as runs, so that it stays small however long the collector takes."""

    def __init__(self) -> None:
        # stream and (id - seq) → runs [first, last] of seq, in the order they were sent
        self._runs: dict[tuple[str, int], list[list[int]]] = {}

    def wait_for(self, row: Stored) -> None:
        runs = self._runs.setdefault((row.stream, row.id - row.seq), [])
        if runs and runs[-1][1] == row.seq - 1:
            runs[-1][1] = row.seq
        else:
            runs.append([row.seq, row.seq])

    def take(self, stream: str, upto: int) -> list[int]:
        """The ids of what is confirmed now."""
        ids: list[int] = []
        for key in [key for key in self._runs if key[0] == stream]:
            left = []
            for first, last in self._runs[key]:
                ids.extend(range(first + key[1], min(last, upto) + key[1] + 1))
                if last > upto:
                    left.append([max(first, upto + 1), last])
            if left:
                self._runs[key] = left
            else:
                del self._runs[key]
        return ids
