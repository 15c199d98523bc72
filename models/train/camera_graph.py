"""The network of a calibrated camera: the backbone, and behind it how far each place is from those of good parts.

::

    picture ─▶ backbone (int8) ─▶ features ─▶ (features − mean) · inverse deviation ─▶ root mean square
                                    └ per place and channel                                │
                                      suspicion (logit) ◀── largest ◀── heat (logit) ◀── against the limit

onnx is imported here only where a camera is calibrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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
_FLOOR: Final = 1e-6


def feature_graph(backbone: bytes, width: int, height: int) -> bytes:
    """The backbone for pictures of this size (multiples of 8), with its features as the only output."""
    model = _resized(backbone, width, height)
    _keep(model, {FEATURES})
    data: bytes = model.SerializeToString()
    return data


def camera_graph(backbone: bytes, size: tuple[int, int], mean: Array, inverse: Array, limit: float) -> bytes:
    """See the head of this file. ``mean``, ``inverse``: channels × rows × columns of the features.

    ``limit``: the distance from which on a part is suspicious.
    """
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415 - an extra that only calibration needs

    model = _resized(backbone, *size)
    _keep(model, {FEATURES})
    graph = model.graph
    rows, columns = mean.shape[1:]
    constants: dict[str, Array] = {
        "good_mean": mean[None].astype(np.float32),
        "good_inverse": inverse[None].astype(np.float32),
        "single": np.array([1, 1], np.int64),
        "per_limit": np.array(1.0 / limit, np.float32),
        "floor": np.array(_FLOOR, np.float32),
        "steepness": np.array(STEEPNESS, np.float32),
        "planes": np.array([2, 3], np.int64),
        "channels": np.array([1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    away = add("Mul", [add("Sub", [FEATURES, "good_mean"], "off"), "good_inverse"], "away")
    square = add("ReduceMean", [add("Mul", [away, away], "squares"), "channels"], "square", keepdims=1)
    share = add("Mul", [add("Sqrt", [square], "far"), "per_limit"], "share")
    share = add("Max", [share, "floor"], "share_safe")
    add("Mul", [add("Log", [share], "log"), "steepness"], HEAT)
    add("Reshape", [add("ReduceMax", [HEAT, "planes"], "hottest", keepdims=0), "single"], SUSPICION)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(SUSPICION, TensorProto.FLOAT, [1, 1]))
    graph.output.append(helper.make_tensor_value_info(HEAT, TensorProto.FLOAT, [1, 1, rows, columns]))
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


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
