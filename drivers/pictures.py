"""What a picture is before and after decoding: its size from the header, and whether it may be judged.

Nothing here decodes; the pixels are NumPy arrays, height × width × 3, uint8, BGR.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from edge_agent.camera_settings import PictureSection
from edge_agent.errors import PictureError
from edge_agent.vocabulary import BLACK, DAMAGED, FROZEN, NOT_A_PICTURE, OVER_EXPOSED, TOO_LARGE, TRUNCATED, WRONG_SIZE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]

JPEG: Final = "jpeg"
PNG: Final = "png"
_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_START: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"
# Webcams pad their JPEGs, and some add bytes of their own.
_TRAILER = 512

# JPEG markers (ITU-T T.81, table B.1): start of frame is C0 to CF without these three.
_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9

_SAMPLE = 65_536  # pixels that the statistics look at
_WHITE = 250  # grey levels from here on count as saturated
_STILL = 0.02  # mean difference in grey levels; the noise of a sensor is above 0.1
_FLAT = 2  # grey levels within a row that no scene produced
_FLAT_SHARE = 0.125  # of the height


class Header(NamedTuple):
    """What a picture says of itself before anything is decoded."""

    format: str
    width: int
    height: int


def header(data: bytes) -> Header:
    """Format and size of a JPEG or PNG; raises PictureError for anything else."""
    if data.startswith(_JPEG_START):
        return _jpeg_header(data)
    if data.startswith(_PNG_START):
        if len(data) < 24:
            raise PictureError(TRUNCATED, "a PNG that ends in its header")
        if data[12:16] != b"IHDR":
            raise PictureError(DAMAGED, "a PNG without its header")
        return Header(PNG, int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    if not data:
        raise PictureError(TRUNCATED, "an empty picture")
    raise PictureError(NOT_A_PICTURE, f"neither JPEG nor PNG: begins with {data[:8]!r}")


def _jpeg_header(data: bytes) -> Header:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise PictureError(DAMAGED, "a JPEG with garbage between its segments")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            raise PictureError(DAMAGED, "a JPEG without its size")
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME:
            if at + 9 > len(data):
                break
            return Header(JPEG, int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7]))
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    raise PictureError(TRUNCATED, "a JPEG that ends in its header")


def check(data: bytes, max_pixels: int) -> Header:
    """The header of a picture that is whole and not too large to decode; raises PictureError."""
    found = header(data)
    if found.width == 0 or found.height == 0:
        raise PictureError(DAMAGED, f"a picture of {found.width}x{found.height}")
    if found.width * found.height > max_pixels:
        raise PictureError(
            TOO_LARGE,
            f"{found.width}x{found.height} is more than {max_pixels} pixels",
            hint="set picture.max_pixels if that is meant",
        )
    end = _JPEG_END if found.format == JPEG else _PNG_END
    if end not in data.rstrip(b"\x00")[-_TRAILER:]:
        raise PictureError(TRUNCATED, f"a {found.format.upper()} without its end")
    return found


def luminance(image: Image) -> npt.NDArray[np.uint8]:
    """Grey levels (ITU-R BT.601) of every n-th pixel in both directions, so that at most about 65,000 are left."""
    step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / _SAMPLE))
    sample = image[::step, ::step].astype("uint16")
    weighted = sample[..., 0] * 29 + sample[..., 1] * 150 + sample[..., 2] * 77
    grey: npt.NDArray[np.uint8] = (weighted >> 8).astype("uint8")
    return grey


def is_black(grey: npt.NDArray[np.uint8], below: int) -> bool:
    """99 % of the pixels are darker than ``below``."""
    return int((grey < below).sum()) >= 0.99 * grey.size


def is_over_exposed(grey: npt.NDArray[np.uint8], above: float) -> bool:
    """More than the share ``above`` of the pixels is white."""
    return int((grey >= _WHITE).sum()) > above * grey.size


def has_flat_end(grey: npt.NDArray[np.uint8]) -> bool:
    """The lowest eighth is one flat grey: what a decoder paints where the data ended or went wrong.

    No scene does that: even a backlight has noise unless it is saturated, which is another reason.
    """
    return _is_flat(grey[_end(grey) :])


def _end(image: npt.NDArray[np.uint8]) -> int:
    """Its first row that belongs to the end."""
    rows = int(image.shape[0])
    return rows - max(1, int(rows * _FLAT_SHARE))


def _is_flat(grey: npt.NDArray[np.uint8]) -> bool:
    low, high = int(grey.min()), int(grey.max())
    return high - low <= _FLAT and low > 20 and high < 235


def is_still(grey: npt.NDArray[np.uint8], before: npt.NDArray[np.uint8]) -> bool:
    """The two differ by less than the noise of any sensor."""
    if grey.shape != before.shape:
        return False
    return float(abs(grey.astype("int16") - before.astype("int16")).mean()) < _STILL


class Gate:
    """Says why a picture must not be judged. It remembers the picture before, to notice a frozen camera."""

    def __init__(
        self, settings: PictureSection, size: tuple[int, int] | None, roi: tuple[int, int, int, int] | None = None
    ) -> None:
        """``size``: width, height that a picture must have; ``roi``: width, height, left, top that are judged."""
        self._settings = settings
        self._size = size
        self._roi = roi
        self.grey: npt.NDArray[np.uint8] | None = None
        """Grey levels of what was looked at last, about 65,000 of them."""
        self._still = 0

    def region(self, image: Image) -> Image:
        """The part that is judged."""
        if self._roi is None:
            return image
        width, height, left, top = self._roi
        return image[top : top + height, left : left + width]

    def refuse(self, image: Image) -> str | None:
        """The reason, or None for a picture that may be judged."""
        height, width = image.shape[:2]
        region = self.region(image)
        if self._size not in (None, (width, height)) or (self._roi and region.shape[1::-1] != self._roi[:2]):
            return WRONG_SIZE
        grey = luminance(region)
        before, self.grey = self.grey, grey
        self._still = self._still + 1 if before is not None and is_still(grey, before) else 0
        if is_black(grey, self._settings.black_below):
            return BLACK
        if is_over_exposed(grey, self._settings.over_exposed_above):
            return OVER_EXPOSED
        if has_flat_end(grey) if self._roi is None else _is_flat(luminance(image[_end(image) :])):
            return DAMAGED
        if 0 < self._settings.frozen_after <= self._still:
            return FROZEN
        return None
