"""OpenCV. Nobody else imports it, and it is loaded when the first picture is: a process without cameras pays nothing.

It decodes, encodes and resizes pictures, and captures from V4L2 devices, RTSP streams and video files.
Every way in which it fails becomes a CameraError or PictureError.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from drivers import pictures
from drivers.lettering import lettering
from edge_agent.errors import CameraError, PictureError
from edge_agent.vocabulary import DAMAGED, NOTHING_THERE, WIRE

if TYPE_CHECKING:
    from drivers.pictures import Image

# A healthy webcam may leave a few bytes before a marker; libjpeg mentions it and the picture is whole.
_COMPLAINT = re.compile(r"^(?:Corrupt JPEG data|Premature end of JPEG)[^\n]*", re.MULTILINE)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")
_HARMLESS_BYTES = 16
_WIDE = 1000  # pixels; a copy that only shows where needs no more
_RED = (0, 0, 255)  # BGR
_stderr_lock = Lock()


@cache
def _cv2() -> Any:
    # Read by OpenCV when it is loaded: its own chatter is not ours, our errors say what is wrong.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2  # noqa: PLC0415 - 40 MB, only for those who look at pictures

    cv2.setNumThreads(1)  # metering has the other cores
    return cv2


def load() -> str:
    """Import OpenCV now; its version."""
    return str(_cv2().__version__)


def decode(data: bytes, max_pixels: int) -> Image:
    """Pixels of a JPEG or PNG, in the sensor's own orientation.

    Refuses with PictureError what is too large, cut short or damaged, before decoding where the header
    tells, and never returns the good half of a bad picture.
    """
    header = pictures.check(data, max_pixels)
    cv2 = _cv2()
    import numpy as np  # noqa: PLC0415 - as above

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    with _complaints() as said:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise PictureError(DAMAGED, str(error)) from error
    if image is None:
        raise PictureError(DAMAGED, f"a {header.format.upper()} that cannot be decoded")
    if image.shape[:2] != (header.height, header.width):
        raise PictureError(DAMAGED, "a picture of another size than its header says")
    if header.format == pictures.JPEG and said:
        raise PictureError(DAMAGED, said[0])
    return cast("Image", image)


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """What libjpeg writes to standard error meanwhile: OpenCV has no other way to tell that a picture is damaged."""
    said: list[str] = []
    with _stderr_lock:
        saved = os.dup(2)
        notes = os.memfd_create("complaints")
        os.dup2(notes, 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            text = os.pread(notes, 4096, 0).decode(errors="replace")
            os.close(saved)
            os.close(notes)
    said += [line for line in _COMPLAINT.findall(text) if not _is_harmless(line)]


def _is_harmless(complaint: str) -> bool:
    match = _EXTRANEOUS.search(complaint)
    return match is not None and int(match[1]) <= _HARMLESS_BYTES


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """The picture as JPEG."""
    cv2 = _cv2()
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise PictureError(DAMAGED, "the picture cannot be encoded")
    return bytes(data)


def shrunk(source: bytes | Image) -> tuple[Image, int]:
    """A copy to draw into, and how many times smaller it is than the picture, which has been decoded before.

    Raises PictureError.
    """
    cv2 = _cv2()
    import numpy as np  # noqa: PLC0415 - as above

    if not isinstance(source, bytes):
        factor = 2 if source.shape[1] >= _WIDE else 1
        size = (source.shape[1] // factor, source.shape[0] // factor)
        return cast("Image", cv2.resize(source, size, interpolation=cv2.INTER_AREA)), factor
    factor = 2 if pictures.header(source).width >= _WIDE else 1
    flags = cv2.IMREAD_REDUCED_COLOR_2 if factor == 2 else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(source, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise PictureError(DAMAGED, "the picture cannot be decoded again")
    return image, factor


def mark(image: Image, box: tuple[int, int, int, int], text: str) -> None:
    """Draw a box (left, top, width, height) and a line of text in the corner into the picture."""
    wide = image.shape[1]
    left, top, across, down = box
    _cv2().rectangle(image, (left, top), (left + across, top + down), _RED, max(1, wide // 500))
    scale = max(1, wide // 400)
    dots = lettering(text, scale)[:, : wide - 2 * scale]
    strip = image[: dots.shape[0] + 2 * scale, : dots.shape[1] + 2 * scale]
    strip[:] = 0
    strip[scale:-scale, scale:-scale][dots[: strip.shape[0] - 2 * scale]] = 255


def glow(image: Image, region: tuple[int, int, int, int], levels: Sequence[str]) -> None:
    """Make a region (left, top, width, height) of the picture red where a map is hot.

    ``levels``: rows of hexadecimal digits that cover the region, ``f`` the hottest.
    """
    cv2 = _cv2()
    import numpy as np  # noqa: PLC0415 - as above

    left, top, wide, high = region
    part = image[top : top + high, left : left + wide]
    cells = np.array([[int(level, 16) * 8 for level in row] for row in levels], np.uint8)
    heat = cv2.resize(cells, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    blue, green, red = cv2.split(part)
    part[:] = cv2.merge([cv2.subtract(blue, heat), cv2.subtract(green, heat), cv2.add(red, heat)])


def resize(image: Image, width: int, height: int, way: str = "area") -> Image:
    """The picture in another size; areas are averaged, so that nothing small disappears.

    ``way``: ``bilinear`` takes the two nearest pixels down to half the size, where they are all there is to average,
    at a sixth of the cost and with a little more noise; below half the size it is the same as ``area``.
    """
    cv2 = _cv2()
    high, wide = image.shape[:2]
    nearest = way == "bilinear" and wide < 2 * width and high < 2 * height
    return cast(
        "Image", cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR if nearest else cv2.INTER_AREA)
    )


def channels(image: Image, colour: str) -> Image:
    """The picture as ``bgr`` (as it is), ``rgb`` or ``grey`` (BT.601, one channel)."""
    cv2 = _cv2()
    if colour == "bgr":
        return image
    return cast("Image", cv2.cvtColor(image, cv2.COLOR_BGR2RGB if colour == "rgb" else cv2.COLOR_BGR2GRAY))


def look_up(image: Image, tables: Any, out: Any, *, planar: bool) -> None:
    """Each pixel's number from a table into ``out``, which must have the tables' type.

    ``planar``: tables are channels x 256, and ``out`` has one plane per channel; otherwise tables are
    1 x 256 x channels (or x 1, for all of them), and ``out`` has the picture's shape.
    """
    cv2 = _cv2()
    if planar:
        planes = cv2.split(image) if image.ndim == 3 else [image]
        for number, plane in enumerate(planes):
            cv2.LUT(plane, tables[number], dst=out[number])
    else:
        cv2.LUT(image, tables, dst=out)


def has_v4l2() -> bool:
    """Whether this build of OpenCV can capture from V4L2 devices at all."""
    return re.search(r"v4l/v4l2:\s+YES", _cv2().getBuildInformation()) is not None


class Capture:
    """One open video source; called from one thread only."""

    def __init__(
        self, source: str, backend: str, open_s: float, read_s: float, options: Mapping[str, str] | None = None
    ) -> None:
        """``backend``: ``ffmpeg`` or ``v4l2``; ``options``: FFmpeg's own, such as ``rtsp_transport``.

        ``open_s``, ``read_s``: after how long it gives up; V4L2 knows only ``read_s``, in whole seconds.

        Raises CameraError. The source itself appears in no message: it may carry a password.
        """
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join(f"{key};{text}" for key, text in (options or {}).items())
        # Read once, when the backend is first used.
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(max(1, round(read_s)))
        cv2 = _cv2()
        self._cv2 = cv2
        if backend == "v4l2":
            self._capture = cv2.VideoCapture(source, cv2.CAP_V4L2)
        else:
            opening = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, max(1, int(open_s * 1000))]
            reading = [cv2.CAP_PROP_READ_TIMEOUT_MSEC, max(1, int(read_s * 1000))]
            self._capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, [*opening, *reading])
        if not self._capture.isOpened():
            self._capture.release()
            raise CameraError(
                NOTHING_THERE, "the source gives no video", hint="check that it is there and plays with another viewer"
            )

    def set(self, name: str, value: float) -> bool:
        """Set a property (``FRAME_WIDTH``); False where the source has none such."""
        return bool(self._capture.set(self._property(name), value))

    def get(self, name: str) -> float:
        """A property as the source has it."""
        return float(self._capture.get(self._property(name)))

    def set_fourcc(self, code: str) -> bool:
        """Ask for a pixel format; whether the source took it."""
        wanted = int(self._cv2.VideoWriter.fourcc(*code))
        self._capture.set(self._property("FOURCC"), wanted)
        return int(self.get("FOURCC")) == wanted

    def _property(self, name: str) -> int:
        return int(getattr(self._cv2, f"CAP_PROP_{name}"))

    def read(self) -> Image | None:
        """The next picture, or None where the source ends; raises CameraError when it breaks."""
        try:
            done, image = self._capture.read()
        except self._cv2.error as error:
            raise CameraError(WIRE, str(error)) from error
        return cast("Image", image) if done and image is not None and image.size else None

    def close(self) -> None:
        self._capture.release()
