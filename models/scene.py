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
LEAST_SHIFT: Final = 0.025  # of the width
LEAST_WHITE: Final = 0.08  # of the pixels
MOST_GAIN: Final = 1.4  # of a channel, that is always undone
_SPREADS: Final = 4.0
_MOST: Final = 0.5  # of the cells
_ALIKE: Final = 0.5  # of a full correlation: parts that lie alike have 0.9, others 0.1 to 0.4
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
    reference: str = Field(max_length=100_000, description="The usual good part: a small JPEG, in base64.")
    shift: float | None = Field(
        default=None, gt=0, description="How far the picture may have moved, as a share of its width; null: any."
    )
    gain: float = Field(
        default=MOST_GAIN, ge=1, description="How much brighter or darker each colour may be: it is undone."
    )
    white: float = Field(
        default=1.0, gt=0, le=1, description="Which share of the pixels may be white, where the camera sees no more."
    )
    like: float = Field(default=0.0, ge=0, le=1, description="How well it must fit the reference to tell.")


class Look(NamedTuple):
    """``reason``: why it must not be judged, with ``details``; else where it lies (small pixels), and its light:
    what blue, green and red must be multiplied with.
    """

    reason: str | None
    details: dict[str, object]
    x: float = 0.0
    y: float = 0.0
    gain: tuple[float, ...] = (1.0, 1.0, 1.0)


class Scene:
    """See the head of this file; called from one thread."""

    def __init__(self, parameters: SceneParameters) -> None:
        """Raises BundleError where the reference is no picture of this size."""
        self._parameters = parameters
        self._levels = np.array(parameters.levels).reshape(-1, len(QUANTILES))
        try:
            data = base64.b64decode(parameters.reference, validate=True)
            shown = catalogue.load(catalogue.PICTURES, "decode")(data, _LARGEST)
        except (ValueError, EdgeAgentError) as error:
            raise BundleError(f"the card's scene has no picture as its reference: {error}") from error
        if shown.shape[1::-1] != small_size(*parameters.size):
            raise BundleError("the reference of the card's scene has another size than its pictures")
        self._reference = spectrum(grey(shown))
        self._colours = colours(shown)

    def look(self, image: Pixels) -> Look:
        """May this picture be judged, and how does it lie?"""
        allowed = self._parameters
        height, width = image.shape[:2]
        if (width, height) != allowed.size:
            return Look(WRONG_SIZE, {"size": [width, height]})
        shrunk = small(image)
        seen = grey(shrunk)
        now = levels(seen)
        wrong = self._blind(shrunk, now)  # nothing else can be told then
        if wrong:
            return Look(LIGHT_CHANGED, wrong)
        x = y = 0.0
        if allowed.shift is not None:  # before the cells: a camera that moved shows others
            x, y, sure = shift(self._reference, spectrum(seen))
            if sure < allowed.like:  # nothing that is known: it may be the part, and that is for the model to say
                x = y = 0.0
            elif max(abs(x), abs(y)) > allowed.shift * WIDTH:
                moved = [round(x * width / WIDTH), round(y * width / WIDTH)]
                return Look(CAMERA_MOVED, {"moved_px": moved, "like": round(sure, 3)})
        gain = gains(self._colours, colours(shrunk))
        wrong = self._lit_otherwise(now, gain)
        return Look(LIGHT_CHANGED, wrong) if wrong else Look(None, {}, x, y, tuple(gain.tolist()))

    def _blind(self, shrunk: Pixels, now: Array) -> dict[str, object]:
        """All of it is darker or brighter, or more is saturated: by how much."""
        brighter = float(np.median(now[:, 1]) - np.median(self._levels[:, 1]))
        if abs(brighter) > self._parameters.tolerance:
            return {"levels": round(brighter, 1)}
        saturated = whiteness(shrunk)
        return {"white": round(saturated, 3)} if saturated > self._parameters.white else {}

    def _lit_otherwise(self, now: Array, gain: Array) -> dict[str, object]:
        """Most cells differ, or a colour is stronger than can be undone: by how much."""
        differ = np.median(np.abs(now - self._levels), axis=1)
        if (differ > self._parameters.tolerance).mean() > _MOST:
            return {"levels": round(float(np.median(differ)), 1)}
        if gain.max() > self._parameters.gain or gain.min() < 1 / self._parameters.gain:
            return {"blue_green_red": [round(float(1 / each), 2) for each in gain]}
        return {}

    def bring_back(self, image: Pixels, look: Look, size: tuple[int, int]) -> Pixels:
        """The picture in this size (width, height), where and as bright as the good parts were."""
        image = catalogue.load(catalogue.PICTURES, "resize")(image, *size)
        across, down = (round(each * size[0] / WIDTH) for each in (look.x, look.y))
        if across or down:
            rows = np.clip(np.arange(size[1]) + down, 0, size[1] - 1)
            columns = np.clip(np.arange(size[0]) + across, 0, size[0] - 1)
            image = image[rows[:, None], columns]
        tables = np.clip(np.arange(256)[:, None] * look.gain + 0.5, 0, 255).astype(np.uint8)
        back: Pixels = np.empty_like(image)
        catalogue.load(catalogue.PICTURES, "look-up")(image, tables[None], back, planar=False)
        return back


def describe(images: Sequence[Pixels]) -> tuple[dict[str, Any], list[str]]:
    """The scene of good parts as a card says it, and doubts in words. All have the same size."""
    shrunk = np.stack([small(image) for image in images])
    middle = np.median(shrunk, axis=0).astype(np.uint8)
    seen = np.stack([grey(picture) for picture in shrunk])
    each = np.stack([levels(picture) for picture in seen])
    centre = np.median(each, axis=0)
    spread = float(np.median(np.abs(each - centre), axis=(1, 2)).max())
    usual = colours(middle)
    apart = max(float(np.exp(np.abs(np.log(gains(usual, colours(picture)))).max())) for picture in shrunk)
    place, doubts = _place(seen, grey(middle))
    if spread > LEAST_LEVELS:
        doubts.append("the light differs much from picture to picture: only a large change will be noticed")
    height, width = images[0].shape[:2]
    encoded = catalogue.load(catalogue.PICTURES, "encode")(middle)
    return {
        "size": f"{width}x{height}",
        "levels": [round(float(level), 1) for level in centre.reshape(-1)],
        "tolerance": round(min(255.0, max(LEAST_LEVELS, _SPREADS * spread)), 1),
        "white": round(min(1.0, LEAST_WHITE + max(whiteness(picture) for picture in shrunk)), 3),
        "gain": round(max(MOST_GAIN, 1.2 * apart), 3),
        "reference": base64.b64encode(encoded).decode(),
        **place,
    }, doubts


def _place(seen: Array, middle: Pixels) -> tuple[dict[str, float | None], list[str]]:
    """How far pictures may move, from how far the good ones did; not at all where that cannot be told."""
    reference = spectrum(middle)
    found = np.array([shift(reference, spectrum(picture)) for picture in seen])
    far = np.abs(found[:, :2]).max(axis=1) / WIDTH
    sure = float(np.quantile(found[:, 2], 0.1))
    if sure < _ALIKE or far.max() > 2 * LEAST_SHIFT:
        return {"shift": None}, ["the pictures have too little in common to notice later that the camera moved"]
    return {
        "shift": round(max(LEAST_SHIFT, 2.0 * float(far.max())), 4),
        "like": round(sure / 3, 4),
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
    seen = grey(small(image))
    field = grey(image).astype(np.float32)
    bent = 4 * field[1:-1, 1:-1] - field[:-2, 1:-1] - field[2:, 1:-1] - field[1:-1, :-2] - field[1:-1, 2:]
    moved = 0.0
    if before is not None and before.shape == image.shape:
        x, y, _ = shift(spectrum(grey(small(before))), spectrum(seen))
        moved = max(abs(x), abs(y)) * image.shape[1] / WIDTH
    return Impression(float((bent * bent).mean()), float(seen.mean()), whiteness(small(image)), moved)


def small_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the small picture."""
    return WIDTH, min(4 * WIDTH, max(2 * ROWS, round(height * WIDTH / width)))


def small(image: Pixels) -> Pixels:
    """Small enough to be looked at in a few milliseconds."""
    height, width = image.shape[:2]
    shrunk: Pixels = catalogue.load(catalogue.PICTURES, "resize")(image, *small_size(width, height))
    return shrunk


def whiteness(picture: Pixels) -> float:
    """The share of saturated pixels: what was there is lost, and no gain brings it back."""
    return float((picture.max(axis=2) >= _WHITE).mean())


def colours(picture: Pixels) -> Array:
    """Cells × channels: the usual level of each, never 0."""
    high, wide = (side // parts for side, parts in zip(picture.shape[:2], (ROWS, COLUMNS), strict=True))
    cells = picture[: high * ROWS, : wide * COLUMNS].reshape(ROWS, high, COLUMNS, wide, 3)
    found: Array = np.median(cells.transpose(0, 2, 1, 3, 4).reshape(ROWS * COLUMNS, high * wide, 3), axis=1) + 1
    return found


def levels(picture: Pixels) -> Array:
    """Cells × quantiles, grey levels."""
    high, wide = (side // parts for side, parts in zip(picture.shape, (ROWS, COLUMNS), strict=True))
    cells = picture[: high * ROWS, : wide * COLUMNS].reshape(ROWS, high, COLUMNS, wide)
    inside = np.sort(cells.transpose(0, 2, 1, 3).reshape(ROWS * COLUMNS, high * wide), axis=1)
    at = [round(share * (high * wide - 1)) for share in QUANTILES]
    found: Array = inside[:, at].astype(np.float64)
    return found


def gains(reference: Array, seen: Array) -> Array:
    """What each channel must be multiplied with to be as in the reference."""
    mean = reference.mean(axis=1)
    bright = mean >= np.median(mean)  # what is dark says little of the light
    found: Array = np.median(reference[bright] / seen[bright], axis=0)
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
