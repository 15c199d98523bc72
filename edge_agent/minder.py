"""Who looks after a child process: starts it, listens, kills it when it is silent for too long, starts it again.

::

    start ─▶ hear … hear ─▶ silent for longer than allowed · link closed · nonsense ─▶ blame, end, back-off ─┐
      ▲                                                                                                     │
      └─────────────────────────────────────────────────────────────────────────────────────────────────────┘

What the process is for is the ward's business: a camera (:mod:`edge_agent.stages.eye`) or the line
(:mod:`edge_agent.stages.judge`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, Final, Protocol

from edge_agent.child import Child
from edge_agent.clock import NS, Clock
from edge_agent.eye_link import LinkClosedError, NonsenseError
from edge_agent.health import Health
from edge_agent.schedule import Backoff
from edge_agent.vocabulary import CRASHED, HUNG

NAP_S: Final = 0.5  # how long a stop may go unnoticed
_PROVEN_S: Final = 600.0  # who lived for so long before did not die of what it dies of now
_STRIKES: Final = 2


class Ward(Protocol):
    """What a minder is told about its child. Everything is called from the minder's thread."""

    def start(self) -> Child:
        """Raises OSError."""
        ...

    def hear(self, message: Mapping[str, Any]) -> None:
        """Raises NonsenseError for what such a child cannot say."""
        ...

    def allowed_s(self) -> float:
        """How long it may be silent now."""
        ...

    def tend(self, child: Child) -> float | None:
        """Say to it what is due; seconds until something is due again, or None: it is to be started anew."""
        ...

    def wait(self) -> None:
        """There is no child for a while; called every now and then."""
        ...

    def lost(self, reason: str, why: str, asked: int) -> None:
        """It ended although nobody wanted that. ``asked``: who was being asked, see :class:`~edge_agent.mark.Mark`."""
        ...


class Minder:
    """The body of one worker."""

    def __init__(self, ward: Ward, source: str, clock: Clock, health: Health) -> None:
        """``source``: of its counters: restarts, killed, nonsense, unkillable."""
        self._ward = ward
        self._source = source
        self._clock = clock
        self._health = health

    def body(self, stop: Event, progress: Callable[[], None]) -> None:
        """Until stop: start the process, listen, start it again."""
        backoff = Backoff(first_s=0.5, cap_s=60.0)
        while not stop.is_set():
            began_ns = self._clock.mono_ns()
            try:
                went_well = self._live(stop, progress)
            except OSError as error:  # no memory or no process left to start one
                went_well = False
                self._ward.lost(CRASHED, f"its process cannot be started: {error}", 0)
            if went_well:
                continue
            if self._clock.mono_ns() - began_ns > 60 * NS:
                backoff.reset()
            self._count("restarts")
            self._wait(backoff.fail(), stop, progress)

    def _wait(self, seconds: float, stop: Event, progress: Callable[[], None]) -> None:
        while seconds > 0 and not self._clock.wait(stop, min(seconds, NAP_S)):
            progress()
            self._ward.wait()
            seconds -= NAP_S

    def _live(self, stop: Event, progress: Callable[[], None]) -> bool:
        """From start to end; False when it ended although nobody asked."""
        child = self._ward.start()
        try:
            self._listen(child, stop, progress)
            child.finish(self._ward.hear)
        except LinkClosedError:
            self._ward.lost(CRASHED, f"its process {child.how_it_ended()}; it is started again", child.asked)
        except NonsenseError as error:
            self._count("nonsense")
            self._ward.lost(CRASHED, f"its process said something impossible: {error}"[:500], child.asked)
        except TimeoutError:
            self._count("killed")
            self._ward.lost(HUNG, "no sign of life; its process is started again", child.asked)
        else:
            return True
        finally:
            if not child.end():
                self._count("unkillable")
        return False

    def _listen(self, child: Child, stop: Event, progress: Callable[[], None]) -> None:
        """Until stop, or until it is to be started anew; raises TimeoutError when it is silent for too long."""
        heard_ns = self._clock.mono_ns()
        while not stop.is_set():
            progress()
            due_s = self._ward.tend(child)
            if due_s is None:
                return
            message = child.receive(min(due_s, NAP_S))
            now_ns = self._clock.mono_ns()
            if message is not None:
                self._ward.hear(message)
                heard_ns = now_ns
            elif now_ns - heard_ns > self._ward.allowed_s() * NS:
                raise TimeoutError

    def _count(self, what: str) -> None:
        self._health.count(f"{self._source}.{what}")


class Strikes:
    """Who ended the process twice in a row is left out, until something else stands in its place."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._struck: dict[str, tuple[int, int]] = {}  # who → how often, when last (ns)

    def strike(self, who: str) -> None:
        """It was being asked when the process ended."""
        count, last_ns = self._struck.get(who, (0, 0))
        now_ns = self._clock.mono_ns()
        is_old = now_ns - last_ns > _PROVEN_S * NS and count < _STRIKES
        self._struck[who] = (1 if is_old else count + 1, now_ns)

    def is_out(self, who: str) -> bool:
        return self._struck.get(who, (0, 0))[0] >= _STRIKES
