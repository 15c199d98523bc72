"""No model reaches a runtime that refers to anything outside of its own bytes."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import BundleError
from models import onnx_guard, tflite_guard
from tests.models.building import (
    FLOAT,
    TensorProto,
    helper,
    model_of,
    numpy_helper,
    pixel_model,
    pixel_onnx,
    tflite,
    value,
)


def outside(name="t"):
    """A tensor whose data is in another file."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return tensor


def only_location():
    return TensorProto(name="t", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)


def only_entries():
    tensor = outside()
    tensor.ClearField("data_location")
    return tensor


def graph_with(*, nodes=(), initializer=(), sparse=()):
    return helper.make_graph(
        list(nodes), "g", [value("x", (1,))], [value("y", (1,))], list(initializer), sparse_initializer=list(sparse)
    )


def sparse_of(values, indices=None):
    here = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    return onnx.SparseTensorProto(values=values, indices=indices or here, dims=[1])


def constant(**attribute):
    return helper.make_node("Constant", [], ["c"], **attribute)


def body(operator, **graphs):
    return helper.make_node(operator, ["x"], ["y"], **graphs)


def hidden(where):
    """A model with external data, hidden there."""
    inner = graph_with(nodes=[constant(value=outside())])
    deep = graph_with(nodes=[body("If", then_branch=inner, else_branch=inner)])
    models = {
        "initializer": model_of(graph_with(initializer=[outside()])),
        "location alone": model_of(graph_with(initializer=[only_location()])),
        "entries alone": model_of(graph_with(initializer=[only_entries()])),
        "sparse values": model_of(graph_with(sparse=[sparse_of(outside())])),
        "sparse indices": model_of(
            graph_with(sparse=[sparse_of(numpy_helper.from_array(np.zeros(1, np.float32), "v"), outside())])
        ),
        "constant": model_of(graph_with(nodes=[constant(value=outside())])),
        "constants": model_of(graph_with(nodes=[helper.make_node("Odd", [], ["c"], values=[outside()])])),
        "sparse constant": model_of(graph_with(nodes=[constant(sparse_value=sparse_of(outside()))])),
        "if": model_of(graph_with(nodes=[body("If", then_branch=inner, else_branch=graph_with())])),
        "loop": model_of(graph_with(nodes=[body("Loop", body=inner)])),
        "scan": model_of(graph_with(nodes=[body("Scan", body=inner)])),
        "graphs": model_of(graph_with(nodes=[helper.make_node("Odd", [], ["c"], bodies=[graph_with(), inner])])),
        "if in if": model_of(graph_with(nodes=[body("If", then_branch=deep, else_branch=deep)])),
    }
    if where in models:
        return models[where]
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [constant(value=outside())], [helper.make_opsetid("", 17)], ["alpha"]
    )
    if where == "default of a function":
        del function.node[:]
        function.attribute_proto.add(name="beta", type=onnx.AttributeProto.TENSOR, t=outside())
    return model_of(graph_with(), functions=[function])


PLACES = [
    "initializer",
    "location alone",
    "entries alone",
    "sparse values",
    "sparse indices",
    "constant",
    "constants",
    "sparse constant",
    "if",
    "loop",
    "scan",
    "graphs",
    "if in if",
    "function",
    "default of a function",
]


@pytest.mark.parametrize("where", PLACES)
def test_external_data_is_found_wherever_it_hides(where):
    """Every place in which ONNX can keep a tensor is looked at."""
    with pytest.raises(BundleError, match="another file"):
        onnx_guard.check(hidden(where).SerializeToString())


def test_a_second_graph_is_looked_at_too():
    """Protobuf merges a field that stands twice; so does whoever wants to hide something."""
    hiding = onnx.ModelProto(graph=onnx.GraphProto(initializer=[outside()])).SerializeToString()

    for data in (pixel_onnx() + hiding, hiding + pixel_onnx()):
        with pytest.raises(BundleError, match="another file"):
            onnx_guard.check(data)


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def test_a_tag_that_overflows_is_no_hiding_place():
    """Protobuf reads only the lower 32 bits of a tag; a longer one is refused."""
    hiding = onnx.GraphProto(initializer=[outside()]).SerializeToString()
    tag = varint((7 << 3 | 2) + (1 << 32))

    with pytest.raises(BundleError, match="impossible field"):
        onnx_guard.check(pixel_onnx() + tag + varint(len(hiding)) + hiding)


def test_training_information_is_refused():
    """It holds graphs that nobody needs who decides."""
    model = pixel_model()
    model.training_info.add().initialization.initializer.append(outside())

    with pytest.raises(BundleError, match="training"):
        onnx_guard.check(model.SerializeToString())


@pytest.mark.parametrize("opset", [0, 6, 27, 1 << 40])
def test_only_known_opsets(opset):
    """An opset that nobody has tested is refused, with those that are not."""
    with pytest.raises(BundleError, match=f"opset {opset} .*7 to 26"):
        onnx_guard.check(pixel_onnx(opset=opset))


def test_the_runtimes_own_format_is_not_onnx():
    """ONNX Runtime would read its own format too, past this guard."""
    with pytest.raises(BundleError, match="own format"):
        onnx_guard.check(b"\x18\0\0\0ORTM" + bytes(100))


def test_plain_models_pass():
    """A guard that refuses everything would guard nothing."""
    onnx_guard.check(pixel_onnx())
    for precision in ("fp32", "int8"):
        tflite_guard.check(tflite(precision))


def test_depth_is_limited():
    """Many bodies inside each other end in an error, not in a stack overflow."""
    graph = graph_with()
    for _ in range(30):
        graph = graph_with(nodes=[body("If", then_branch=graph)])

    with pytest.raises(BundleError, match="too deeply"):
        onnx_guard.check(model_of(graph).SerializeToString())


def test_the_number_of_parts_is_limited(monkeypatch):
    """A model of a million empty fields does not keep anybody busy."""
    monkeypatch.setattr(onnx_guard, "_MOST_FIELDS", 1000)

    with pytest.raises(BundleError, match="too many parts"):
        onnx_guard.check(b"\x08\x01" * 2000)


@given(st.data())
def test_every_prefix_of_a_model_is_judged(data):
    """A model that was cut off passes or is refused; nothing else happens."""
    for whole, guard in ((pixel_onnx(), onnx_guard), (tflite(), tflite_guard)):
        part = whole[: data.draw(st.integers(0, len(whole)))]
        try:
            guard.check(part)
        except BundleError:
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_judged(data):
    """Nothing but a BundleError comes out, whatever goes in."""
    for guard, head in ((onnx_guard, b""), (tflite_guard, b"\x1c\0\0\0TFL3")):
        try:
            guard.check(head + data)
        except BundleError:
            continue


@given(st.lists(st.tuples(st.integers(8, 663), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_flatbuffer_is_judged(changes):
    """Offsets that lead anywhere are noticed before they are followed."""
    data = bytearray(tflite())
    for at, byte in changes:
        data[at] = byte
    try:
        tflite_guard.check(bytes(data))
    except BundleError:
        return
    assert data[4:8] == b"TFL3"


# --- TFLite


def changed(find, becomes, *, count=1):
    data = tflite()
    assert data.count(find) >= count
    return data.replace(find, becomes, count)


def test_a_custom_operator_is_refused():
    """Operator 32 is what a plug-in would bring."""
    from tests.models import make_fixtures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_fixtures, "FULLY_CONNECTED", 32)
        data = make_fixtures.pixel(int8=False)

    with pytest.raises(BundleError, match="not part of TFLite"):
        tflite_guard.check(data)


def rebuilt(**changes):
    """The pixel's model with other parts; see ``make_fixtures``."""
    from tests.models import make_fixtures

    plain = make_fixtures.table

    def table(b, slots):
        return plain(b, changes["table"](dict(slots)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_fixtures, "table", table)
        return make_fixtures.pixel(int8=True)


def is_tensor(slots):
    return slots.get(2, ("",))[0] == "Uint32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {10: ("Uint32", 1)} if is_tensor(s) else s, "another file"),
        (lambda s: s | {1: ("Uint64", 600), 2: ("Uint64", 9)} if len(s) == 1 and 0 in s else s, "outside of its"),
        (lambda s: s | {2: ("Uint32", 99)} if is_tensor(s) else s, "a buffer that it does not have"),
        (lambda s: s | {6: ("Int32", 3)} if set(s) == {2, 3} else s, "quantised along dimension 3"),
        (lambda s: s | {0: ("Uint32", 7)} if s.get(0, ("",))[0] == "Uint32" else s, "another version"),
    ],
)
def test_what_is_odd_in_a_tflite_file_is_named(change, message):
    """External tensors and buffers, wrong indices, and what old converters wrote."""
    with pytest.raises(BundleError, match=message):
        tflite_guard.check(rebuilt(table=change))
