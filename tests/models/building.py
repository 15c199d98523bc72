"""Small models and bundles, made here: a picture of one pixel is good or has a pit."""

from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from models import bundle, golden, judge, keys
from tests.models.make_fixtures import BIAS, WEIGHTS

HERE = Path(__file__).parent
FLOAT = TensorProto.FLOAT
WHITE, BLACK, RED, BLUE = (np.full((4, 4, 3), bgr, np.uint8) for bgr in (255, 0, (0, 0, 255), (255, 0, 0)))
VENDOR = Ed25519PrivateKey.from_private_bytes(b"v" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


def trusting(*signers):
    public = [signer.public_key() for signer in signers]
    return keys.Keys({keys.key_id(key): key for key in public}, {keys.key_id(key): "vendor" for key in public})


TRUSTED = trusting(VENDOR)


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(graph, opset=17, **more):
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more)


def pixel_model(weights=WEIGHTS, shape=(1, 3, 1, 1), opset=17):
    """The twin of ``pixel_fp32.tflite``, as an ONNX message."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["y"], transB=1),
    ]
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(BIAS, "b")]
    return model_of(helper.make_graph(nodes, "pixel", [value("x", shape)], [value("y", (1, 2))], tensors), opset)


def pixel_onnx(**how):
    return pixel_model(**how).SerializeToString()


def one_node(operator, *, shape=(1, 2), out=(1, 2), kind=FLOAT, **attributes):
    """A model of one operator from x to y."""
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "one", [value("x", shape)], [value("y", out, kind)])
    return model_of(graph).SerializeToString()


def card(**changes):
    """What ``card.yaml`` says, but for the hashes."""
    return {
        "name": "pixel",
        "version": 1,
        "task": "defect",
        "input": {"kind": "picture", "size": "1x1", "colour": "rgb", "mean": [127.5], "std": [127.5]},
        "outputs": {"activation": "softmax", "labels": ["good", "pit"], "good": ["good"]},
        "threshold": {"value": 0.5, "set_for": "a test"},
        "files": [{"name": "pixel.onnx", "format": "onnx", "precision": "fp32"}],
        "data": [{"name": "none", "licence": "own"}],
        **changes,
    }


def tflite(precision="int8"):
    return (HERE / f"pixel_{precision}.tflite").read_bytes()


def with_tflite():
    """A card with all variants of the pixel, and its files."""
    files = {"pixel.onnx": pixel_onnx(), "fp32.tflite": tflite("fp32"), "int8.tflite": tflite("int8")}
    entries = [
        {"name": "pixel.onnx", "format": "onnx", "precision": "fp32"},
        {"name": "fp32.tflite", "format": "tflite", "precision": "fp32"},
        {"name": "int8.tflite", "format": "tflite", "precision": "int8"},
    ]
    return card(files=entries), files


def golden_of(labels=("good", "defect", "good"), inputs=(WHITE, BLACK, WHITE)):
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=np.array(inputs), labels=np.array(labels, "<U16"))
    return buffer.getvalue()


def bundle_files(says=None, models=None, *, golden_data=None, key=VENDOR):
    """Signed files of a bundle that decides about a pixel."""
    draft = bundle.draft(says or card(), models or {"pixel.onnx": pixel_onnx()})
    return bundle.complete(draft, golden_data or golden_of(), key)


def bundle_of(version=1, **changes):
    """A verified bundle."""
    return bundle.verify(bundle_files(card(version=version, **changes)), TRUSTED)


def recorded(says, models, inputs):
    """A verified bundle whose golden decisions are its own."""
    draft = bundle.draft(says, models)
    data = golden.record(judge.build(draft), draft.card, np.array(inputs))
    return bundle.verify(bundle.complete(draft, data, VENDOR), TRUSTED)


def with_tensor(change):
    """The pixel's model after ``change`` of one of its tensors."""
    model = pixel_model()
    change(model.graph.initializer[0])
    return model.SerializeToString()
