"""ONNX Runtime. Nobody else imports it; every way in which it fails becomes a ModelError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent.errors import ModelError
from models.session import Entry, Exit, Tensor, fixed

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
    """See :class:`models.session.Session`. An int8 model carries its scales as QDQ nodes and takes real numbers.

    The runtime reads inputs where they lie and writes outputs into memory that was taken once: for a small network
    looking for memory costs as much as the network.
    """

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
        self._session._model_bytes = None  # noqa: SLF001 - it would keep the file, for a fallback that there is not
        self.inputs = tuple(Tensor(name, fixed(name, shape), _type(name, kind)) for name, shape, kind in inputs)
        # The file may leave the shape of an output to be found out; from here on it is fixed.
        types = [(name, _type(name, kind)) for name, kind in outputs]
        answers = self._first([name for name, _ in types])
        self.outputs = tuple(
            Tensor(name, fixed(name, np.shape(answer)), dtype)
            for (name, dtype), answer in zip(types, answers, strict=True)
        )
        self._binding = self._session.io_binding()
        self._entries = [Entry(tensor) for tensor in self.inputs]
        self._bound: dict[str, Array] = {}
        self._exits = [(tensor.name, Exit(tensor), self._room(tensor)) for tensor in self.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        bound = self._bound
        for entry in self._entries:
            given = entry(feeds)
            if given is not bound.get(entry.name):
                self._bind(entry.name, given)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime failed: {_first_line(error)}") from error
        said = {}
        for name, exit_, room in self._exits:
            said[name] = exit_(room.copy())
        return said

    def _bind(self, name: str, given: Array) -> None:
        """The input is read from there, this time and until another one is given."""
        if not given.flags.c_contiguous:
            given = given.copy()
        try:
            self._binding.bind_cpu_input(name, given)
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime does not take the input: {_first_line(error)}") from error
        self._bound[name] = given

    def _first(self, names: list[str]) -> list[Any]:
        try:
            answers: list[Any] = self._session.run(
                names, {each.name: np.zeros(each.shape, each.dtype) for each in self.inputs}
            )
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return answers

    def _room(self, tensor: Tensor) -> Array:
        """Memory for an output. The runtime refuses to write anything of another shape into it."""
        room = np.empty(tensor.shape, tensor.dtype)
        self._binding.bind_output(tensor.name, "cpu", 0, room.dtype, tensor.shape, room.ctypes.data)
        return room


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A plan of all memory beforehand takes 6 MB more for a picture's network, and no time less.
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what is wrong comes as an exception
    # Waiting threads of the runtime would take the core from metering.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # The model's own numbers beside the store that grows for what lies between, or it grows by twice as much for them.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
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
