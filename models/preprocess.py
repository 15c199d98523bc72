"""From a picture to the numbers that a model wants, exactly as the card says.

::

    pixels ─▶ area-averaging resize ─▶ channels (grey, RGB, BGR) ─▶ one table ─▶ the model's own numbers, its axes

A pixel has 256 values, so scaling and the file's quantisation are one table of 256 numbers per channel, made once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent import catalogue
from edge_agent.errors import BundleError, ModelError
from models.card import ModelFile, PictureInput
from models.session import Tensor, quantise

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Array = npt.NDArray[Any]

# BT.601 in 256ths, blue, green, red: the same integers everywhere, so the same grey.
_GREY: Final = (29, 150, 77)


class Preprocess:
    """Made for one card, one variant and its input tensor; called from one thread."""

    def __init__(self, wanted: PictureInput, file: ModelFile, tensor: Tensor) -> None:
        """Raises BundleError where the tensor is not for such pictures."""
        self._wanted = wanted
        self._axes = file.axes
        self._resize: Callable[[Pixels, int, int], Pixels] | None = None
        width, height = wanted.size
        channels = wanted.channels
        shape = (1, channels, height, width) if self._axes == "nchw" else (1, height, width, channels)
        if tensor.shape != shape:
            raise BundleError(
                f"{file.name}: the input {tensor.name!r} has the shape {tensor.shape}, the card says {shape}"
            )
        self._tables = [_table(wanted, tensor, channel) for channel in range(channels)]
        self._numbers = np.empty(shape, tensor.dtype)

    def __call__(self, image: Pixels) -> Array:
        """Height x width x 3, uint8, BGR → the input; it is overwritten by the next call. Raises ModelError."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ModelError(f"no picture: {image.dtype} {image.shape}")
        width, height = self._wanted.size
        if image.shape[:2] != (height, width):
            image = self._resized(image, width, height)
        for channel, table in enumerate(self._tables):
            numbers = self._numbers[0, channel] if self._axes == "nchw" else self._numbers[0, :, :, channel]
            numbers[...] = table[self._channel(image, channel)]
        return self._numbers

    def _channel(self, image: Pixels, channel: int) -> Pixels:
        if self._wanted.colour == "grey":
            return grey(image)
        return image[:, :, channel if self._wanted.colour == "bgr" else 2 - channel]

    def _resized(self, image: Pixels, width: int, height: int) -> Pixels:
        if self._resize is None:
            self._resize = catalogue.load(catalogue.PICTURES, "resize")
        return self._resize(image, width, height)


def grey(image: Pixels) -> Pixels:
    """BT.601 luma, rounded, as integers."""
    weighted = image @ np.array(_GREY, np.uint16)  # at most 255 · 256: it fits
    weighted += 128
    weighted >>= 8
    return weighted.astype(np.uint8)


def _table(wanted: PictureInput, tensor: Tensor, channel: int) -> Array:
    """What each of the 256 values of a pixel becomes."""
    mean = wanted.mean[channel % len(wanted.mean)]
    std = wanted.std[channel % len(wanted.std)]
    real = ((np.arange(256) - mean) / std).astype(np.float32)
    if tensor.scale:
        return quantise(tensor, real)
    if not tensor.dtype.startswith("float") and not np.array_equal(real, np.rint(real)):
        raise BundleError(
            f"the input {tensor.name!r} is {tensor.dtype} without a scale; the card's mean and std do not fit"
        )
    if not tensor.dtype.startswith("float") and (
        real.min() < np.iinfo(tensor.dtype).min or real.max() > np.iinfo(tensor.dtype).max
    ):
        raise BundleError(f"the input {tensor.name!r} is {tensor.dtype}; the card's mean and std lead outside of it")
    return real.astype(tensor.dtype)
