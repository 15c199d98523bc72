"""From a picture to the numbers that a model wants, exactly as the card says.

::

    pixels ─▶ resize ─▶ channels (grey, RGB, BGR) ─▶ one table ─▶ the model's own numbers, its axes

A pixel has 256 values, so scaling and the file's quantisation are one table of 256 numbers per channel, made once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent import catalogue
from edge_agent.errors import BundleError, ModelError
from models.card import ModelFile, PictureInput
from models.session import Quantiser, Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Array = npt.NDArray[Any]

_TYPES: Final = ("float32", "int8", "uint8")
_SHIFT: Final = np.arange(-128, 128)  # of int8


class Preprocess:
    """Made for one card, one variant and its input tensor; called from one thread."""

    def __init__(self, wanted: PictureInput, file: ModelFile, tensor: Tensor) -> None:
        """Raises BundleError where the tensor is not for such pictures."""
        self._colour = wanted.colour
        self._planar = file.axes == "nchw"
        self._width, self._height = wanted.size
        self._way = wanted.resize
        self._right = (self._height, self._width, 3)
        channels = wanted.channels
        plane = (self._height, self._width)
        shape = (1, channels, *plane) if self._planar else (1, *plane, channels)
        if tensor.shape != shape:
            raise BundleError(
                f"{file.name}: its input {tensor.name!r} has the shape {tensor.shape}, the card says {shape}"
            )
        if tensor.dtype not in _TYPES:
            raise BundleError(f"{file.name}: its input {tensor.name!r} is {tensor.dtype}, which no picture is")
        tables = np.stack([_table(wanted, tensor, channel) for channel in range(channels)])
        # Where all channels are scaled alike, one table for all of them is faster.
        self._tables = (
            tables if self._planar else np.ascontiguousarray((tables[:1] if _alike(tables) else tables).T[None])
        )
        self._numbers = np.empty(shape, tensor.dtype)
        # What most int8 networks want of a pixel, 128 less than it is, is one bit turned over: no need to look it up.
        self._is_shift = not self._planar and bool((self._tables == _SHIFT[None, :, None]).all())
        # OpenCV knows no third axis of one.
        self._out = self._numbers[0, :, :, 0] if channels == 1 and not self._planar else self._numbers[0]
        self._look_up = catalogue.load(catalogue.PICTURES, "look-up")
        self._channels = catalogue.load(catalogue.PICTURES, "channels")
        self._resize = catalogue.load(catalogue.PICTURES, "resize")

    def __call__(self, image: Pixels) -> Array:
        """Height x width x 3, uint8, BGR → the input; it is overwritten by the next call. Raises ModelError."""
        if image.shape != self._right or image.dtype != np.uint8:
            image = self._fitting(image)
        pixels = self._channels(image, self._colour)
        if self._is_shift:
            np.bitwise_xor(pixels, 0x80, self._out.view(np.uint8))
        else:
            self._look_up(pixels, self._tables, self._out, planar=self._planar)
        return self._numbers

    def _fitting(self, image: Pixels) -> Pixels:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ModelError(f"no picture: {image.dtype} {image.shape}")
        fitting: Pixels = self._resize(image, self._width, self._height, self._way)
        return fitting


def _alike(tables: Array) -> bool:
    return bool((tables == tables[0]).all())


def grey(image: Pixels) -> Pixels:
    """Height x width of a picture in BGR, as judges see it."""
    found: Pixels = catalogue.load(catalogue.PICTURES, "channels")(image, "grey")
    return found


def _table(wanted: PictureInput, tensor: Tensor, channel: int) -> Array:
    """What each of the 256 values of a pixel becomes."""
    mean = wanted.mean[channel % len(wanted.mean)]
    std = wanted.std[channel % len(wanted.std)]
    real = ((np.arange(256) - mean) / std).astype(np.float32)
    if tensor.scale:
        return Quantiser(tensor, real.shape)(real)
    if tensor.dtype == "float32":
        return real
    if not np.array_equal(real, np.rint(real)):
        raise BundleError(
            f"the input {tensor.name!r} is {tensor.dtype} without a scale; the card's mean and std do not fit"
        )
    if real.min() < np.iinfo(tensor.dtype).min or real.max() > np.iinfo(tensor.dtype).max:
        raise BundleError(f"the input {tensor.name!r} is {tensor.dtype}; the card's mean and std lead outside of it")
    return real.astype(tensor.dtype)
