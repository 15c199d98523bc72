"""When a picture is judged: every so often, when a sensor sees a part, or when what moved is still.

::

    sensor ──part()──▶ awaited ──first picture taken after edge + delay──▶ ready ──▶ judge loop
                          └─ none came within the limit ─▶ not inspected, with the reason

Every part that was seen gets exactly one verdict, also when its picture is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from edge_agent.camera_settings import TriggerSection
from edge_agent.clock import NS, Clock, Stamp
from edge_agent.errors import EdgeAgentError, PictureError
from edge_agent.grabber import Shot, Slot
from edge_agent.schedule import Backoff, Periodic
from edge_agent.vocabulary import NO_PICTURE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NAP_S: Final = 0.5
_AWAITED_MOST: Final = 64  # parts; a line that is faster than its camera is told so for each
_READY_MOST: Final = 4  # pictures: memory


class Occasion(NamedTuple):
    """What is to be judged, and when the part that it shows was seen; None: nobody saw one."""

    shot: Shot
    part: Stamp | None = None


class Occasions(Protocol):
    """Whatever decides when a picture is judged."""

    def next(self, stop: Event) -> Occasion | None:
        """Wait for the next occasion, but not for long; None: not now."""
        ...


class ByTime:
    """Every so often the newest picture."""

    def __init__(self, slot: Slot, every_s: float, clock: Clock) -> None:
        self._slot = slot
        self._clock = clock
        self._tick = Periodic.every(every_s, clock.mono_ns())

    def next(self, stop: Event) -> Occasion | None:
        now_ns = self._clock.mono_ns()
        if not self._tick.is_due(now_ns):
            self._clock.wait(stop, min((self._tick.due_ns - now_ns) / NS, _NAP_S))
            return None
        shot = self._slot.take(_NAP_S)
        if shot is None:
            return None
        self._tick.advance(self._clock.mono_ns())
        return Occasion(shot)


class _Awaited(NamedTuple):
    part: Stamp
    due_ns: int


class PartSlot(Slot):
    """Room for one picture of each part: the first that was taken when the part was in sight."""

    def __init__(self, settings: TriggerSection, clock: Clock) -> None:
        super().__init__()
        self._delay_ns = int(settings.delay * NS)
        self._within_ns = int(settings.within * NS)
        self._clock = clock
        self._awaited: deque[_Awaited] = deque()
        self._ready: deque[Occasion] = deque()
        self._gone: str | None = None

    def expect(self, part: Stamp) -> None:
        """A part was seen then. From any thread."""
        with self._changed:
            if len(self._awaited) == _AWAITED_MOST:
                self._miss(self._awaited.popleft(), "too many parts at once")
            self._awaited.append(_Awaited(part, part.mono_ns + self._delay_ns))
            self._changed.notify_all()

    def put(self, shot: Shot) -> None:
        at_ns = self._clock.mono_ns() if isinstance(shot, PictureError) else shot.at.mono_ns
        with self._changed:
            self.grabbed += 1
            self._expire(at_ns)
            self._gone = None
            if not self._awaited or self._awaited[0].due_ns > at_ns:
                self.dropped += 1
                return
            self._is_wanted = False
            self._put_ready(Occasion(shot, self._awaited.popleft().part))

    def clear(self, why: str = NO_PICTURE) -> None:
        """The camera is gone, and why. Pictures that came before are good; who still waits may wait in vain."""
        with self._changed:
            self._gone = why

    def occasion(self, timeout_s: float) -> Occasion | None:
        """The next part with its picture, or with why there is none; None when nothing came in time."""
        end_ns = self._clock.mono_ns() + int(timeout_s * NS)
        with self._changed:
            while True:
                now_ns = self._clock.mono_ns()
                self._expire(now_ns)
                if self._ready:
                    return self._ready.popleft()
                until_ns = end_ns
                if self._awaited:
                    due_ns = self._awaited[0].due_ns
                    self._want(is_due=now_ns >= due_ns)
                    until_ns = min(end_ns, due_ns if now_ns < due_ns else due_ns + self._within_ns + 1)
                if now_ns >= end_ns:
                    return None
                self._changed.wait((until_ns - now_ns) / NS)

    def _want(self, *, is_due: bool) -> None:
        """A camera that gives pictures only when asked is asked now."""
        if is_due and not self._is_wanted:
            self._is_wanted = True
            self._changed.notify_all()

    def _expire(self, now_ns: int) -> None:
        """Whoever is out of sight by now has had no picture."""
        while self._awaited and now_ns > self._awaited[0].due_ns + self._within_ns:
            self._miss(self._awaited.popleft(), "")

    def _miss(self, awaited: _Awaited, why: str) -> None:
        self._put_ready(Occasion(PictureError(self._gone or NO_PICTURE, why), awaited.part))

    def _put_ready(self, occasion: Occasion) -> None:
        """Every part stays, but not every picture: a judge that is too slow does not fill the memory."""
        self._ready.append(occasion)
        if len(self._ready) > _READY_MOST:
            late = len(self._ready) - _READY_MOST - 1
            if not isinstance(self._ready[late].shot, PictureError):
                self.dropped += 1
                why = PictureError(NO_PICTURE, "the judge was too slow")
                self._ready[late] = Occasion(why, self._ready[late].part)
        self._changed.notify_all()


class Sensor(Protocol):
    """What sees a part. ``open`` raises an EdgeAgentError; ``when_part`` calls from any thread."""

    def open(self) -> None: ...

    def when_part(self, act: Callable[[], None]) -> None: ...


class ByPart:
    """One picture per part that a sensor sees. ``tell``: sends a message to the agent, and may not raise."""

    def __init__(
        self, slot: PartSlot, make: Callable[[], Sensor], clock: Clock, tell: Callable[..., None], backoff: Backoff
    ) -> None:
        """``make``: a new sensor, not yet open; ``backoff``: between attempts to open one."""
        self._slot = slot
        self._make = make
        self._clock = clock
        self._tell = tell
        self._backoff = backoff
        self._sensor: Sensor | None = None
        self._again_ns = 0

    def next(self, stop: Event) -> Occasion | None:
        del stop  # it never waits for long
        if self._sensor is None and self._clock.mono_ns() >= self._again_ns:
            self._open()
        return self._slot.occasion(_NAP_S)

    def _open(self) -> None:
        sensor = self._make()
        try:
            sensor.open()
            sensor.when_part(self.part)
        except EdgeAgentError as error:
            self._again_ns = self._clock.mono_ns() + int(self._backoff.fail() * NS)
            self._tell("sensor", works=False, why=str(error)[:500])
            return
        self._sensor = sensor
        self._tell("sensor", works=True, why="")

    def part(self) -> None:
        """A part is there now. The agent knows of it before anything can go wrong with its picture."""
        at = self._clock.stamp()
        self._tell("part", at=list(at))
        self._slot.expect(at)


_CELL: Final = 8  # pixels of the sample that the gate looks at
_CHANGED: Final = 12  # grey levels of a cell's mean: light and sensor noise stay below


class Motion:
    """Says once when what moved is still. At its start it takes what lies there for something that just came."""

    def __init__(self, settings: TriggerSection) -> None:
        self._moved = settings.moved
        self._still_ns = int(settings.still * NS)
        self._before: Any = None
        self._moved_ns: int | None = 0  # when it moved last; None: that was said

    def step(self, grey: npt.NDArray[np.uint8], now_ns: int) -> bool:
        """One look at the grey levels of the region (height × width, uint8); whether it is time to judge."""
        cells = _cells(grey)
        before, self._before = self._before, cells
        if before is None or before.shape != cells.shape or _changed(cells, before) > self._moved:
            self._moved_ns = now_ns
        if self._moved_ns is None or now_ns - self._moved_ns < self._still_ns:
            return False
        self._moved_ns = None
        return True


def _changed(cells: npt.NDArray[np.float32], before: npt.NDArray[np.float32]) -> float:
    """Which share of them."""
    return float((abs(cells - before) > _CHANGED).mean())


def _cells(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The mean of each cell; a region that is smaller than one is one."""
    high, wide = (min(_CELL, side) for side in grey.shape)
    rows, columns = grey.shape[0] // high, grey.shape[1] // wide
    whole = grey[: rows * high, : columns * wide].reshape(rows, high, columns, wide)
    means: npt.NDArray[np.float32] = whole.mean(axis=(1, 3), dtype="float32")
    return means
