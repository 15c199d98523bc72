"""Both runtimes behind one contract."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ModelError
from models import session
from models.session import Exit, Quantiser, Tensor
from tests.models.building import (
    FLOAT,
    TensorProto,
    helper,
    model_of,
    numpy_helper,
    one_node,
    pixel_onnx,
    tflite,
    value,
)
from tests.models.make_fixtures import BIAS, OUT_SCALE, WEIGHTS

X = np.array([[0.5, -1.0, 0.25]], np.float32)
Y = X @ WEIGHTS.T + BIAS


@pytest.mark.parametrize(
    ("format_", "data", "shape", "steps"),
    [
        ("onnx", pixel_onnx(), (1, 3, 1, 1), 0),
        ("tflite", tflite("fp32"), (1, 1, 1, 3), 0),
        ("tflite", tflite("int8"), (1, 1, 1, 3), 4),  # two runtimes may differ by so many
    ],
)
def test_real_numbers_go_in_and_come_out(format_, data, shape, steps):
    """Whoever asks gives and gets real numbers, whatever the file has inside."""
    loaded = session.load(format_, data)

    answer = loaded.run({loaded.inputs[0].name: X.reshape(shape)})

    assert [tensor.shape for tensor in loaded.inputs] == [shape]
    assert answer["y"].dtype == np.float32
    np.testing.assert_allclose(answer["y"], Y, atol=1e-6 + steps * OUT_SCALE)


def test_the_files_own_numbers_are_taken_as_they_are():
    """An int8 array for an int8 input is not quantised again."""
    loaded = session.load("tflite", tflite("int8"))
    own = Quantiser(loaded.inputs[0], (1, 1, 1, 3))(X.reshape(1, 1, 1, 3))

    np.testing.assert_array_equal(loaded.run({"x": own})["y"], loaded.run({"x": X.reshape(1, 1, 1, 3)})["y"])


def test_what_is_returned_belongs_to_the_caller():
    """A later answer does not change an earlier one."""
    for format_, data, shape in (("onnx", pixel_onnx(), (1, 3, 1, 1)), ("tflite", tflite("fp32"), (1, 1, 1, 3))):
        loaded = session.load(format_, data)
        first = loaded.run({"x": X.reshape(shape)})["y"]
        kept = first.copy()
        loaded.run({"x": np.ones(shape, np.float32)})

        np.testing.assert_array_equal(kept, first)


@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=8), st.floats(0.01, 100.0), st.integers(-128, 127))
def test_quantising_saturates_and_rounds_halves_to_even(numbers, scale, zero_point):
    """Every integer is the nearest to its real number, or the end of the range."""
    tensor = Tensor("x", (len(numbers),), "int8", scale, zero_point)
    exact = np.array(numbers, np.float32) / np.float32(scale)

    got = Quantiser(tensor, tensor.shape)(np.array(numbers, np.float32))

    expected = [max(-128, min(127, round(float(each)) + zero_point)) for each in exact]
    assert expected == got.tolist()


@given(st.integers(-128, 127), st.floats(2**-10, 8.0, width=32), st.integers(-128, 127))
def test_dequantising_is_undone_by_quantising(number, scale, zero_point):
    """Every integer of the file comes back as itself."""
    tensor = Tensor("x", (1,), "int8", scale, zero_point)

    assert Quantiser(tensor, (1,))(Exit(tensor)(np.array([number], np.int8))).tolist() == [number]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_what_is_beyond_goes_to_the_end(dtype):
    """Infinity too, and with 32 bits the end is the last number that a real one can name."""
    tensor = Tensor("x", (2,), dtype, 1.0, 0)
    limits = np.iinfo(dtype)

    low, high = Quantiser(tensor, (2,))(np.array([-np.inf, np.inf], np.float32)).tolist()

    assert low == limits.min
    assert limits.max - 127 <= high <= limits.max


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_every_number_of_the_file_has_its_real_one(dtype):
    """(number − zero point) · scale, for each of eight bits and for wider ones."""
    limits = np.iinfo(dtype)
    numbers = np.unique(np.linspace(limits.min, limits.max, 256).round().astype(dtype))
    tensor = Tensor("y", numbers.shape, dtype, 0.5, 3)

    real = Exit(tensor)(numbers)

    assert real.dtype == np.float32
    np.testing.assert_allclose(real, (numbers.astype(float) - 3) * 0.5, rtol=1e-6)


def test_a_nan_never_becomes_an_integer():
    """A NaN has no integer; it is refused, not cast."""
    with pytest.raises(ModelError, match="NaN"):
        Quantiser(Tensor("x", (2,), "int8", 0.5, 0), (2,))(np.array([0.0, np.nan], np.float32))


@pytest.mark.parametrize("number", [-1.0, 0.0])
def test_an_output_that_is_no_number_is_an_error(number):
    """log(-1) is NaN and log(0) is infinite: neither may pass for a score."""
    loaded = session.load("onnx", one_node("Log"))

    with pytest.raises(ModelError, match="not a number"):
        loaded.run({"x": np.array([[1.0, number]], np.float32)})


def test_very_large_outputs_are_numbers():
    """Finite numbers whose squares overflow are still numbers."""
    loaded = session.load("onnx", one_node("Identity"))

    assert loaded.run({"x": np.array([[3e38, -3e38]], np.float32)})["y"].tolist() == [
        [np.float32(3e38), -np.float32(3e38)]
    ]


@pytest.mark.parametrize("shape", [(1, "n"), ("batch", 3), (1, 0), (0,)])
def test_only_fixed_shapes(shape):
    """A model of dynamic or empty shape is refused, with what to do."""
    with pytest.raises(ModelError, match=r"no fixed shape.*fixed sizes"):
        session.load("onnx", one_node("Relu", shape=shape, out=None))


def test_an_output_may_not_change_its_shape():
    """A size that depends on the numbers is not the one that the warm-up showed."""
    nodes = [helper.make_node("Add", ["x", "one"], ["z"]), helper.make_node("NonZero", ["z"], ["y"])]
    one = numpy_helper.from_array(np.ones((1, 2), np.float32), "one")
    graph = helper.make_graph(nodes, "g", [value("x", (1, 2))], [value("y", None, TensorProto.INT64)], [one])
    loaded = session.load("onnx", model_of(graph).SerializeToString())

    assert loaded.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[0, 0], [0, 1]]
    with pytest.raises(ModelError, match="failed"):
        loaded.run({"x": -np.ones((1, 2), np.float32)})
    assert loaded.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[0, 0], [0, 1]]


def test_an_output_of_any_form_comes_back():
    """A single number, what was put in, a constant of the file, whole numbers and truths: each in memory of its own."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Greater", ["x", "fixed"], ["more"]),
    ]
    outputs = [
        value("sum", ()),
        value("same", (1, 2)),
        value("fixed", (1, 2)),
        value("whole", (1, 2), TensorProto.INT64),
        value("more", (1, 2), TensorProto.BOOL),
    ]
    fixed = numpy_helper.from_array(np.array([[2.0, 3.0]], np.float32), "fixed")
    graph = helper.make_graph(nodes, "g", [value("x", (1, 2))], outputs, [fixed])
    loaded = session.load("onnx", model_of(graph).SerializeToString())

    for x in ([[1.0, 4.0]], [[5.0, -1.0]]):
        said = {name: each.tolist() for name, each in loaded.run({"x": np.array(x, np.float32)}).items()}

        assert said == {
            "sum": sum(x[0]),
            "same": x,
            "fixed": [[2.0, 3.0]],
            "whole": [[int(each) for each in x[0]]],
            "more": [[x[0][0] > 2, x[0][1] > 3]],
        }


@pytest.mark.parametrize("format_", ["onnx", "tflite"])
def test_an_input_may_lie_in_memory_as_it_likes(format_):
    """A part of a larger array, one that nobody may write, and one that is changed between two calls."""
    data, shape = (pixel_onnx(), (1, 3, 1, 1)) if format_ == "onnx" else (tflite("fp32"), (1, 1, 1, 3))
    loaded = session.load(format_, data)
    reused = np.zeros(shape, np.float32)
    apart = np.zeros((*shape, 2), np.float32)[..., 0]
    for number in (0.25, -0.5):
        plain = np.full(shape, number, np.float32)
        expected = loaded.run({"x": plain})["y"].tolist()
        reused[:] = apart[:] = number
        frozen = plain.copy()
        frozen.flags.writeable = False

        assert [loaded.run({"x": each})["y"].tolist() for each in (reused, apart, frozen)] == [expected] * 3


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "'x' was not given"),
        ({"x": np.zeros((1, 4), np.float32)}, r"wants the shape \(1, 2\), not \(1, 4\)"),
        ({"x": np.zeros((1, 2), np.int64)}, "wants float32, not int64"),
        ({"x": np.zeros((1, 2), object)}, "wants float32, not object"),
    ],
)
def test_what_does_not_fit_is_named(feeds, message):
    """A wrong or missing input says what was wanted."""
    with pytest.raises(ModelError, match=message):
        session.load("onnx", one_node("Relu")).run(feeds)


def test_real_numbers_of_any_width_fit_a_real_input():
    """float64 goes into a float32 input."""
    assert session.load("onnx", one_node("Relu")).run({"x": np.array([[-1.0, 2.0]])})["y"].tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize("format_", ["onnx", "tflite"])
@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"no model at all" * 10])
def test_what_is_no_model_is_refused(format_, data):
    """Whatever the runtime raises becomes a ModelError."""
    with pytest.raises(ModelError, match="refuses the model"):
        session.load(format_, data)


def test_a_refused_model_says_nothing_on_standard_output(capfd):
    """Names that are no text: the runtime must not talk where others read answers, nor let its own error out."""
    for name in (b"x", b"y"):
        with pytest.raises(ModelError):
            session.load("onnx", pixel_onnx().replace(b"\x0a\x01" + name, b"\x0a\x01\xff"))

    assert not capfd.readouterr().out


def test_an_input_whose_name_is_no_text_is_refused():
    """The runtime hands such a name out and fails only when it is looked at."""
    with pytest.raises(ModelError, match="utf-8"):
        session.load("onnx", one_node("Relu").replace(b"\x01x", b"\x01\xff"))


def test_text_is_no_number():
    """A model that wants strings is refused by its type."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "text",
        [value("x", (1,), TensorProto.STRING)],
        [value("y", (1,), TensorProto.STRING)],
    )
    with pytest.raises(ModelError, match="no plain array of numbers"):
        session.load("onnx", model_of(graph).SerializeToString())


def test_a_failure_while_running_is_a_model_error():
    """A division of integers by zero in the runtime, or an index that is not there, is contained."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "i"], ["y"])],
        "gather",
        [value("t", (2,)), value("i", (1,), TensorProto.INT64)],
        [value("y", (1,), FLOAT)],
    )
    loaded = session.load("onnx", model_of(graph).SerializeToString())

    with pytest.raises(ModelError, match="failed"):
        loaded.run({"t": np.zeros(2, np.float32), "i": np.array([7])})


def test_inputs_and_outputs_are_there_and_have_names_of_their_own():
    """A model that says nothing cannot be asked."""
    graph = helper.make_graph([], "mute", [value("x", (1,))], [])
    with pytest.raises(ModelError):
        session.load("onnx", model_of(graph).SerializeToString())
    one, none = np.array([1, 3], np.int32).tobytes(), np.array([0, 3], np.int32).tobytes()
    at = tflite().index(one)  # the outputs of the subgraph: one, number 3
    with pytest.raises(ModelError, match="no inputs or outputs"):
        session.load("tflite", tflite()[:at] + none + tflite()[at + 8 :])


def test_an_output_that_nothing_writes_is_a_model_error():
    """A file whose outputs are not what its operators make is found out when they are read."""
    data = bytearray(tflite("fp32"))
    data[114] = 0  # found by mutating: the runtime builds it, invokes it, and has nothing to show

    loaded = session.load("tflite", bytes(data))

    with pytest.raises(ModelError, match="TFLite failed"):
        loaded.run({"x": X.reshape(1, 1, 1, 3)})


def test_an_unknown_format_is_named():
    """There are two formats."""
    with pytest.raises(ModelError, match="onnx, tflite"):
        session.load("pickle", b"")


@settings(max_examples=20)
@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
def test_the_runtimes_agree(pixel):
    """ONNX and TFLite give the same numbers, int8 within its steps."""
    numbers = np.array(pixel, np.float32)
    onnx = session.load("onnx", pixel_onnx()).run({"x": numbers.reshape(1, 3, 1, 1)})["y"]
    real = session.load("tflite", tflite("fp32")).run({"x": numbers.reshape(1, 1, 1, 3)})["y"]
    int8 = session.load("tflite", tflite("int8")).run({"x": numbers.reshape(1, 1, 1, 3)})["y"]

    np.testing.assert_allclose(real, onnx, atol=1e-5)
    np.testing.assert_allclose(int8, onnx, atol=4 * OUT_SCALE)
