"""A camera that exists nowhere: parts on a conveyor, and whatever can go wrong with a camera, by a script."""

from __future__ import annotations

import os
import signal
from threading import Event
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from drivers import opencv
from drivers.simulated.faults import Fault, active
from edge_agent.camera_settings import CameraSection
from edge_agent.clock import NS, Clock
from edge_agent.contracts import Frame
from edge_agent.errors import CameraError
from edge_agent.settings import Duration
from edge_agent.vocabulary import UNPLUGGED

if TYPE_CHECKING:
    from drivers.cameras.conveyor import Conveyor
    from drivers.pictures import Image

_DEFAULT_SIZE = (640, 360)
_FOR_EVER_S = 1e9


class CameraFault(Fault):
    """One line of the script of a simulated camera."""

    kind: Literal[
        "defect",
        "black",
        "over-exposed",
        "frozen",
        "truncated",
        "torn",
        "wrong-size",
        "slow",
        "unplug",
        "hang",
        "crash",
    ] = Field(description="What goes wrong.")


class SimulatedSettings(CameraSection):
    """A simulated camera above a simulated conveyor."""

    fps: float | None = Field(default=10.0, gt=0, le=120, description="Pictures per second.")
    part_every: Duration = Field(default=2.0, gt=0, description="How often a part passes.")
    defect_every: int = Field(default=0, ge=0, description="Each n-th part has a dark spot; 0: none.")
    seed: int = Field(default=1, ge=0, description="The same seed gives the same parts.")
    faults: tuple[CameraFault, ...] = Field(default=(), description="What goes wrong, and when.")


class Simulated:
    """The twin of a camera. Its time counts from the start of the agent, so a crash does not begin the script anew."""

    Settings = SimulatedSettings
    streams = True

    def __init__(self, name: str, settings: SimulatedSettings, clock: Clock, since_ns: int) -> None:
        del name
        self._settings = settings
        self._clock = clock
        self._since_ns = since_ns
        self._closed = Event()
        self._conveyor: Conveyor | None = None
        self._frozen: Image | None = None

    def _elapsed_s(self) -> float:
        return (self._clock.mono_ns() - self._since_ns) / NS

    def _faults(self) -> frozenset[str]:
        return active(self._settings.faults, self._elapsed_s())

    def open(self) -> None:
        from drivers.cameras.conveyor import Conveyor  # noqa: PLC0415 - NumPy is for those who look at pictures

        if "unplug" in self._faults():
            raise CameraError(UNPLUGGED, "the simulated camera is unplugged", hint="wait")
        wanted = self._settings
        size = wanted.size or _DEFAULT_SIZE
        self._closed.clear()
        self._conveyor = Conveyor(size, wanted.part_every, wanted.defect_every, wanted.seed)

    def grab(self) -> Frame | None:
        periods = 10 if "slow" in self._faults() else 1
        self._clock.wait(self._closed, periods / (self._settings.fps or 1))
        wrong = self._faults()
        if "hang" in wrong:
            self._clock.wait(Event(), _FOR_EVER_S)
        if "crash" in wrong:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "unplug" in wrong or self._conveyor is None:
            raise CameraError(UNPLUGGED, "the simulated camera was unplugged", hint="wait")
        image = self._spoil(self._conveyor.draw(self._elapsed_s(), defective="defect" in wrong), wrong)
        at = self._clock.stamp()
        if wrong & {"truncated", "torn"}:
            data = opencv.encode_jpeg(image)
            return Frame(at, encoded=data[: len(data) // 2] + (b"\xff\xd9" if "torn" in wrong else b""))
        return Frame(at, image=image)

    def _spoil(self, image: Image, wrong: frozenset[str]) -> Image:
        if "frozen" not in wrong or self._frozen is None:
            self._frozen = image
        image = self._frozen
        if "black" in wrong:
            dark: Image = (image // 40).astype("uint8")
            return dark
        if "over-exposed" in wrong:
            bright: Image = (image | 0xFC).astype("uint8")
            return bright
        if "wrong-size" in wrong:
            return image[::2, ::2]
        return image

    def remarks(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self._closed.set()
        self._conveyor = None
