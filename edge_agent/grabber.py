"""The grab thread of an eye process: keeps the newest picture, and opens the camera again when it must."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_agent.clock import NS, Clock
from edge_agent.contracts import Camera, Frame
from edge_agent.errors import CameraError, PictureError
from edge_agent.schedule import Backoff
from edge_agent.vocabulary import FROZEN

Shot = Frame | PictureError
"""A picture, or why there is none although the camera works."""

_NAP_S = 0.5
_REMARKS_EVERY_NS = 5 * NS


class Slot:
    """Room for one picture: a newer one replaces it, and that is counted."""

    def __init__(self) -> None:
        self.grabbed = 0
        self.dropped = 0
        self._changed = threading.Condition()
        self._shot: Shot | None = None
        self._is_wanted = False

    def put(self, shot: Shot) -> None:
        with self._changed:
            self.grabbed += 1
            self.dropped += self._shot is not None
            self._shot = shot
            self._is_wanted = False
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Shot | None:
        """The newest picture that was not taken yet, waiting for it; None when none came in time."""
        with self._changed:
            if self._shot is None:
                self._is_wanted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._shot is not None, timeout_s)
            shot, self._shot = self._shot, None
            return shot

    def clear(self, why: str = "") -> None:
        """Forget the picture of a camera that is gone: what comes next is about the camera, and says why."""
        del why
        with self._changed:
            self.dropped += self._shot is not None
            self._shot = None

    def wait_until_wanted(self, timeout_s: float) -> bool:
        """Whether somebody waits for a picture."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_wanted, timeout_s)


class Grabber:
    """The only one who touches the camera. ``progress`` grows whenever it answered or is waited for on purpose."""

    def __init__(
        self,
        camera: Camera,
        idle_s: float,
        clock: Clock,
        stop: threading.Event,
        tell: Callable[..., None],
        slot: Slot | None = None,
    ) -> None:
        """``idle_s``: how long to wait when a folder has nothing new; ``tell``: sends a message to the agent."""
        self.slot = slot or Slot()
        self.progress = 0
        self.remarks: tuple[str, ...] = ()
        self._camera = camera
        self._idle_s = idle_s
        self._clock = clock
        self._stop = stop
        self._tell = tell
        self._works = False
        self._is_stuck = False
        self._asked_ns = 0

    def works(self) -> None:
        """A picture was good enough to judge: the next failure is a new one."""
        self._works = True

    def open_again(self) -> None:
        """Pictures come but they are always the same."""
        self._is_stuck = True

    def run(self) -> None:
        """Until stop: open, grab, and after a failure wait and begin again."""
        backoff = Backoff(first_s=0.5, cap_s=30.0)
        while not self._stop.is_set():
            try:
                self._tell("opening")
                self._camera.open()
                self._tell("open")
                while not self._stop.is_set():
                    self._once()
            except CameraError as error:
                self.slot.clear(error.reason)
                self._tell("fault", reason=error.reason, hint=error.hint, why=str(error)[:500])
            finally:
                self._camera.close()
            if self._works:
                backoff.reset()
            self._works = self._is_stuck = False
            self._wait(backoff.fail())

    def _once(self) -> None:
        if self._is_stuck:
            raise CameraError(
                FROZEN, "the same picture again and again", hint="set picture.frozen_after: 0 if it may be"
            )
        if not self._camera.streams and not self.slot.wait_until_wanted(_NAP_S):
            self.progress += 1
            return
        try:
            shot: Shot | None = self._camera.grab()
        except PictureError as error:
            shot = error
        self.progress += 1
        if shot is None:
            self._wait(self._idle_s)
            return
        self.slot.put(shot)
        now_ns = self._clock.mono_ns()
        if now_ns - self._asked_ns > _REMARKS_EVERY_NS:
            self._asked_ns = now_ns
            self.remarks = self._camera.remarks()

    def _wait(self, seconds: float) -> None:
        """Waiting on purpose is progress."""
        while seconds > 0 and not self._clock.wait(self._stop, min(seconds, _NAP_S)):
            self.progress += 1
            seconds -= _NAP_S
