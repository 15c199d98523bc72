"""The pixels and masks of samples, decoded once, in the size that the model wants, exactly as it will see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge_agent import catalogue
from edge_agent.errors import ConfigError, PictureError, Problem
from models.train.parts import THUMB
from models.train.pictures import IGNORE, Points, Sample

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

DEFECT, IGNORED = 1, 2
"""What stands in a mask; 0 is good."""
DARK: Final = 12
"""Grey levels; a picture below is almost black."""
_MOST_PIXELS: Final = 64_000_000
_MARKED: Final = 127  # of 255: what is brighter in a mask is the defect
_SHAPES: Final = 1.6  # the widest difference in the ratio of the sides that stretching may hide


class _Kind(NamedTuple):
    """What a picture is like: width and height, and whether it has colour, or is too dark for it."""

    path: Path
    shape: tuple[int, int]
    coloured: bool


class Pixels:
    """``images``: n × height × width × channels, uint8 (grey, or BGR), on disk. ``thumbs``, ``looks``: to find copies.

    ``masks``: index → height × width, uint8, only where there is something in it.
    """

    def __init__(self, images: Array, masks: dict[int, Array], thumbs: Array, small: Array) -> None:
        self.images = images
        self.masks = masks
        self.thumbs = thumbs
        self.small = small

    def __len__(self) -> int:
        return len(self.images)


def load(
    samples: Sequence[Sample],
    size: tuple[int, int],
    colour: str,
    way: str,
    scratch: Path,
    tell: Callable[[int, int], None] = lambda _done, _of: None,
) -> Pixels:
    """Decode everything; raises ConfigError with every picture that cannot be used.

    ``size``: width, height. ``colour``: ``grey`` or ``bgr``. ``way``: to that size, ``area`` or ``bilinear``.
    ``scratch``: a folder for large arrays.
    """
    decode, resize, channels_of = (
        catalogue.load(catalogue.PICTURES, name) for name in ("decode", "resize", "channels")
    )
    width, height = size
    channels = 1 if colour == "grey" else 3
    images = np.lib.format.open_memmap(
        scratch / "images.npy", mode="w+", dtype=np.uint8, shape=(len(samples), height, width, channels)
    )
    thumbs = np.zeros((len(samples), THUMB, THUMB), np.uint8)
    small = np.zeros((len(samples), 16, 17), np.uint8)
    masks: dict[int, Array] = {}
    kinds: list[_Kind] = []
    problems: list[Problem] = []
    for index, sample in enumerate(samples):
        tell(index, len(samples))
        try:
            picture = decode(sample.path.read_bytes(), _MOST_PIXELS)
            shape = (picture.shape[1], picture.shape[0])
            kinds.append(_Kind(sample.path, shape, _has_colour(picture) or bool((picture < DARK).all())))
            _check_labels(sample, shape)
            mask = _mask(sample, shape, size, decode)
        except (OSError, ValueError) as error:
            problems.append(Problem(0, "", _why(error), str(sample.path)))
            continue
        if mask is not None:
            masks[index] = mask
        fitted = picture if shape == size else resize(picture, width, height, way)
        images[index] = channels_of(fitted, colour).reshape(height, width, channels)
        thumbs[index] = channels_of(resize(picture, THUMB, THUMB), "grey")
        small[index] = channels_of(resize(picture, 17, 16), "grey")
    problems += _odd_ones(kinds, colour)
    if problems:
        raise ConfigError(problems)
    return Pixels(images, masks, thumbs, small)


def sizes(samples: Sequence[Sample]) -> tuple[int, int] | None:
    """Width and height of the picture in the middle, to choose a model's size from; None: :func:`load` will say why."""
    decode = catalogue.load(catalogue.PICTURES, "decode")
    found = []
    for sample in samples[:: max(1, len(samples) // 20)]:
        try:
            found.append(decode(sample.path.read_bytes(), _MOST_PIXELS).shape[:2])
        except (OSError, PictureError):
            continue
    if not found:
        return None
    middle = sorted(found)[len(found) // 2]
    return int(middle[1]), int(middle[0])


def _why(error: Exception) -> str:
    return f"cannot be used: {error}"


def _has_colour(picture: Array) -> bool:
    """A grey camera's file decodes to three channels that are the same."""
    return bool(
        (picture[::7, ::7, 0] != picture[::7, ::7, 1]).any() or (picture[::7, ::7, 1] != picture[::7, ::7, 2]).any()
    )


def _check_labels(sample: Sample, shape: tuple[int, int]) -> None:
    if sample.size is not None and sample.size != shape:
        made = f"{sample.size[0]}x{sample.size[1]}"
        raise ValueError(f"its label was made for a picture of {made}, it is {shape[0]}x{shape[1]}")


def _odd_ones(kinds: Sequence[_Kind], colour: str) -> list[Problem]:
    """Pictures that are not of the kind of the others."""
    problems = []
    ratios = sorted(kind.shape[0] / kind.shape[1] for kind in kinds)
    middle = ratios[len(ratios) // 2] if ratios else 1.0
    any_colour = any(kind.coloured for kind in kinds)
    for path, (width, height), coloured in kinds:
        ratio = width / height
        if max(ratio / middle, middle / ratio) > _SHAPES:
            why = f"is {width}x{height}: of another shape than the others; cut it to the same view or leave it out"
            problems.append(Problem(0, "", why, str(path)))
        if colour != "grey" and not coloured and any_colour:
            why = "is grey, others have colour: train with --colour grey, or leave it out"
            problems.append(Problem(0, "", why, str(path)))
    return problems


def _mask(sample: Sample, shape: tuple[int, int], size: tuple[int, int], decode: Callable[..., Array]) -> Array | None:
    """What is where, in the model's size; None where there is nothing."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    scale = (size[0] / shape[0], size[1] / shape[1])
    for region in sorted(sample.regions, key=lambda each: each.label != IGNORE):
        points = tuple((x * scale[0], y * scale[1]) for x, y in region.points)
        fill(mask, points, IGNORED if region.label == IGNORE else DEFECT)
    if sample.mask is not None:
        drawn = _drawn(sample.mask, shape, decode)
        rows = (np.arange(size[1]) + 0.5) / scale[1]
        columns = (np.arange(size[0]) + 0.5) / scale[0]
        mask[drawn[np.ix_(rows.astype(int), columns.astype(int))]] = DEFECT
    return mask if mask.any() else None


def _drawn(path: Path, shape: tuple[int, int], decode: Callable[..., Array]) -> Array:
    """Where somebody drew a defect: height × width, bool. Raises ValueError with what is wrong with the mask."""
    try:
        mask = decode(path.read_bytes(), _MOST_PIXELS)
    except (OSError, PictureError) as error:
        raise ValueError(f"its mask {path} cannot be used: {error}") from error
    if (mask.shape[1], mask.shape[0]) != shape:
        raise ValueError(f"its mask is {mask.shape[1]}x{mask.shape[0]}, it is {shape[0]}x{shape[1]}")
    found: Array = mask.max(axis=2) > _MARKED
    if not found.any():
        raise ValueError(f"its mask shows no defect: its brightest pixel is {mask.max()}, a defect is 255")
    return found


def fill(mask: Array, points: Points, value: int) -> None:
    """Fill a polygon (even-odd rule, pixel centres); one that is smaller than a pixel fills the pixel that it is in."""
    x, y = np.array(points, np.float64).T
    height, width = mask.shape
    top, bottom = max(0, int(y.min())), min(height, ceil(y.max()) + 1)
    left, right = max(0, int(x.min())), min(width, ceil(x.max()) + 1)
    if top >= bottom or left >= right:
        return
    rows = np.arange(top, bottom)[:, None] + 0.5
    columns = np.arange(left, right)[None, :] + 0.5
    inside = np.zeros((bottom - top, right - left), bool)
    for k in range(len(x)):
        x0, y0, x1, y1 = x[k - 1], y[k - 1], x[k], y[k]
        if y0 == y1:
            continue
        crosses = (y0 > rows) != (y1 > rows)
        inside ^= crosses & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    if not inside.any():
        inside[min(int(y.mean()), bottom - 1) - top, min(int(x.mean()), right - 1) - left] = True
    mask[top:bottom, left:right][inside] = value
