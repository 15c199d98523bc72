"""The line's network as a TFLite file, written field by field: no converter, so an edge computer makes it as well.

    rows (1, R) ─ ABS ─ RESHAPE (1, 2K, Q) ─ REDUCE_MAX ─ contributions (1, Q) ─ REDUCE_MAX ─ score (1, 1)

Source: the TFLite schema, version 3c (tables and the order of their fields). Only this file imports flatbuffers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import flatbuffers
import numpy as np

from models.anomaly import CONTRIBUTIONS, INPUT, SCORE
from models.train.graphs import STEP

if TYPE_CHECKING:
    import numpy.typing as npt

_FLOAT32, _INT32, _INT8 = 0, 2, 9
_ABS, _RESHAPE, _REDUCE_MAX = 101, 22, 82
_ABS_OPTIONS, _RESHAPE_OPTIONS, _REDUCER_OPTIONS = 78, 17, 27  # of the union of options
_OFFSET: Final = "UOffsetTRelative"


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    data: npt.NDArray[np.int32] | None = None


def line_tflite(count: int, scales: int, precision: str) -> bytes:
    """As :func:`models.train.graphs.line_graph`; in ``int8`` what goes in and out is int8 too."""
    wide = 2 * scales * count
    by_quantity = (1, 2 * scales, count)
    tensors = [
        _Tensor(INPUT, (1, wide)),
        _Tensor("size", (1, wide)),
        _Tensor("shape", (3,), np.array(by_quantity, np.int32)),
        _Tensor("by_quantity", by_quantity),
        _Tensor("axis", (1,), np.array([1], np.int32)),
        _Tensor(CONTRIBUTIONS, (1, count)),
        _Tensor(SCORE, (1, 1)),
    ]
    writer = _Writer(quantised=precision == "int8")
    operators = [
        writer.operator(0, [0], [1], _ABS_OPTIONS, {}),
        writer.operator(1, [1, 2], [3], _RESHAPE_OPTIONS, {0: (_OFFSET, writer.numbers(tensors[2].data))}),
        writer.operator(2, [3, 4], [5], _REDUCER_OPTIONS, {0: ("Bool", False)}),
        writer.operator(2, [5, 4], [6], _REDUCER_OPTIONS, {0: ("Bool", True)}),
    ]
    return writer.model(tensors, operators, inputs=[0], outputs=[5, 6], codes=[_ABS, _RESHAPE, _REDUCE_MAX])


class _Writer:
    def __init__(self, *, quantised: bool) -> None:
        self._builder = flatbuffers.Builder(2048)
        self._quantised = quantised

    def table(self, fields: dict[int, tuple[str, Any]]) -> int:
        """``fields``: number → (kind, value); what is pointed to must exist already."""
        builder = self._builder
        builder.StartObject(max(fields, default=-1) + 1)
        for field, (kind, value) in fields.items():
            getattr(builder, f"Prepend{kind}Slot")(field, value, 0)
        made: int = builder.EndObject()
        return made

    def numbers(self, values: npt.ArrayLike | None) -> int:
        made: int = self._builder.CreateNumpyVector(np.asarray(values))
        return made

    def offsets(self, offsets: list[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        made: int = self._builder.EndVector()
        return made

    def operator(self, code: int, inputs: list[int], outputs: list[int], kind: int, options: dict[int, Any]) -> int:
        fields = {
            0: ("Uint32", code),
            1: (_OFFSET, self.numbers(np.array(inputs, np.int32))),
            2: (_OFFSET, self.numbers(np.array(outputs, np.int32))),
            3: ("Uint8", kind),
            4: (_OFFSET, self.table(options)),
        }
        return self.table(fields)

    def tensor(self, tensor: _Tensor, buffer: int) -> int:
        kind = _INT32 if tensor.data is not None else _INT8 if self._quantised else _FLOAT32
        fields: dict[int, tuple[str, Any]] = {
            0: (_OFFSET, self.numbers(np.array(tensor.shape, np.int32))),
            1: ("Int8", kind),
            2: ("Uint32", buffer),
            3: (_OFFSET, self._builder.CreateString(tensor.name)),
        }
        if kind == _INT8:
            scale, zero = self.numbers(np.array([STEP], np.float32)), self.numbers(np.array([0], np.int64))
            fields[4] = (_OFFSET, self.table({2: (_OFFSET, scale), 3: (_OFFSET, zero)}))
        return self.table(fields)

    def model(
        self, tensors: list[_Tensor], operators: list[int], *, inputs: list[int], outputs: list[int], codes: list[int]
    ) -> bytes:
        buffers, made = [self.table({})], []
        for tensor in tensors:
            if tensor.data is not None:
                data = self.numbers(np.frombuffer(tensor.data.tobytes(), np.uint8))
                buffers.append(self.table({0: (_OFFSET, data)}))
            made.append(self.tensor(tensor, len(buffers) - 1 if tensor.data is not None else 0))
        parts = [
            self.offsets(made),
            self.numbers(np.array(inputs, np.int32)),
            self.numbers(np.array(outputs, np.int32)),
            self.offsets(operators),
        ]
        subgraph = self.table({field: (_OFFSET, offset) for field, offset in enumerate(parts)})
        version = 2 if self._quantised else 1
        kinds = [
            self.table({0: ("Int8", code), 2: ("Int32", 1 if code == _RESHAPE else version), 3: ("Int32", code)})
            for code in codes
        ]
        fields = {1: self.offsets(kinds), 2: self.offsets([subgraph]), 4: self.offsets(buffers)}
        root = self.table({0: ("Uint32", 3)} | {field: (_OFFSET, offset) for field, offset in fields.items()})
        self._builder.Finish(root, file_identifier=b"TFL3")
        return bytes(self._builder.Output())
