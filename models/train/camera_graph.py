"""The network of a calibrated camera: the backbone, and behind it how far each place is from those of good parts.

::

    picture ─▶ backbone (int8) ─▶ features per cell ─▶ distance to the nearest good part's, here or one cell aside
                                                                  │ ÷ what is usual at this place, smoothed
                             suspicion (logit) ◀── largest ◀── heat (logit), against the limit

The good parts' features are 8-bit numbers in the file. |f − m|² = |f|² + |m|² − 2 f·m, so that all distances of a
place are one product of matrices. onnx is imported here only where a camera is calibrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

STRIDE: Final = 8
FEATURES: Final = "features"
SUSPICION: Final = "suspicion"
HEAT: Final = "heat"
STEEPNESS: Final = 4.0
"""A place that is as far as the limit has the logit 0; twice as far, this many times ln 2."""
NEAR: Final = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1))
"""Cells: how far a place may lie beside where it was."""
_FLOOR: Final = 1e-6


def feature_graph(backbone: bytes, width: int, height: int) -> bytes:
    """The backbone for pictures of this size (multiples of 8), with its features as the only output."""
    model = _resized(backbone, width, height)
    _keep(model, {FEATURES})
    data: bytes = model.SerializeToString()
    return data


class Memory(NamedTuple):
    """What good parts look like. ``cells``: places × parts × channels, 8-bit steps of ``step``.

    ``scale``: per channel, what features are multiplied with first. ``weight``: rows × columns, one over the usual
    distance. ``inside``: rows × columns, 0 where nothing is judged. ``limit``: from there on it is suspicious.
    """

    cells: Array
    step: float
    scale: Array
    weight: Array
    inside: Array
    limit: float


def camera_graph(backbone: bytes, size: tuple[int, int], memory: Memory) -> bytes:
    """See the head of this file."""
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415 - an extra that only calibration needs

    model = _resized(backbone, *size)
    _keep(model, {FEATURES})
    graph = model.graph
    rows, columns = memory.weight.shape
    constants = _constants(memory)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    good = add("DequantizeLinear", ["good_cells", "good_step", "good_zero"], "good")
    even = add("Mul", [FEATURES, "good_scale"], "even")
    wide = add("Pad", [even, "ring"], "wide", mode="edge")
    views = [
        add("Slice", [wide, f"from_{number}", f"to_{number}", "planes"], f"view_{number}")
        for number in range(len(NEAR))
    ]
    # places × channels × views
    seen = add("Concat", [add("Reshape", [view, "by_place"], f"{view}_flat") for view in views], "views", axis=0)
    seen = add("Transpose", [seen], "seen", perm=[2, 1, 0])
    product = add("Mul", [add("MatMul", [good, seen], "dot"), "minus_two"], "product")
    length = add("ReduceSum", [add("Mul", [seen, seen], "seen_2"), "middle"], "length", keepdims=1)
    square = add("Add", [add("Add", [product, "good_length"], "partly"), length], "square")
    nearest = add("ReduceMin", [square, "middle"], "nearest", keepdims=0)  # places × views
    planes = add("Reshape", [add("Transpose", [nearest], "turned", perm=[1, 0]), "as_planes"], "planes_of_views")
    # A distance belongs to the cell that was seen, not to the one that it was compared with.
    back = add("Pad", [planes, "ring", "far_away"], "padded")
    each = [
        add("Slice", [back, f"back_from_{number}", f"back_to_{number}", "all_but_first"], f"back_{number}")
        for number in range(len(NEAR))
    ]
    best = add("Sqrt", [add("Max", [add("Min", each, "best"), "floor"], "best_safe")], "far")
    usual = add("AveragePool", [add("Mul", [best, "weight"], "unusual")], "smooth", kernel_shape=[3, 3], pads=[1] * 4)
    share = add("Max", [add("Mul", [usual, "inside"], "share"), "floor"], "share_safe")
    add("Mul", [add("Log", [share], "log"), "steepness"], HEAT)
    add("Reshape", [add("ReduceMax", [HEAT, "planes"], "hottest", keepdims=0), "single"], SUSPICION)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(SUSPICION, TensorProto.FLOAT, [1, 1]))
    graph.output.append(helper.make_tensor_value_info(HEAT, TensorProto.FLOAT, [1, 1, rows, columns]))
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _constants(memory: Memory) -> dict[str, Array]:
    """The numbers behind the backbone, by name."""
    rows, columns = memory.weight.shape
    channels = memory.cells.shape[2]
    real = memory.cells.astype(np.float32) * np.float32(memory.step)
    integers = {
        "ring": [0, 0, 1, 1, 0, 0, 1, 1],
        "planes": [2, 3],
        "all_but_first": [1, 2, 3],
        "by_place": [1, channels, rows * columns],
        "as_planes": [1, len(NEAR), rows, columns],
        "middle": [1],
        "single": [1, 1],
    }
    for number, (down, across) in enumerate(NEAR):
        integers |= {
            f"from_{number}": [1 + down, 1 + across],
            f"to_{number}": [1 + down + rows, 1 + across + columns],
            f"back_from_{number}": [number, 1 - down, 1 - across],
            f"back_to_{number}": [number + 1, 1 - down + rows, 1 - across + columns],
        }
    numbers = {"good_step": memory.step, "minus_two": -2.0, "far_away": 1e9, "floor": _FLOOR, "steepness": STEEPNESS}
    return {
        **{name: np.array(value, np.int64) for name, value in integers.items()},
        **{name: np.array(value, np.float32) for name, value in numbers.items()},
        "good_cells": memory.cells.astype(np.int8),
        "good_zero": np.array(0, np.int8),
        "good_length": (real * real).sum(axis=2, keepdims=True),
        "good_scale": memory.scale.reshape(1, -1, 1, 1).astype(np.float32),
        "weight": memory.weight[None, None].astype(np.float32),
        "inside": (memory.inside / memory.limit)[None, None].astype(np.float32),
    }


def _resized(backbone: bytes, width: int, height: int) -> Any:
    """It is convolutions and nothing else, so it works in any size: only its input says one."""
    import onnx  # noqa: PLC0415 - as above

    model = onnx.load_from_string(backbone)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[2].dim_value, sizes[3].dim_value = height, width
    del model.graph.value_info[:]
    return model


def _keep(model: Any, wanted: set[str]) -> None:
    """Only these outputs, without shapes, and only the nodes and numbers that they need."""
    graph = model.graph
    outputs = [each for each in graph.output if each.name in wanted]
    needed, nodes = set(wanted), []
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    numbers = [each for each in graph.initializer if each.name in needed]
    for each in outputs:
        for size in each.type.tensor_type.shape.dim:
            size.ClearField("value")
    for field, kept in ((graph.node, nodes[::-1]), (graph.initializer, numbers), (graph.output, outputs)):
        copies = [type(each).FromString(each.SerializeToString()) for each in kept]
        del field[:]
        field.extend(copies)
