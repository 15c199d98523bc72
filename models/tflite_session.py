"""TensorFlow Lite: ai-edge-litert, or its predecessor tflite_runtime where that is what a board has.

Nobody else imports either; every way in which they fail becomes a ModelError. The old runtime has no wheel
past Python 3.11, and beside NumPy 2 it imports but fails when the first interpreter is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.errors import ModelError
from models.session import Entry, Exit, Tensor, fixed

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError as error:
        raise ModelError("no TFLite runtime is installed", hint="pip install ai-edge-litert") from error

if TYPE_CHECKING:
    from models.session import Array

_NUMBERS = ("f", "i", "u", "b")


class TfliteSession:
    """See :class:`models.session.Session`. The batch is the one in the file, whatever its signature allows."""

    def __init__(self, data: bytes, threads: int = 1) -> None:
        try:
            self._interpreter = Interpreter(model_content=data, num_threads=threads)
            self._interpreter.allocate_tensors()
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
            for each in inputs:
                self._interpreter.set_tensor(each["index"], np.zeros(each["shape"], each["dtype"]))
            self._interpreter.invoke()
        except Exception as error:  # ValueError, RuntimeError, SystemError beside NumPy 2, and what comes next
            raise ModelError(f"TFLite refuses the model: {_short(error)}") from error
        self.inputs = tuple(_tensor(each) for each in inputs)
        self.outputs = tuple(_tensor(each) for each in outputs)
        self._entries = [(Entry(tensor), int(each["index"])) for tensor, each in zip(self.inputs, inputs, strict=True)]
        self._exits = [
            (tensor.name, Exit(tensor), int(each["index"])) for tensor, each in zip(self.outputs, outputs, strict=True)
        ]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        interpreter, said = self._interpreter, {}
        try:
            for entry, index in self._entries:
                interpreter.set_tensor(index, entry(feeds))
            interpreter.invoke()
            for name, exit_, index in self._exits:
                said[name] = exit_(interpreter.get_tensor(index))
        except ModelError:
            raise
        except Exception as error:  # as above
            raise ModelError(f"TFLite failed: {_short(error)}") from error
        return said


def _tensor(details: dict[str, Any]) -> Tensor:
    name = str(details["name"])
    dtype = np.dtype(details["dtype"])
    if dtype.kind not in _NUMBERS:
        raise ModelError(f"{name!r} is no plain array of numbers")
    scale, zero_point = details["quantization"]
    if len(details["quantization_parameters"]["scales"]) > 1:
        raise ModelError(f"{name!r} has a scale per channel, which no input or output may have")
    if scale and not (np.isfinite(scale) and scale > 0):
        raise ModelError(f"{name!r} has the impossible scale {scale}")
    shape = fixed(name, [int(size) for size in details["shape"]])
    return Tensor(name, shape, dtype.name, float(scale) if dtype.kind in "iu" else 0.0, int(zero_point))


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__)[:300]
