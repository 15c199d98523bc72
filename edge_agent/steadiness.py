"""Whether sessions with the broker last, or end again and again without a word soon after they began.

Some brokers (mosquitto 2.0, and all that speak MQTT 3.1.1) do not say that another client took the client id: the
connection is simply closed. One agent copied to a second computer looks like a bad cable then.
"""

from __future__ import annotations

from typing import Final

from edge_agent.clock import NS, Clock
from edge_agent.health import Health

_STEADY_S: Final = 30.0
_TOO_OFTEN: Final = 3
_SOURCE: Final = "mqtt.sessions"


class Steadiness:
    """Of the sessions of one publisher, in its thread."""

    def __init__(self, clock: Clock, health: Health) -> None:
        self._clock = clock
        self._health = health
        self._began_ns: int | None = None
        self._cut_short = 0

    def begin(self) -> None:
        """A session began."""
        self._began_ns = self._clock.mono_ns()

    def look(self) -> bool:
        """Whether there is a session, and it has lasted."""
        if self._began_ns is None or self._clock.mono_ns() - self._began_ns < _STEADY_S * NS:
            return False
        self._cut_short = 0
        self._health.clear(_SOURCE)
        return True

    def end(self, *, without_a_word: bool) -> bool:
        """The session ended, or none began; whether it had lasted."""
        has_lasted = self.look()
        if self._began_ns is not None and without_a_word and not has_lasted:
            self._cut_short += 1
            if self._cut_short >= _TOO_OFTEN:
                self._health.fault(
                    _SOURCE,
                    "the broker closes each session soon after it began",
                    hint="does another agent use the same client id (a copied config)? Give each line its own",
                )
        self._began_ns = None
        return has_lasted
