"""ONNX Runtime. Nobody else imports it; every way in which it fails becomes a ModelError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent.errors import ModelError
from models.session import Tensor, check_finite, fixed, native

try:
    import onnxruntime
except ImportError as error:  # pragma: no cover - a board without a wheel for it
    raise ModelError("onnxruntime is not installed", hint="pip install onnxruntime") from error

if TYPE_CHECKING:
    from models.session import Array

_TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxSession:
    """See :class:`models.session.Session`. An int8 model carries its scales as QDQ nodes and takes real numbers."""

    def __init__(self, data: bytes, threads: int = 1) -> None:
        try:
            self._session = onnxruntime.InferenceSession(
                data,
                _options(threads),
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it would try the same again, and say so on standard output
            )
            # Names are decoded only here: they may be no text.
            inputs = [(each.name, each.shape, each.type) for each in self._session.get_inputs()]
            outputs = [(each.name, each.type) for each in self._session.get_outputs()]
        except Exception as error:  # its errors have no other parent
            raise ModelError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error
        self.inputs = tuple(Tensor(name, fixed(name, shape), _type(name, kind)) for name, shape, kind in inputs)
        self._names = [name for name, _ in outputs]
        types = [_type(name, kind) for name, kind in outputs]
        # The file may leave the shape of an output to be found out; from here on it is fixed.
        answers = self._call({each.name: np.zeros(each.shape, each.dtype) for each in self.inputs})
        self.outputs = tuple(
            Tensor(name, fixed(name, np.shape(answer)), dtype)
            for name, dtype, answer in zip(self._names, types, answers, strict=True)
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            answers = self._call({each.name: native(each, feeds[each.name]) for each in self.inputs})
        except KeyError as error:
            raise ModelError(f"the model's input {error} was not given") from error
        for tensor, answer in zip(self.outputs, answers, strict=True):
            if answer.shape != tensor.shape:
                raise ModelError(f"the model's output {tensor.name!r} changed its shape to {answer.shape}")
            check_finite(tensor.name, answer)
        return dict(zip(self._names, answers, strict=True))

    def _call(self, feeds: dict[str, Array]) -> list[Any]:
        try:
            answers: list[Any] = self._session.run(self._names, feeds)
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return answers


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong comes as an exception
    # Waiting threads of the runtime would take the core from metering.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Never guess the format from the bytes: the guard has read them as ONNX.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _type(name: str, kind: str) -> str:
    try:
        return _TYPES[kind]
    except KeyError:
        raise ModelError(
            f"{name!r} is a {kind}, which is no plain array of numbers",
            hint="export the model with plain tensors (for scikit-learn: zipmap=False)",
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
