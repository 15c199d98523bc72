"""One open case per machine, however often the score crosses its threshold.

::

            over for open_after_s                       calm for quiet_s
    closed ───────────────────────▶ open ───────────────────────────────▶ closed
                 since = the first moment over, not the moment of opening

A case that comes back soon after it was closed was not over: each time it must be calm for twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

OPENED: Final = "opened"
CLOSED: Final = "closed"
_SOON: Final = 10.0  # times as long as it had to be calm
_LONGEST: Final = 64.0  # times quiet_s


class Case:
    """Seconds of any clock that does not step back; pure, no I/O."""

    def __init__(self, open_after_s: float, quiet_s: float) -> None:
        self._open_after_s = open_after_s
        self._quiet_s = quiet_s
        self._calm_for_s = quiet_s  # so long it must be calm now
        self._closed_s: float | None = None
        self._over_since_s: float | None = None
        self._calm_since_s: float | None = None
        self.since_s: float | None = None

    @property
    def open(self) -> bool:
        return self.since_s is not None

    def step(self, over: bool, at_s: float) -> str | None:
        """One judgement: is it over the threshold? Returns OPENED or CLOSED when that is what it brought, else None."""
        if over:
            self._calm_since_s = None
            if self._over_since_s is None:
                self._over_since_s = at_s
            if not self.open and at_s - self._over_since_s >= self._open_after_s:
                self._open(self._over_since_s)
                return OPENED
            return None
        self._over_since_s = None
        if not self.open:
            return None
        if self._calm_since_s is None:
            self._calm_since_s = at_s
        if at_s - self._calm_since_s < self._calm_for_s:
            return None
        self.since_s = self._calm_since_s = None
        self._closed_s = at_s
        return CLOSED

    def _open(self, since_s: float) -> None:
        self.since_s = since_s
        is_soon = self._closed_s is not None and since_s - self._closed_s < _SOON * self._calm_for_s
        self._calm_for_s = min(2.0 * self._calm_for_s, _LONGEST * self._quiet_s) if is_soon else self._quiet_s

    def memory(self) -> list[float | None]:
        """Plain numbers; ``recall`` takes them back."""
        return [self._over_since_s, self._calm_since_s, self.since_s, self._closed_s, self._calm_for_s]

    def recall(self, memory: Sequence[float | None]) -> None:
        """Raises ValueError or TypeError for what does not fit, and then nothing has changed."""
        over_s, calm_s, since_s, closed_s, for_s = (None if each is None else float(each) for each in memory)
        self._over_since_s, self._calm_since_s, self.since_s, self._closed_s = over_s, calm_s, since_s, closed_s
        self._calm_for_s = self._quiet_s if for_s is None else for_s

    def close(self) -> None:
        """A person said that it is over, or that this is the new normal. Harmless when closed."""
        self.since_s = self._over_since_s = self._calm_since_s = self._closed_s = None
