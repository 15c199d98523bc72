"""What a judgement costs beyond the bare call of the runtime, at batch 1: ``python -m bench.sessions [MODEL…]``.

Our session over the bare call with the same real numbers (the bare one quantises by hand where the file is int8, as
anybody would have to); and the whole judgement of a picture (channels, scaling, quantising, session, softmax) over
the bare call with ready numbers. Processor time of this thread, lower quartile of blocks that take turns: a busy
machine hits all alike.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from models import session
from models.card import Card
from models.defect import PictureJudge

DATA = Path(os.environ.get("EDGE_AGENT_DATA", "../shared/data")) / "runtime_fixtures"
BLOCKS = 40


def bare_onnx(data):
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = runtime.get_inputs()[0].name
    return lambda x: runtime.run(None, {name: x})[0]


def bare_tflite(data):
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415
    except ImportError:
        from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415
    runtime = Interpreter(model_content=data, num_threads=1)
    runtime.allocate_tensors()
    (into,), (out,) = runtime.get_input_details(), runtime.get_output_details()

    def run(x):
        runtime.set_tensor(into["index"], x)
        runtime.invoke()
        return runtime.get_tensor(out["index"])

    return run


def by_hand(tensor, run):
    """Quantising as everybody writes it."""
    if not tensor.scale:
        return run
    limits = np.iinfo(tensor.dtype)
    return lambda x: run(
        np.clip(np.round(x / tensor.scale) + tensor.zero_point, limits.min, limits.max).astype(tensor.dtype)
    )


def quartiles(*calls):
    """Seconds per call, each measured in blocks that take turns."""
    for call in calls:
        call()
    began = time.thread_time()
    calls[0]()
    repeat = max(1, int(0.002 / max(1e-7, time.thread_time() - began)))
    times = [[] for _ in calls]
    for _ in range(BLOCKS):
        for number, call in enumerate(calls):
            began = time.thread_time()
            for _ in range(repeat):
                call()
            times[number].append((time.thread_time() - began) / repeat)
    return [statistics.quantiles(each, n=4)[0] for each in times]


def picture_judge(path, loaded):
    """A judge of pictures around the model, where it takes some."""
    tensor = loaded.inputs[0]
    if len(tensor.shape) != 4 or 3 not in (tensor.shape[1], tensor.shape[3]):
        return None
    nchw = tensor.shape[1] == 3
    height, width = tensor.shape[2:] if nchw else tensor.shape[1:3]
    labels = [f"class {number}" for number in range(int(np.prod(loaded.outputs[0].shape)))]
    card = Card.model_validate(
        {
            "name": "bench",
            "version": 1,
            "task": "defect",
            "input": {"kind": "picture", "size": f"{width}x{height}", "colour": "rgb", "std": [255]},
            "outputs": {"labels": labels, "good": labels[:1]},
            "threshold": {"value": 0.5, "set_for": "nothing"},
            "files": [{"name": path.name, "format": path.suffix[1:], "precision": "fp32", "sha256": "0" * 64}],
            "data": [{"name": "none", "licence": "none"}],
        }
    )
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return PictureJudge(card, card.files[0], PictureJudge.Parameters(), loaded), image


def measure(path):
    data = path.read_bytes()
    loaded = session.load(path.suffix[1:], data)
    tensor = loaded.inputs[0]
    bare = (bare_onnx if path.suffix == ".onnx" else bare_tflite)(data)
    real = np.random.default_rng(0).random(tensor.shape).astype(np.float32)
    own = session.native(tensor, real)
    hand = by_hand(tensor, bare)
    calls = [lambda: bare(own), lambda: hand(real), lambda: loaded.run({tensor.name: real})]
    found = picture_judge(path, loaded)
    if found:
        judge, image = found
        calls.append(lambda: judge.judge(image))
    raw_s, hand_s, ours_s, *judged = quartiles(*calls)
    line = f"{path.name:26} bare {raw_s * 1e6:9.1f} us   session / the same by hand {ours_s / hand_s:5.2f}"
    return (
        line
        + f"   session / bare {ours_s / raw_s:5.2f}"
        + "".join(f"   judge / bare {each / raw_s:5.2f}" for each in judged)
    )


def main():
    names = sys.argv[1:]
    for path in sorted([*DATA.glob("*/*.onnx"), *DATA.glob("*/*.tflite")]):
        if path.name != "person_detect.tflite" and (not names or path.stem in names):
            print(measure(path), flush=True)


if __name__ == "__main__":
    main()
