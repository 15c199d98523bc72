"""Is the camera still where it was, and the light as it was? Asked before a model that learned one scene decides.

::

    small grey picture ─┬─ phase correlation with the good parts ─▶ far away: camera-moved ─┐
                        └─ grid of cells, levels of each ─▶ most are off: light-changed    ─┴─▶ small: brought back

A defect is local and a moved camera or another lamp is not: only what most of the picture says counts. What is small
(a few pixels, a lamp that ages) is undone before the model looks, by so much that the card says, and never more.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import numpy as np
from pydantic import Field

from edge_agent import catalogue
from edge_agent.errors import BundleError, EdgeAgentError
from edge_agent.settings import Resolution, Section
from edge_agent.vocabulary import CAMERA_MOVED, LIGHT_CHANGED, WRONG_SIZE
from models.preprocess import grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from models.preprocess import Pixels

    Array = npt.NDArray[Any]

WIDTH: Final = 320
COLUMNS: Final = 8
ROWS: Final = 6
QUANTILES: Final = (0.1, 0.5, 0.9)
LEAST_LEVELS: Final = 24.0  # grey levels that a cell may always differ
LEAST_SHIFT: Final = 0.03  # of the width
MOST_GAIN: Final = 1.3  # that is undone
_SPREADS: Final = 4.0
_MOST: Final = 0.5  # of the cells
_LEAST_LIKE: Final = 0.1  # of a full correlation: below it nothing can be told of where a picture lies
_LARGEST: Final = 1 << 20  # pixels
_WHITE: Final = 250  # grey levels

Level = Annotated[float, Field(ge=0, le=255)]


class SceneParameters(Section):
    """What a scene looked like when it was shown."""

    size: Resolution = Field(description="Width x height of the pictures that were shown; no other size is inspected.")
    levels: tuple[Level, ...] = Field(
        min_length=3 * COLUMNS * ROWS,
        max_length=3 * COLUMNS * ROWS,
        description="Grey levels: the 10 %, 50 % and 90 % quantile of each cell, row by row.",
    )
    tolerance: float = Field(gt=0, le=255, description="By how many grey levels a cell may differ.")
    reference: str = Field(max_length=100_000, description="The usual good part: a small grey JPEG, in base64.")
    shift: float | None = Field(
        default=None, gt=0, description="How far the picture may have moved, as a share of its width; null: any."
    )
    like: float = Field(default=0.0, ge=0, le=1, description="How well it must fit the reference to tell.")


class Look(NamedTuple):
    """``reason``: why it must not be judged, with ``details``; else where it lies (small pixels), and its light."""

    reason: str | None
    details: dict[str, object]
    x: float = 0.0
    y: float = 0.0
    gain: float = 1.0


class Scene:
    """See the head of this file; called from one thread."""

    def __init__(self, parameters: SceneParameters) -> None:
        """Raises BundleError where the reference is no picture of this size."""
        self._parameters = parameters
        self._levels = np.array(parameters.levels).reshape(-1, len(QUANTILES))
        try:
            data = base64.b64decode(parameters.reference, validate=True)
            reference = grey(catalogue.load(catalogue.PICTURES, "decode")(data, _LARGEST))
        except (ValueError, EdgeAgentError) as error:
            raise BundleError(f"the card's scene has no picture as its reference: {error}") from error
        if reference.shape != small_size(*parameters.size)[::-1]:
            raise BundleError("the reference of the card's scene has another size than its pictures")
        self._reference = spectrum(reference)

    def look(self, image: Pixels) -> Look:
        """May this picture be judged, and how does it lie?"""
        allowed = self._parameters
        height, width = image.shape[:2]
        if (width, height) != allowed.size:
            return Look(WRONG_SIZE, {"size": [width, height]})
        seen = small(image)
        now = levels(seen)
        darker = float(np.median(self._levels[:, 1]) - np.median(now[:, 1]))
        if abs(darker) > allowed.tolerance:  # all of it: nothing else can be told then
            return Look(LIGHT_CHANGED, {"levels": round(-darker, 1)})
        x = y = 0.0
        if allowed.shift is not None:  # before the cells: a camera that moved shows others
            x, y, sure = shift(self._reference, spectrum(seen))
            if sure < allowed.like:  # nothing that is known: it may be the part, and that is for the model to say
                x = y = 0.0
            elif max(abs(x), abs(y)) > allowed.shift * WIDTH:
                moved = [round(x * width / WIDTH), round(y * width / WIDTH)]
                return Look(CAMERA_MOVED, {"moved_px": moved, "like": round(sure, 3)})
        differ = np.median(np.abs(now - self._levels), axis=1)
        if (differ > allowed.tolerance).mean() > _MOST:
            return Look(LIGHT_CHANGED, {"levels": round(float(np.median(differ)), 1)})
        gain = float(np.median((self._levels[:, 1] + 1) / (now[:, 1] + 1)))
        return Look(None, {}, x, y, min(MOST_GAIN, max(1 / MOST_GAIN, gain)))

    def bring_back(self, image: Pixels, look: Look, size: tuple[int, int]) -> Pixels:
        """The picture in this size (width, height), where and as bright as the good parts were."""
        image = catalogue.load(catalogue.PICTURES, "resize")(image, *size)
        across, down = (round(each * size[0] / WIDTH) for each in (look.x, look.y))
        if across or down:
            rows = np.clip(np.arange(size[1]) + down, 0, size[1] - 1)
            columns = np.clip(np.arange(size[0]) + across, 0, size[0] - 1)
            image = image[rows[:, None], columns]
        table = np.clip(np.arange(256) * look.gain + 0.5, 0, 255).astype(np.uint8)
        back: Pixels = table[image]
        return back


def describe(images: Sequence[Pixels]) -> tuple[dict[str, Any], list[str]]:
    """The scene of good parts as a card says it, and doubts in words. All have the same size."""
    seen = np.stack([small(image) for image in images])
    middle = np.median(seen, axis=0).astype(np.uint8)
    each = np.stack([levels(picture) for picture in seen])
    centre = np.median(each, axis=0)
    spread = float(np.median(np.abs(each - centre), axis=(1, 2)).max())
    place, doubts = _place(seen, middle)
    if spread > LEAST_LEVELS:
        doubts.append("the light differs much from picture to picture: only a large change will be noticed")
    height, width = images[0].shape[:2]
    encoded = catalogue.load(catalogue.PICTURES, "encode")(middle)
    return {
        "size": f"{width}x{height}",
        "levels": [round(float(level), 1) for level in centre.reshape(-1)],
        "tolerance": round(min(255.0, max(LEAST_LEVELS, _SPREADS * spread)), 1),
        "reference": base64.b64encode(encoded).decode(),
        **place,
    }, doubts


def _place(seen: Array, middle: Pixels) -> tuple[dict[str, float | None], list[str]]:
    """How far pictures may move, from how far the good ones did; not at all where that cannot be told."""
    reference = spectrum(middle)
    found = np.array([shift(reference, spectrum(picture)) for picture in seen])
    far = np.abs(found[:, :2]).max(axis=1) / WIDTH
    sure = float(np.quantile(found[:, 2], 0.1))
    if sure < _LEAST_LIKE or far.max() > 2 * LEAST_SHIFT:
        return {"shift": None}, ["the pictures have too little in common to notice later that the camera moved"]
    return {
        "shift": round(max(LEAST_SHIFT, 2.0 * float(far.max())), 4),
        "like": round(max(_LEAST_LIKE, sure / 3), 4),
    }, []


class Impression(NamedTuple):
    """What tells a person whether a picture is fit to learn from.

    ``sharpness``: mean square of the Laplacian, grey levels²; ``level``: mean grey level; ``white``: share of
    saturated pixels; ``moved_px``: since the picture before, in the camera's pixels.
    """

    sharpness: float
    level: float
    white: float
    moved_px: float


def impression(image: Pixels, before: Pixels | None) -> Impression:
    """Of a picture, and of the one before it (of the same size)."""
    seen = small(image)
    field = grey(image).astype(np.float32)
    bent = 4 * field[1:-1, 1:-1] - field[:-2, 1:-1] - field[2:, 1:-1] - field[1:-1, :-2] - field[1:-1, 2:]
    moved = 0.0
    if before is not None and before.shape == image.shape:
        x, y, _ = shift(spectrum(small(before)), spectrum(seen))
        moved = max(abs(x), abs(y)) * image.shape[1] / WIDTH
    white = float((seen >= _WHITE).mean())
    return Impression(float((bent * bent).mean()), float(seen.mean()), white, moved)


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the small picture."""
    return WIDTH, min(4 * WIDTH, max(2 * ROWS, round(height * WIDTH / width)))


def small(image: Pixels) -> Pixels:
    """Grey, and small enough to be looked at in a few milliseconds."""
    height, width = image.shape[:2]
    shrunk: Pixels = catalogue.load(catalogue.PICTURES, "resize")(image, *small_size(width, height))
    return grey(shrunk)


def levels(picture: Pixels) -> Array:
    """Cells × quantiles, grey levels."""
    high, wide = (side // parts for side, parts in zip(picture.shape, (ROWS, COLUMNS), strict=True))
    cells = picture[: high * ROWS, : wide * COLUMNS].reshape(ROWS, high, COLUMNS, wide)
    inside = np.sort(cells.transpose(0, 2, 1, 3).reshape(ROWS * COLUMNS, high * wide), axis=1)
    at = [round(share * (high * wide - 1)) for share in QUANTILES]
    found: Array = inside[:, at].astype(np.float64)
    return found


def spectrum(picture: Pixels) -> Array:
    """Faded out at the border, where what moves in and out would count."""
    field = picture.astype(np.float32)
    window = np.outer(np.hanning(field.shape[0]), np.hanning(field.shape[1]))
    found: Array = np.fft.rfft2((field - field.mean()) * window)
    return found


def shift(reference: Array, seen: Array) -> tuple[float, float, float]:
    """Where both fit best: x, y in pixels, and how well, 0 to 1. Source: Kuglin and Hines, phase correlation, 1975."""
    cross = seen * np.conj(reference)
    shape = (reference.shape[0], 2 * (reference.shape[1] - 1))
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-6), shape)
    row, column = divmod(int(surface.argmax()), shape[1])
    # The peak stands between pixels: the centre of gravity of what is around it.
    rows, columns = np.arange(row - 2, row + 3), np.arange(column - 2, column + 3)
    around = np.maximum(surface[np.ix_(rows % shape[0], columns % shape[1])], 0)
    total = float(around.sum()) + 1e-12
    y = float((around.sum(axis=1) * rows).sum()) / total
    x = float((around.sum(axis=0) * columns).sum()) / total
    return x - shape[1] * (x > shape[1] / 2), y - shape[0] * (y > shape[0] / 2), min(1.0, total)
