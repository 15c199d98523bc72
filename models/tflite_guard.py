"""Before a TFLite runtime sees a file: whole, with nothing outside of it and nothing that a plug-in must bring.

Source: the TFLite schema, version 3c (tables and the order of their fields).
"""

from __future__ import annotations

from typing import Final

from edge_agent.errors import BundleError
from models.flatbuffer import Buffer, Table

_CUSTOM: Final = 32  # the operator code of what a plug-in would have to bring

# Table → number of a field.
_MODEL_VERSION, _MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 0, 1, 2, 4
_MODEL_EXTERNAL: Final = (8, 9)
_CODE_OLD, _CODE_NAME, _CODE_NEW = 0, 1, 3
_SUBGRAPH_TENSORS, _SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS, _SUBGRAPH_OPERATORS = 0, 1, 2, 3
_TENSOR_SHAPE, _TENSOR_BUFFER, _TENSOR_QUANTISATION, _TENSOR_EXTERNAL = 0, 2, 4, 10
_QUANTISATION_SCALE, _QUANTISATION_ZERO, _QUANTISATION_DIMENSION = 2, 3, 6
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_BUFFER_DATA, _BUFFER_OFFSET, _BUFFER_SIZE = 0, 1, 2


def check(data: bytes) -> None:
    """Raises BundleError."""
    if data[4:8] != b"TFL3":
        raise BundleError("is no TFLite model")
    model = Buffer(data).root()
    if model.number(_MODEL_VERSION, "<I") != 3:
        raise BundleError("is a TFLite model of another version than 3")
    if any(model.count(field) for field in _MODEL_EXTERNAL):
        raise BundleError("keeps data of the model in another file", hint="export the model in one file")
    buffers = _check_buffers(model)
    codes = _check_codes(model)
    subgraphs = list(model.tables(_MODEL_SUBGRAPHS))
    if not subgraphs:
        raise BundleError("is a TFLite model without anything in it")
    for subgraph in subgraphs:
        _check_subgraph(subgraph, buffers, codes)


def _check_buffers(model: Table) -> int:
    count = 0
    for buffer in model.tables(_MODEL_BUFFERS):
        buffer.count(_BUFFER_DATA, 1)
        # An offset leads behind the FlatBuffer, where nobody checks it; only models beyond 2 GiB need that.
        if buffer.number(_BUFFER_OFFSET, "<Q") > 1 or buffer.number(_BUFFER_SIZE, "<Q") > 1:
            raise BundleError("keeps data of the model outside of its FlatBuffer")
        count += 1
    return count


def _check_codes(model: Table) -> int:
    count = 0
    for code in model.tables(_MODEL_CODES):
        number = max(code.number(_CODE_OLD, "<b"), code.number(_CODE_NEW, "<i"))
        if number == _CUSTOM or code.count(_CODE_NAME, 1):
            raise BundleError(
                "uses an operator that is not part of TFLite", hint="convert the model without custom or Flex operators"
            )
        count += 1
    return count


def _check_subgraph(subgraph: Table, buffers: int, codes: int) -> None:
    tensors = 0
    for tensor in subgraph.tables(_SUBGRAPH_TENSORS):
        _check_tensor(tensor, tensors, buffers)
        tensors += 1
    used = subgraph.numbers(_SUBGRAPH_INPUTS) + subgraph.numbers(_SUBGRAPH_OUTPUTS)
    for operator in subgraph.tables(_SUBGRAPH_OPERATORS):
        if operator.number(_OPERATOR_CODE, "<I") >= codes:
            raise BundleError("is damaged: it names an operator that it does not have")
        outputs = operator.numbers(_OPERATOR_OUTPUTS)
        used += outputs + [index for index in operator.numbers(_OPERATOR_INPUTS) if index != -1]  # −1: not given
    if not all(0 <= index < tensors for index in used):
        raise BundleError("is damaged: it names a tensor that it does not have")


def _check_tensor(tensor: Table, index: int, buffers: int) -> None:
    if tensor.number(_TENSOR_EXTERNAL, "<I"):
        raise BundleError("keeps data of the model in another file", hint="export the model in one file")
    if tensor.number(_TENSOR_BUFFER, "<I") >= buffers:
        raise BundleError("is damaged: it names a buffer that it does not have")
    shape = tensor.numbers(_TENSOR_SHAPE)
    if any(size < 0 for size in shape):
        raise BundleError(f"its tensor {index} has the impossible shape {shape}")
    quantisation = tensor.table(_TENSOR_QUANTISATION)
    if quantisation is None or not shape:
        return
    dimension = quantisation.number(_QUANTISATION_DIMENSION, "<i")
    scales = quantisation.count(_QUANTISATION_SCALE)
    if scales and not 0 <= dimension < len(shape):
        raise BundleError(
            f"its tensor {index} is quantised along dimension {dimension} but has only {len(shape)}",
            hint="it was made by an old converter; convert it again",
        )
    if scales > 1 and scales != shape[dimension]:
        raise BundleError(f"its tensor {index} has {scales} scales for {shape[dimension]} channels")
