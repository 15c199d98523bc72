"""How the TFLite files of these tests were made: ``python -m tests.models.make_fixtures``, with flatbuffers.

A TFLite model that classifies a picture of one pixel by one FULLY_CONNECTED, red, green, blue → good, pit, written
by hand with the schema's field numbers, so that neither TensorFlow nor a converter is needed. Pixels from -1 to 1.
"""

from pathlib import Path

import flatbuffers
import numpy as np

HERE = Path(__file__).parent
WEIGHTS = np.array([[1.0, 2.0, 0.5], [-1.0, -0.5, -2.0]], np.float32)
BIAS = np.array([0.25, -0.25], np.float32)
FULLY_CONNECTED = 9
FLOAT32, INT32, INT8 = 0, 2, 9
IN_SCALE, WEIGHT_SCALE, OUT_SCALE = 1 / 127, 2 / 127, 4 / 127


def table(b, slots):
    """``slots``: field → (kind, value); offsets must exist already."""
    b.StartObject(max(slots, default=-1) + 1)
    for field, (kind, value) in slots.items():
        getattr(b, f"Prepend{kind}Slot")(field, value, 0)
    return b.EndObject()


def vector(b, offsets):
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def numbers(b, array):
    return b.CreateNumpyVector(np.asarray(array))


def tensor(b, name, shape, kind, buffer, scale=None, zero=0):
    quantisation = 0
    slots = {
        0: ("UOffsetTRelative", numbers(b, np.array(shape, np.int32))),
        1: ("Int8", kind),
        2: ("Uint32", buffer),
        3: ("UOffsetTRelative", b.CreateString(name)),
    }
    if scale is not None:
        scales, zeros = numbers(b, np.array([scale], np.float32)), numbers(b, np.array([zero], np.int64))
        quantisation = table(b, {2: ("UOffsetTRelative", scales), 3: ("UOffsetTRelative", zeros)})
        slots[4] = ("UOffsetTRelative", quantisation)
    return table(b, slots)


def pixel(*, int8):
    """The model's bytes."""
    b = flatbuffers.Builder(2048)
    if int8:
        weights = np.rint(WEIGHTS / WEIGHT_SCALE).astype(np.int8)
        bias = np.rint(BIAS / (IN_SCALE * WEIGHT_SCALE)).astype(np.int32)
        kinds, scales = (INT8, INT8, INT32, INT8), (IN_SCALE, WEIGHT_SCALE, IN_SCALE * WEIGHT_SCALE, OUT_SCALE)
        version = 4
    else:
        weights, bias = WEIGHTS, BIAS
        kinds, scales, version = (FLOAT32,) * 4, (None,) * 4, 1
    data = [numbers(b, np.frombuffer(array.tobytes(), np.uint8)) for array in (weights, bias)]
    buffers = [table(b, {}), *(table(b, {0: ("UOffsetTRelative", each)}) for each in data)]
    rows = (("x", [1, 1, 1, 3], 0), ("w", [2, 3], 1), ("b", [2], 2), ("y", [1, 2], 0))
    tensors = [
        tensor(b, name, shape, kind, buffer, scale, 0)
        for (name, shape, buffer), kind, scale in zip(rows, kinds, scales, strict=True)
    ]
    inputs, outputs = numbers(b, np.array([0, 1, 2], np.int32)), numbers(b, np.array([3], np.int32))
    options = table(b, {0: ("Int8", 0)})
    operator = table(
        b,
        {
            1: ("UOffsetTRelative", inputs),
            2: ("UOffsetTRelative", outputs),
            3: ("Uint8", 8),  # the options are those of FULLY_CONNECTED
            4: ("UOffsetTRelative", options),
        },
    )
    slots = {
        0: vector(b, tensors),
        1: numbers(b, np.array([0], np.int32)),
        2: numbers(b, np.array([3], np.int32)),
        3: vector(b, [operator]),
    }
    subgraph = table(b, {field: ("UOffsetTRelative", offset) for field, offset in slots.items()})
    code = table(b, {0: ("Int8", FULLY_CONNECTED), 2: ("Int32", version), 3: ("Int32", FULLY_CONNECTED)})
    fields = {1: vector(b, [code]), 2: vector(b, [subgraph]), 4: vector(b, buffers)}
    model = table(b, {0: ("Uint32", 3)} | {field: ("UOffsetTRelative", offset) for field, offset in fields.items()})
    b.Finish(model, file_identifier=b"TFL3")
    return bytes(b.Output())


if __name__ == "__main__":
    (HERE / "pixel_fp32.tflite").write_bytes(pixel(int8=False))
    (HERE / "pixel_int8.tflite").write_bytes(pixel(int8=True))
