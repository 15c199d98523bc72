"""One trained network behind one small contract, whichever runtime carries it.

::

    real numbers ──quantise──▶ the file's own numbers ──runtime──▶ … ──dequantise──▶ real numbers

What is int8 inside the file is the file's business: whoever calls gives and gets real numbers (float32), and
the file's own scales say how they become integers and back. A caller that already has the file's own numbers
(bytes of a picture, see :mod:`models.preprocess`) gives an array of that type, which is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from edge_agent import catalogue
from edge_agent.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

FORMATS: Final = {"onnx": "models.onnx_session:OnnxSession", "tflite": "models.tflite_session:TfliteSession"}

_LIBRARIES: Final = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert", "tflite_runtime")}
# The most numbers that one input or output may have: 16 million, a 4096 x 4096 plane.
_LARGEST: Final = 1 << 24


class Tensor(NamedTuple):
    """An input or output: its name, fixed shape, type in the file (NumPy's name of it) and quantisation.

    ``scale`` 0.0: not quantised. Otherwise real = (number − zero_point) · scale.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0


class Session(Protocol):
    """A network that is loaded, warm and ready. Called from one thread only."""

    @property
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    def outputs(self) -> tuple[Tensor, ...]: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Name of each input → array, to name of each output → array of real numbers (integers stay integers).

        Raises ModelError when an array does not fit, the runtime fails, or an output has a NaN or infinity.
        What is returned belongs to the caller.
        """
        ...


def load(format_: str, data: bytes, threads: int = 1) -> Session:
    """Build a session from the bytes of a model file, and run it once.

    The bytes must have passed their guard (:func:`models.judge.guard`): a crafted file can crash the
    runtime, so the first load of a file happens in a process of its own (:mod:`models.trial`).
    Raises ModelError: no such runtime here, not a model, dynamic or empty shapes.
    """
    if format_ not in FORMATS:
        raise ModelError(f"{format_!r} is no model format", hint=f"one of {', '.join(FORMATS)}")
    session: Session = catalogue.load(FORMATS, format_)(data, threads)
    for tensors in (session.inputs, session.outputs):
        names = {tensor.name for tensor in tensors}
        if not names or len(names) < len(tensors):
            raise ModelError("has no inputs or outputs, or several of one name")
    return session


def is_installed(format_: str) -> bool:
    """Whether this machine has a runtime for it; nothing is loaded."""
    return any(find_spec(library) is not None for library in _LIBRARIES[format_])


def fixed(name: str, shape: Any) -> tuple[int, ...]:
    """The shape, if it is one; raises ModelError for unknown, zero and absurd sizes."""
    sizes = tuple(shape)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        written = " x ".join(str(size) for size in sizes)
        raise ModelError(
            f"{name!r} has no fixed shape ({written or 'unknown'})",
            hint="export the model with batch 1 and fixed sizes",
        )
    numbers = 1
    for size in sizes:
        numbers *= size
    if numbers > _LARGEST:
        raise ModelError(f"{name!r} has {numbers} numbers; at most {_LARGEST} are allowed")
    return sizes


def native(tensor: Tensor, given: Array) -> Array:
    """The array as the file wants it: quantised, or only converted, or as it is. Raises ModelError."""
    if given.shape != tensor.shape:
        raise ModelError(f"{tensor.name!r} wants the shape {tensor.shape}, not {given.shape}")
    if given.dtype == _dtype(tensor.dtype):
        return given
    if given.dtype.kind == "f" and tensor.scale:
        return quantise(tensor, given)
    if given.dtype.kind == "f" and tensor.dtype.startswith("float"):
        return given.astype(tensor.dtype)
    raise ModelError(f"{tensor.name!r} wants {tensor.dtype}, not {given.dtype}")


_dtype = cache(np.dtype)


def quantise(tensor: Tensor, real: npt.NDArray[np.floating[Any]]) -> Array:
    """Real numbers in the file's integers: nearest, halves to even, what is beyond goes to the end. Raises for NaN."""
    number = np.rint(real / np.float32(tensor.scale))
    number += tensor.zero_point
    if number.size and np.isnan(number.max()):  # a NaN would become any integer
        raise ModelError(f"{tensor.name!r} was given a NaN")
    limits = np.iinfo(tensor.dtype)
    np.maximum(number, limits.min, out=number)
    np.minimum(number, limits.max, out=number)
    integers: Array = number.astype(tensor.dtype)
    return integers


def dequantise(tensor: Tensor, number: Array) -> Array:
    """The file's integers as real numbers; what is not quantised stays as it is."""
    if not tensor.scale:
        return number
    real = number.astype(np.float32)
    real -= tensor.zero_point
    real *= np.float32(tensor.scale)
    return real


def check_finite(name: str, given: Array) -> None:
    """Raises ModelError where an output is not a number: it must never pass for a low score."""
    if given.dtype.kind != "f":
        return
    # The sum of squares is finite only if every number is; very large numbers may overflow it, so ask again then.
    if not isfinite(np.vdot(given, given)) and not np.isfinite(given).all():
        raise ModelError(f"the model's output {name!r} is not a number")
