"""Cameras that OpenCV captures from: USB (V4L2), RTSP and video files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, field_validator

from drivers import opencv
from edge_agent.camera_settings import CameraSection, PictureSection
from edge_agent.clock import NS, Clock
from edge_agent.contracts import Frame
from edge_agent.errors import CameraError
from edge_agent.settings import Duration
from edge_agent.vocabulary import BUSY, NOTHING_THERE, PERMISSION, TIMEOUT, UNPLUGGED, WIRE

# The camera gives up before its process is killed, so that it can say why.
_PATIENCE = 0.8
SETTLE = 30  # pictures, until the automatic of a camera has found what it wants


class _Captured:
    """What OpenCV's captures have in common; each kind opens its own way."""

    def __init__(self, name: str, settings: Any, clock: Clock, since_ns: int) -> None:
        del name, since_ns
        self._settings = settings
        self._clock = clock
        self._capture: opencv.Capture | None = None

    def remarks(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        if self._capture is not None:
            self._capture.close()
            self._capture = None


class V4l2Settings(CameraSection):
    """A USB camera."""

    source: str = Field(description="The device: `/dev/video0`, better `/dev/v4l/by-id/…`, which survives re-plugging.")
    exposure: Duration | None = Field(default=None, gt=0, description="Exposure time to lock; automatic if not given.")
    gain: float | None = Field(default=None, ge=0, description="Gain to lock, in the camera's own units.")
    white_balance: int | None = Field(
        default=None, gt=0, description="Colour temperature in kelvin to lock; automatic if not given."
    )


class V4l2(_Captured):
    """A USB camera (UVC). Motion JPEG stays as it came, so that a damaged picture can be told from a whole one."""

    Settings = V4l2Settings
    streams = True

    def __init__(self, name: str, settings: V4l2Settings, clock: Clock, since_ns: int) -> None:
        super().__init__(name, settings, clock, since_ns)
        self._is_jpeg = False

    def open(self) -> None:
        if self._capture is not None:
            return
        if not opencv.has_v4l2():
            raise CameraError(NOTHING_THERE, "this OpenCV was built without V4L2", hint="install the one from PyPI")
        source = self._settings.source
        _claim(source)
        self._capture = opencv.Capture(source, "v4l2", *_patience(self._settings))
        self._configure(self._capture)

    def _configure(self, capture: opencv.Capture) -> None:
        wanted = self._settings
        # The pixel format first: it decides which sizes and rates there are.
        self._is_jpeg = capture.set_fourcc("MJPG")
        if wanted.size is not None:
            capture.set("FRAME_WIDTH", wanted.size[0])
            capture.set("FRAME_HEIGHT", wanted.size[1])
        if wanted.fps is not None:
            capture.set("FPS", wanted.fps)
        if wanted.exposure is not None:
            capture.set("AUTO_EXPOSURE", 1)  # V4L2_EXPOSURE_MANUAL
            capture.set("EXPOSURE", self._exposure_units())
        if wanted.gain is not None:
            capture.set("GAIN", wanted.gain)
        if wanted.white_balance is not None:
            capture.set("AUTO_WB", 0)
            capture.set("WB_TEMPERATURE", wanted.white_balance)
        capture.set("CONVERT_RGB", 0 if self._is_jpeg else 1)

    def _exposure_units(self) -> int:
        """V4L2_CID_EXPOSURE_ABSOLUTE counts in 100 µs."""
        return max(1, round((self._settings.exposure or 0) * 10_000))

    def grab(self) -> Frame | None:
        capture = _opened(self._capture)
        picture = capture.read()
        # OpenCV may go on returning the last picture of a camera that is gone.
        is_there = Path(self._settings.source).exists()
        if picture is None or not is_there:
            raise CameraError(TIMEOUT if is_there else UNPLUGGED, f"no picture from {self._settings.source}")
        at = self._clock.stamp()
        return Frame(at, encoded=picture.tobytes()) if self._is_jpeg else Frame(at, image=picture)

    def settled(self) -> dict[str, Any]:
        """See :class:`edge_agent.contracts.Settling`."""
        capture = _opened(self._capture)
        for _ in range(SETTLE):
            self.grab()
        # OpenCV says -1 for what there is not, and 0 is no exposure and no colour.
        exposure, gain, kelvin = (capture.get(name) for name in ("EXPOSURE", "GAIN", "WB_TEMPERATURE"))
        return {
            "exposure": exposure / 10_000 if exposure > 0 else None,
            "gain": gain if gain >= 0 else None,
            "white_balance": round(kelvin) if kelvin > 0 else None,
        }

    def remarks(self) -> tuple[str, ...]:
        if self._capture is None:
            return ()
        found = []
        exposure, gain = self._capture.get("EXPOSURE"), self._capture.get("GAIN")
        if self._settings.exposure is not None and exposure != self._exposure_units():
            found.append(f"exposure is {exposure / 10:g} ms, not {self._settings.exposure * 1000:g} ms")
        if self._settings.gain is not None and gain != self._settings.gain:
            found.append(f"gain is {gain:g}, not {self._settings.gain:g}")
        if self._settings.white_balance not in (None, kelvin := self._capture.get("WB_TEMPERATURE")):
            found.append(f"white balance is {kelvin:g} K, not {self._settings.white_balance} K")
        return tuple(found)


class VideoPictureSection(PictureSection):
    """A video encoder removes the noise of a scene that stands still, so it takes longer to be sure."""

    frozen_after: int = Field(
        default=10, ge=0, description="Frozen: repeated so often without even the noise of a sensor; 0: never."
    )


class RtspSettings(CameraSection):
    """A network camera over RTSP."""

    picture: VideoPictureSection = Field(
        default=VideoPictureSection(), description="What a picture must be to be judged."
    )

    source: str = Field(description="The address: `rtsp://10.0.0.9:554/stream1`, without a password.")
    user: str | None = Field(default=None, description="The user that the camera asks for.")
    password_file: Path | None = Field(default=None, description="A file whose first line is the password.")

    @field_validator("source")
    @classmethod
    def _is_rtsp(cls, source: str) -> str:
        return checked_address(source, "rtsp", "rtsps")


class Rtsp(_Captured):
    """A network camera, always over TCP: a lost datagram would be a damaged picture that nobody notices."""

    Settings = RtspSettings
    streams = True

    def open(self) -> None:
        if self._capture is not None:
            return
        address = urlsplit(self._settings.source)
        if self._settings.user is not None:
            password = first_line(self._settings.password_file)
            login = f"{quote(self._settings.user, safe='')}:{quote(password, safe='')}"
            address = address._replace(netloc=f"{login}@{address.netloc}")
        over_tcp = {"rtsp_transport": "tcp"}
        try:
            self._capture = opencv.Capture(urlunsplit(address), "ffmpeg", *_patience(self._settings), over_tcp)
        except CameraError as error:
            hint = "check the address, user and password_file, and whether another viewer shows it"
            raise CameraError(error.reason, f"{self._settings.source} gives no video", hint=hint) from None

    def grab(self) -> Frame | None:
        began_ns = self._clock.mono_ns()
        picture = _opened(self._capture).read()
        at = self._clock.stamp()
        # After its timeout OpenCV empties the decoder: those pictures are old, whatever it says.
        is_late = at.mono_ns - began_ns >= _patience(self._settings)[1] * 0.95 * NS
        if picture is None or is_late:
            raise CameraError(TIMEOUT, f"{self._settings.source} sends nothing any more")
        return Frame(at, image=picture)


class RecordedPictureSection(PictureSection):
    """A recording may hold the same picture twice."""

    frozen_after: int = Field(
        default=0, ge=0, description="Frozen: repeated so often without even the noise of a sensor; 0: never."
    )


class VideoFileSettings(CameraSection):
    """A recording that is judged picture by picture."""

    source: Path = Field(description="The video file.")
    loop: bool = Field(default=False, description="Begin again at its end.")
    picture: RecordedPictureSection = Field(
        default=RecordedPictureSection(), description="What a picture must be to be judged."
    )


class VideoFile(_Captured):
    """A recording: one picture per ``every``, none skipped."""

    Settings = VideoFileSettings
    streams = False

    def __init__(self, name: str, settings: VideoFileSettings, clock: Clock, since_ns: int) -> None:
        super().__init__(name, settings, clock, since_ns)
        self._is_over = False

    def open(self) -> None:
        if self._capture is None and not self._is_over:
            path = self._settings.source.absolute()
            if not path.is_file():
                raise CameraError(NOTHING_THERE, f"no file {path}")
            # A playlist must not make us open anything else.
            only_files = {"protocol_whitelist": "file"}
            self._capture = opencv.Capture(str(path), "ffmpeg", *_patience(self._settings), only_files)

    def grab(self) -> Frame | None:
        if self._is_over:
            return None
        picture = _opened(self._capture).read()
        if picture is None and self._settings.loop:
            self.close()
            self.open()
            picture = _opened(self._capture).read()
            if picture is None:
                raise CameraError(NOTHING_THERE, f"{self._settings.source} has no picture")
        if picture is None:
            self._is_over = True
            return None
        return Frame(self._clock.stamp(), image=picture)


def checked_address(address: str, *schemes: str) -> str:
    """The address, if it is one of ``schemes`` and carries no password; raises ValueError."""
    parts = urlsplit(address)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"{address!r} must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host")
    if "@" in parts.netloc:
        raise ValueError("a password in the address is a password in the config: use `user` and `password_file`")
    return address


def first_line(path: Path | None) -> str:
    """A password from its file; nothing without a file. Raises CameraError."""
    if path is None:
        return ""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise CameraError(PERMISSION, f"cannot read {path}: {error.strerror}") from error
    return lines[0] if lines else ""


def _patience(settings: CameraSection) -> tuple[float, float]:
    """Seconds for opening and for reading."""
    return settings.open_deadline * _PATIENCE, settings.deadline * _PATIENCE


def _opened(capture: opencv.Capture | None) -> opencv.Capture:
    if capture is None:
        raise CameraError(WIRE, "not open")
    return capture


def _claim(path: str) -> None:
    """OpenCV only says that it did not work; the kernel says why."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        reason, hint = {
            errno.ENOENT: (NOTHING_THERE, "plug the camera in; `ls /dev/v4l/by-id` shows what is there"),
            errno.ENODEV: (UNPLUGGED, "plug the camera in"),
            errno.ENXIO: (UNPLUGGED, "plug the camera in"),
            errno.EACCES: (PERMISSION, "add the user to the group video"),
            errno.EBUSY: (BUSY, "another program has the camera; `fuser -v` names it"),
        }.get(error.errno or 0, (WIRE, ""))
        raise CameraError(reason, f"{path}: {os.strerror(error.errno or 0)}", hint=hint) from error
