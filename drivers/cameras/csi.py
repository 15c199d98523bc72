"""A Raspberry Pi camera module (CSI), through picamera2, which comes with the system and nowhere else.

``apt install python3-picamera2`` and a virtual environment made with ``--system-site-packages`` of the
distribution's own Python.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from edge_agent.camera_settings import CameraSection
from edge_agent.clock import Clock
from edge_agent.contracts import Frame
from edge_agent.errors import CameraError
from edge_agent.settings import Duration
from edge_agent.vocabulary import BUSY, NOTHING_THERE, TIMEOUT, WIRE

_PATIENCE = 0.8  # as in stream.py
_SETTLE = 30  # pictures, as in stream.py
_DEFAULT_SIZE = (1280, 720)


class CsiSettings(CameraSection):
    """A camera module on the ribbon cable."""

    source: int = Field(
        default=0, ge=0, le=9, description="Number of the camera, as `rpicam-hello --list-cameras` says."
    )
    exposure: Duration | None = Field(default=None, gt=0, description="Exposure time to lock; automatic if not given.")
    gain: float | None = Field(default=None, gt=0, description="Analogue gain to lock; automatic if not given.")
    colour_gains: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = Field(
        default=None, description="White balance to lock: the gains of red and blue; automatic if not given."
    )


class Csi:
    """One camera module. ``RGB888`` of libcamera is blue, green, red in memory: just what we want."""

    Settings = CsiSettings
    streams = True

    def __init__(self, name: str, settings: CsiSettings, clock: Clock, since_ns: int) -> None:
        del name, since_ns
        self._settings = settings
        self._clock = clock
        self._camera: Any = None

    def open(self) -> None:
        if self._camera is not None:
            return
        try:
            from picamera2 import Picamera2  # noqa: PLC0415 - only a Pi has it
        except ImportError as error:
            raise CameraError(
                NOTHING_THERE,
                f"no picamera2: {error}",
                hint="apt install python3-picamera2, and a virtual environment with --system-site-packages",
            ) from error
        try:
            self._camera = Picamera2(self._settings.source)
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"size": self._settings.size or _DEFAULT_SIZE, "format": "RGB888"}, controls=self._controls()
                )
            )
            self._camera.start()
        except IndexError as error:
            self.close()
            hint = "check the ribbon cable; `rpicam-hello --list-cameras` shows what is there"
            raise CameraError(NOTHING_THERE, f"no camera {self._settings.source}", hint=hint) from error
        except (RuntimeError, OSError, ValueError) as error:
            self.close()
            raise CameraError(BUSY, str(error), hint="another program may have the camera") from error

    def _controls(self) -> dict[str, object]:
        controls: dict[str, object] = {}
        if self._settings.fps is not None:
            period_us = round(1_000_000 / self._settings.fps)
            controls["FrameDurationLimits"] = (period_us, period_us)
        if self._settings.exposure is not None:
            controls |= {"AeEnable": False, "ExposureTime": round(self._settings.exposure * 1_000_000)}
        if self._settings.gain is not None:
            controls |= {"AeEnable": False, "AnalogueGain": self._settings.gain}
        if self._settings.colour_gains is not None:
            controls |= {"AwbEnable": False, "ColourGains": self._settings.colour_gains}
        return controls

    def grab(self) -> Frame | None:
        if self._camera is None:
            raise CameraError(WIRE, "not open")
        try:
            job = self._camera.capture_array("main", wait=False)
            image = job.get_result(timeout=self._settings.deadline * _PATIENCE)
        except TimeoutError as error:
            raise CameraError(TIMEOUT, "the camera module sends no pictures") from error
        except (RuntimeError, OSError, ValueError) as error:
            raise CameraError(WIRE, str(error)) from error
        return Frame(self._clock.stamp(), image=image)

    def settled(self) -> dict[str, Any]:
        """See :class:`edge_agent.contracts.Settling`."""
        for _ in range(_SETTLE):
            self.grab()
        try:
            said = self._camera.capture_metadata(wait=False).get_result(timeout=self._settings.deadline * _PATIENCE)
        except TimeoutError as error:
            raise CameraError(TIMEOUT, "the camera module says nothing of its exposure") from error
        except (RuntimeError, OSError, ValueError) as error:
            raise CameraError(WIRE, str(error)) from error
        exposure_us = said.get("ExposureTime")
        return {
            "exposure": exposure_us / 1e6 if exposure_us else None,
            "gain": said.get("AnalogueGain"),
            "colour_gains": said.get("ColourGains"),
        }

    def remarks(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.stop()
            camera.close()
