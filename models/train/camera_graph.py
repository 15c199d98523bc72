"""The network of a calibrated camera: what it sees, and behind it how far that is from what good parts look like.

::

    picture ─┬▶ backbone (int8) ─▶ features per 8 × 8 pixels ─▶ distance to the nearest good part's, here or beside
             │                                                           │ ÷ what is usual at this place, smoothed
             └▶ contrast of each pixel ─▶    how far outside of the    ──┴─▶ larger of both, against their limits
                                             good parts' band, ÷ usual                 │
                                                          suspicion (logit) ◀── heat (logit)

The features know what a surface is, and pass over marks of a few pixels; contrast (differences of means of the
logarithm of grey, so no lamp changes it) knows nothing and sees them. Two memories, each what it needs and no more:
features of every good part, in main directions and 8-bit numbers, |f − m|² = |f|² + |m|² − 2 f·m, so that all distances
of a place are one product of matrices; and from contrast the lowest and highest of all good parts around a place.
onnx is imported here only where a camera is calibrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from models.backbone import SCALING

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

STRIDE: Final = 8
FEATURES: Final = "features"
CONTRAST: Final = "contrast"
SUSPICION: Final = "suspicion"
HEAT: Final = "heat"
STEEPNESS: Final = 4.0
"""A place that is as far as the limit has the logit 0; twice as far, this many times ln 2."""
NEAR: Final = tuple((down, across) for down in (-1, 0, 1) for across in (-1, 0, 1))
"""Cells: how far a place may lie beside where it was."""
_FLOOR: Final = 1e-6
_GREY: Final = (0.114, 0.587, 0.299)  # of blue, green, red: BT.601
_DARK: Final = 8.0  # grey levels that are added: the noise of black is no contrast


class Memory(NamedTuple):
    """Features of good parts. ``cells``: places × parts × directions, 8-bit steps of ``step``.

    ``basis``: directions × channels, what features are multiplied with first. ``weight``: rows × columns, one over the
    usual distance, 0 where nothing is judged. ``limit``: from there on it is suspicious.
    """

    cells: Array
    step: float
    basis: Array
    weight: Array
    limit: float


class Band(NamedTuple):
    """Contrast of good parts: ``low``, ``high``: planes × rows × columns. ``weight``, ``limit``: as in Memory.

    ``scale``: per plane, what contrast is multiplied with first.
    """

    scale: Array
    low: Array
    high: Array
    weight: Array
    limit: float


class _Network:
    """A graph in the making."""

    def __init__(self, backbone: bytes, size: tuple[int, int]) -> None:
        self.size = size
        self.model = _resized(backbone, *size)
        self.graph = self.model.graph
        _keep(self.model, {FEATURES})
        self._contrast(self.graph.input[0].name)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper  # noqa: PLC0415 - an extra that only calibration needs

        self.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def number(self, name: str, value: Any, kind: Any = np.float32) -> str:
        from onnx import numpy_helper  # noqa: PLC0415 - as above

        self.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def large(self, name: str, value: Array) -> str:
        """A plane of numbers, half as large in the file."""
        return self.add("Cast", [self.number(f"{name}_16", value, np.float16)], name, to=1)

    def finish(self, outputs: dict[str, list[int] | list[None]]) -> bytes:
        """The file; ``outputs``: name → shape, None where it is to be found out."""
        from onnx import TensorProto, checker, helper  # noqa: PLC0415 - as above

        del self.graph.output[:]
        for name, shape in outputs.items():
            self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        checker.check_model(self.model)
        data: bytes = self.model.SerializeToString()
        return data

    def _contrast(self, picture: str) -> None:
        """Two planes: marks of a pixel or two, and of twice as many."""
        ((std,), (mean,)) = SCALING["std"], SCALING["mean"]
        # No convolution: for one plane the runtime would take the memory of sixteen.
        width, height = self.size
        flat = self.add("Reshape", [picture, self.number("flat", [3, width * height], np.int64)], "picture_flat")
        weights = self.number("grey_weights", [np.array(_GREY) * std])
        line = self.add("MatMul", [weights, flat], "grey_line")
        plane = self.add("Reshape", [line, self.number("one_plane", [1, 1, height, width], np.int64)], "grey_plane")
        grey = self.add("Add", [plane, self.number("grey_bias", mean + _DARK)], "grey")
        light = self.add("Log", [self.add("Max", [grey, self.number("one", 1.0)], "grey_safe")], "light")
        inner = [self._blurred(light, "inner", (3,)), self._blurred(light, "inner_wide", (3, 3, 3))]
        outer = [self._blurred(inner[0], "outer", (7,)), self._blurred(inner[1], "outer_wide", (13,))]
        planes = [
            self.add("Sub", [little, much], f"contrast_{number}")
            for number, (little, much) in enumerate(zip(inner, outer, strict=True))
        ]
        self.add("Concat", planes, CONTRAST, axis=1)

    def _blurred(self, plane: str, name: str, sides: tuple[int, ...]) -> str:
        """Means of squares, one after the other: nearly a Gaussian, without the memory that a convolution takes."""
        for number, side in enumerate(sides):
            for axis, shape in enumerate(((side, 1), (1, side))):
                pads = [each // 2 for each in shape] * 2
                plane = self.add("AveragePool", [plane], f"{name}_{number}_{axis}", kernel_shape=shape, pads=pads)
        return plane


def feature_graph(backbone: bytes, width: int, height: int) -> bytes:
    """The backbone for pictures of this size (multiples of 8), with features and contrast as outputs."""
    return _Network(backbone, (width, height)).finish({name: [None] * 4 for name in (FEATURES, CONTRAST)})


def camera_graph(backbone: bytes, size: tuple[int, int], memory: Memory, band: Band) -> bytes:
    """See the head of this file."""
    network = _Network(backbone, size)
    rows, columns = memory.weight.shape
    far = _unlike(network, memory)
    out = _outside(network, band)
    share = network.add("Max", [far, out, network.number("floor", _FLOOR)], "share")
    network.add("Mul", [network.add("Log", [share], "log"), network.number("steepness", STEEPNESS)], HEAT)
    hottest = network.add("ReduceMax", [HEAT, network.number("plane", [2, 3], np.int64)], "hottest", keepdims=0)
    network.add("Reshape", [hottest, network.number("single", [1, 1], np.int64)], SUSPICION)
    return network.finish({SUSPICION: [1, 1], HEAT: [1, 1, rows, columns]})


def _unlike(network: _Network, memory: Memory) -> str:
    """How far the features of each cell are from all good parts', as a share of the limit."""
    add = network.add
    rows, columns = memory.weight.shape
    _shifts(network, memory)
    good = add("DequantizeLinear", ["good_cells", "good_step", "good_zero"], "good")
    even = add("Conv", [FEATURES, network.number("basis", memory.basis[..., None, None])], "even")
    length = add("ReduceSum", [add("Mul", [even, even], "even_2"), "channel_axis"], "length", keepdims=1)
    wide, far_length = (
        add("Pad", [even, "ring"], "wide", mode="edge"),
        add("Pad", [length, "ring"], "length_wide", mode="edge"),
    )
    best = network.number("far_away", 1e9)
    minus_two = network.number("minus_two", -2.0)
    # One neighbour after the other, so that the memory of one is enough.
    for number in range(len(NEAR)):
        to = [f"from_{number}", f"to_{number}", "plane_axes"]
        seen = add("Reshape", [add("Slice", [wide, *to], f"view_{number}"), "by_place"], f"view_{number}_flat")
        seen = add("Transpose", [seen], f"seen_{number}", perm=[2, 1, 0])  # places × directions × 1
        dot = add("Mul", [add("MatMul", [good, seen], f"dot_{number}"), minus_two], f"twice_{number}")
        partly = add("ReduceMin", [add("Add", [dot, "good_length"], f"partly_{number}"), "middle"], f"least_{number}")
        plane = add("Reshape", [partly, "as_plane"], f"plane_{number}")
        square = add("Add", [plane, add("Slice", [far_length, *to], f"length_{number}")], f"square_{number}")
        # A distance belongs to the cell that was seen, not to the one that it was compared with.
        padded = add("Pad", [square, "ring", "far_away"], f"padded_{number}")
        back = add("Slice", [padded, f"back_from_{number}", f"back_to_{number}", "plane_axes"], f"back_{number}")
        best = add("Min", [best, back], f"best_{number}")
    safe = add("Max", [best, network.number("least", _FLOOR)], "best_safe")
    share = (memory.weight / memory.limit)[None, None]
    unusual = add("Mul", [add("Sqrt", [safe], "far"), network.number("weight", share)], "unusual")
    smooth = add("AveragePool", [unusual], "smooth", kernel_shape=[3, 3], pads=[1] * 4)
    inside = network.number("inside", memory.weight[None, None] > 0)
    return add("Mul", [smooth, inside], f"unlike_{rows}x{columns}")


def _shifts(network: _Network, memory: Memory) -> None:
    """The numbers for looking beside, and the good parts themselves."""
    rows, columns = memory.weight.shape
    directions = memory.cells.shape[2]
    integers = {
        "ring": [0, 0, 1, 1, 0, 0, 1, 1],
        "plane_axes": [2, 3],
        "channel_axis": [1],
        "by_place": [1, directions, rows * columns],
        "as_plane": [1, 1, rows, columns],
        "middle": [1],
    }
    for number, (down, across) in enumerate(NEAR):
        integers |= {
            f"from_{number}": [1 + down, 1 + across],
            f"to_{number}": [1 + down + rows, 1 + across + columns],
            f"back_from_{number}": [1 - down, 1 - across],
            f"back_to_{number}": [1 - down + rows, 1 - across + columns],
        }
    for name, value in integers.items():
        network.number(name, value, np.int64)
    real = memory.cells.astype(np.float32) * np.float32(memory.step)
    network.number("good_cells", memory.cells, np.int8)
    network.number("good_zero", 0, np.int8)
    network.number("good_step", memory.step)
    network.number("good_length", (real * real).sum(axis=2, keepdims=True))


def _outside(network: _Network, band: Band) -> str:
    """How far contrast lies outside of the good parts' band, as a share of the limit, largest of each cell."""
    add = network.add
    even = add("Mul", [CONTRAST, network.number("fine_scale", band.scale.reshape(1, -1, 1, 1))], "fine_even")
    under = add("Relu", [add("Sub", [network.large("low", band.low[None]), even], "below")], "under")
    over = add("Relu", [add("Sub", [even, network.large("high", band.high[None])], "above")], "over")
    outside = add("Add", [under, over], "outside")
    amount = add("ReduceL2", [outside, network.number("planes", [1], np.int64)], "amount", keepdims=1)
    weight = network.large("fine_weight", (band.weight / band.limit)[None, None])
    smooth = add("AveragePool", [add("Mul", [amount, weight], "odd")], "odd_smooth", kernel_shape=[3, 3], pads=[1] * 4)
    return add("MaxPool", [smooth], "odd_cells", kernel_shape=[STRIDE, STRIDE], strides=[STRIDE, STRIDE])


def _resized(backbone: bytes, width: int, height: int) -> Any:
    """It is convolutions and nothing else, so it works in any size: only its input says one."""
    import onnx  # noqa: PLC0415 - as above

    model = onnx.load_from_string(backbone)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[2].dim_value, sizes[3].dim_value = height, width
    del model.graph.value_info[:]
    return model


def _keep(model: Any, wanted: set[str]) -> None:
    """Only these outputs, and only the nodes and numbers that they need."""
    graph = model.graph
    needed, nodes = set(wanted), []
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    numbers = [each for each in graph.initializer if each.name in needed]
    for field, kept in ((graph.node, nodes[::-1]), (graph.initializer, numbers)):
        copies = [type(each).FromString(each.SerializeToString()) for each in kept]
        del field[:]
        field.extend(copies)
