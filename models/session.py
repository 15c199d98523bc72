"""One trained network behind one small contract, whichever runtime carries it.

::

    real numbers ──quantise──▶ the file's own numbers ──runtime──▶ … ──dequantise──▶ real numbers

What is int8 inside the file is the file's business: whoever calls gives and gets real numbers (float32), and
the file's own scales say how they become integers and back. A caller that already has the file's own numbers
(bytes of a picture, see :mod:`models.preprocess`) gives an array of that type, which is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class Entry:
    """One input: what is given for it becomes the array that the file wants. Called from one thread only.

    Everything that the file fixes is looked up once, here: a small network takes less time than looking it up would.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.name = tensor.name
        self._shape = tensor.shape
        self._dtype = np.dtype(tensor.dtype)
        self._quantiser = Quantiser(tensor, tensor.shape) if tensor.scale else None

    def __call__(self, feeds: Mapping[str, Array]) -> Array:
        """What was given as it is, or an array that the next call overwrites. Raises ModelError."""
        given = feeds.get(self.name)
        if given is None:
            raise ModelError(f"the model's input {self.name!r} was not given")
        if given.shape != self._shape:
            raise ModelError(f"{self.name!r} wants the shape {self._shape}, not {given.shape}")
        if given.dtype == self._dtype:
            return given
        if given.dtype.kind == "f" and self._quantiser is not None:
            return self._quantiser(given)
        if given.dtype.kind == "f" and self._dtype.kind == "f":
            return given.astype(self._dtype)
        raise ModelError(f"{self.name!r} wants {self._dtype}, not {given.dtype}")


class Quantiser:
    """Real numbers in the file's integers: nearest, halves to even, what is beyond goes to the end.

    ``shape``: of what is quantised, so that no memory is taken later.
    """

    def __init__(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        limits = np.iinfo(tensor.dtype)
        self._name = tensor.name
        self._scale = np.float32(tensor.scale)
        self._zero_point = np.float32(tensor.zero_point)
        self._least, self._most = np.float32(limits.min), np.float32(limits.max)
        if float(self._most) > limits.max:  # 32 bits: the nearest real number is beyond the end
            self._most = np.nextafter(self._most, np.float32(0))
        self._number = np.empty(shape, np.float32)
        self._integers = np.empty(shape, tensor.dtype)

    def __call__(self, real: npt.NDArray[np.floating[Any]]) -> Array:
        """The next call overwrites it. Raises ModelError for NaN."""
        number = self._number
        np.divide(real, self._scale, number)
        np.rint(number, number)
        np.add(number, self._zero_point, number)
        number.clip(self._least, self._most, number)
        if not _is_finite(number):  # a NaN would become any integer
            raise ModelError(f"{self._name!r} was given a NaN")
        np.copyto(self._integers, number, casting="unsafe")
        return self._integers


class Exit:
    """One output: what the runtime said, checked, and as real numbers."""

    def __init__(self, tensor: Tensor) -> None:
        self._name = tensor.name
        self._shape = tensor.shape
        self._tensor = tensor
        dtype = np.dtype(tensor.dtype)
        self._is_quantised = bool(tensor.scale)
        self._is_real = dtype.kind == "f"
        # Eight bits: the real number of each, below zero too, where an array is counted from its end.
        every = np.arange(256).astype(np.uint8).view(dtype) if dtype.itemsize == 1 and tensor.scale else None
        self._table = None if every is None else self._dequantised(every)

    def __call__(self, answer: Array) -> Array:
        """Raises ModelError for another shape than before, and for no number: it must never pass for a low score."""
        if answer.shape != self._shape:
            raise ModelError(f"the model's output {self._name!r} changed its shape to {answer.shape}")
        if self._is_quantised:
            return self._dequantised(answer) if self._table is None else self._table.take(answer)
        if self._is_real and not _is_finite(answer):
            raise ModelError(f"the model's output {self._name!r} is not a number")
        return answer

    def _dequantised(self, answer: Array) -> npt.NDArray[np.float32]:
        real = answer.astype(np.float32)
        real -= np.float32(self._tensor.zero_point)
        real *= np.float32(self._tensor.scale)
        return real


_FEW: Final = 8192  # numbers that one thread multiplies; of more the library beneath NumPy wakes others


def _is_finite(given: Array) -> bool:
    """Whether every number is one. The sum of squares is finite only then; very large numbers may overflow it."""
    if given.size == 1:
        return isfinite(given.item())
    return (given.size <= _FEW and isfinite(np.vdot(given, given))) or bool(np.isfinite(given).all())
