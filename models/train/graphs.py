"""The networks of anomaly bundles, as ONNX files. Nobody else builds graphs; onnx and skl2onnx are imported here only.

Every network has the input ``rows`` (1, R) float32 and the output ``score`` (1, 1). The line's own has
``contributions`` (1, Q) too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.anomaly import CONTRIBUTIONS, INPUT, SCORE

if TYPE_CHECKING:
    import numpy.typing as npt

OPSET: Final = 17
_BLOCKS: Final = 4
_TREES = 100
_IR: Final = 8
_ZERO: Final = 128
STEP: Final = 1.0 / 40.5
"""Of the 8-bit rows: 0 stays exactly 0, the largest row fits, and the limit 1 lies on the edge between two steps, so
that rounding never carries a row across it."""


def line_graph(count: int, scales: int, precision: str) -> bytes:
    """The largest share of each quantity's rows, and the largest of all; ``precision``: ``fp32`` or ``int8`` (QDQ)."""
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415 - an extra that only calibration needs

    wide = 2 * scales * count
    nodes, constants = [], [("shape", np.array([1, 2 * scales, count], np.int64))]
    name = INPUT
    quantised = precision == "int8"

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def squeeze(source: str, stem: str) -> str:
        if not quantised:
            return source
        eight = add("QuantizeLinear", [source, "step", "zero"], f"{stem}_8")
        return add("DequantizeLinear", [eight, "step", "zero"], f"{stem}_real")

    if quantised:
        constants += [("step", np.array(STEP, np.float32)), ("zero", np.array(_ZERO, np.uint8))]
    name = squeeze(INPUT, "rows")
    name = squeeze(add("Abs", [name], "size"), "size")
    name = add("Reshape", [name, "shape"], "by_quantity")
    add("ReduceMax", [name], CONTRIBUTIONS, axes=[1], keepdims=0)
    add("ReduceMax", [CONTRIBUTIONS], SCORE, axes=[1], keepdims=1)
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, wide])],
        [
            helper.make_tensor_value_info(CONTRIBUTIONS, TensorProto.FLOAT, [1, count]),
            helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, [1, 1]),
        ],
        [numpy_helper.from_array(value, key) for key, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR)
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def baseline(kind: str, rows: npt.NDArray[np.float32]) -> tuple[bytes, float]:
    """``isolation-forest`` or ``lof``, fit on the calibration's rows, shape (N, R): the network and its threshold.

    The threshold is what one in a hundred calibration rows reached that the model had not seen (four blocks).
    """
    unseen = []
    for block in np.array_split(np.arange(len(rows)), _BLOCKS):
        seen = np.delete(rows, block, axis=0)
        unseen.append(-_outliers(kind).fit(seen).decision_function(rows[block]))
    return _outlier_graph(_outliers(kind).fit(rows), rows.shape[1]), float(np.quantile(np.concatenate(unseen), 0.99))


def _outliers(kind: str) -> Any:
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - as above
    from sklearn.neighbors import LocalOutlierFactor  # noqa: PLC0415 - as above

    if kind == "isolation-forest":
        return IsolationForest(n_estimators=_TREES, random_state=0, n_jobs=1)
    return LocalOutlierFactor(n_neighbors=20, novelty=True)


def _outlier_graph(model: Any, wide: int) -> bytes:
    """What scikit-learn calls ``decision_function`` falls with the suspicion; ours is its negative."""
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415 - as above
    from skl2onnx import to_onnx  # noqa: PLC0415 - as above

    made = to_onnx(
        model,
        np.zeros((1, wide), np.float32),
        target_opset={"": OPSET, "ai.onnx.ml": 3},
        options={id(model): {"score_samples": False}},
    )
    graph = made.graph
    renamed = {graph.input[0].name: INPUT}
    scores = next(each.name for each in graph.output if each.name == "scores")
    for node in graph.node:
        node.input[:] = [renamed.get(each, each) for each in node.input]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, wide]))
    graph.initializer.append(numpy_helper.from_array(np.array([[-1.0]], np.float32), "sign"))
    graph.initializer.append(numpy_helper.from_array(np.array([1, 1], np.int64), "single"))
    graph.node.append(helper.make_node("Reshape", [scores, "single"], ["one"]))
    graph.node.append(helper.make_node("Mul", ["one", "sign"], [SCORE]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, [1, 1]))
    checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data
