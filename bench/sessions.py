"""What a judgement costs beyond the bare call of the runtime, at batch 1: ``python -m bench.sessions [MODEL…]``.

For every runtime fixture, every shipped bundle and a calibrated line's network:

``session``   our session over what anybody would have to write: the bare call with the same real numbers, quantised
              and dequantised by NumPy where the file is int8
``native``    our session over the bare call, both with the file's own numbers
``judge``     the whole judgement of a good picture (channels, scaling, session, shares) over the bare call with
              ready numbers; a defect is also told its place, which costs some 0.1 ms

Processor time of this thread in blocks that take turns, so that a busy machine hits all alike; the ratio is the median
over blocks, and over several sessions of each kind: where a runtime happens to find its memory makes 4 % on its own.
Exit code 1: one of the three is above 1.2. Networks that take less than ``FLOOR_US`` are shown and not counted: there
the ten or twenty calls into NumPy that checking and quantising need are longer than the network.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from drivers import opencv
from models import bundle, golden, judge, keys, session
from models.card import Card
from models.defect import PictureJudge
from models.releases import SHIPPED
from models.train.graphs import line_graph

DATA = Path(os.environ.get("EDGE_AGENT_DATA", "../shared/data")) / "runtime_fixtures"
LARGEST = 1.2
FLOOR_US = 5.0
BLOCKS = 25
BLOCK_S = 0.004
EACH = 3


def bare_onnx(data):
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = runtime.get_inputs()[0].name
    return lambda x: runtime.run(None, {name: x})


def bare_tflite(data):
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415
    except ImportError:
        from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415
    runtime = Interpreter(model_content=data, num_threads=1)
    runtime.allocate_tensors()
    (into,), out = runtime.get_input_details(), runtime.get_output_details()

    def run(x):
        runtime.set_tensor(into["index"], x)
        runtime.invoke()
        return [runtime.get_tensor(each["index"]) for each in out]

    return run


BARE = {"onnx": bare_onnx, "tflite": bare_tflite}


def by_hand(loaded, run):
    """Real numbers in and out, as everybody writes it."""
    (into,), out = loaded.inputs, loaded.outputs
    limits = np.iinfo(into.dtype) if into.scale else None

    def call(x):
        if into.scale:
            x = np.clip(np.round(x / into.scale) + into.zero_point, limits.min, limits.max).astype(into.dtype)
        said = zip(out, run(x), strict=True)
        return [(y.astype(np.float32) - each.zero_point) * each.scale if each.scale else y for each, y in said]

    return call


def ratios(calls):
    """Of each call to the first: the median over blocks that take turns; and the first in microseconds."""
    for call in calls:
        call()
    began = time.thread_time()
    calls[0]()
    repeat = max(1, int(BLOCK_S / max(1e-7, time.thread_time() - began)))
    times = [[] for _ in calls]
    for _ in range(BLOCKS):
        for number, call in enumerate(calls):
            call()  # whose turn it is has been out of the caches
            began = time.thread_time()
            for _ in range(repeat):
                call()
            times[number].append((time.thread_time() - began) / repeat)
    paired = [statistics.median(one / bare for one, bare in zip(each, times[0], strict=True)) for each in times]
    return paired, statistics.median(times[0]) * 1e6


def picture_judge(path, loaded):
    """A judge of pictures around a network that takes some, else None."""
    tensor = loaded.inputs[0]
    if len(tensor.shape) != 4 or 3 not in (tensor.shape[1], tensor.shape[3]):
        return None
    nchw = tensor.shape[1] == 3
    height, width = tensor.shape[2:] if nchw else tensor.shape[1:3]
    labels = [f"class {number}" for number in range(int(np.prod(loaded.outputs[0].shape)))]
    std = 1 if tensor.scale == 1.0 else 255  # what its numbers are is written in the file
    card = Card.model_validate(
        {
            "name": "bench",
            "version": 1,
            "task": "defect",
            "input": {"kind": "picture", "size": f"{width}x{height}", "colour": "rgb", "std": [std]},
            "outputs": {"labels": labels, "good": labels[:1]},
            "threshold": {"value": 0.5, "set_for": "nothing"},
            "files": [{"name": path.name, "format": path.suffix[1:], "precision": "fp32", "sha256": "0" * 64}],
            "data": [{"name": "none", "licence": "none"}],
        }
    )
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return PictureJudge(card, card.files[0], PictureJudge.Parameters(), loaded), image


def good_picture(found):
    """One of its golden samples, as large as the model wants it: what nearly all pictures are like."""
    kept = golden.read(found.golden)
    return opencv.resize(kept.inputs[kept.labels.tolist().index("good")], *found.card.input.size)


def subjects():
    """Name, format, bytes, and how a session of it becomes a judge and the picture that it judges, or None."""
    for path in sorted([*DATA.glob("*/*.onnx"), *DATA.glob("*/*.tflite")]):
        if path.name != "person_detect.tflite":
            yield path.name, path.suffix[1:], path.read_bytes(), lambda loaded, path=path: picture_judge(path, loaded)
    trusted = keys.trusted(folders=[keys.SHIPPED])
    for folder in sorted(path for path in SHIPPED.iterdir() if path.is_dir()):
        found = bundle.load(folder, trusted)
        image = good_picture(found)
        for file in found.card.files:
            made = judge.build(found, file.variant)
            yield (
                f"{folder.name}/{file.name}",
                file.format,
                found.files[file.name],
                lambda _, made=made, image=image: (made, image),
            )
    for quantities, precision in ((10, "int8"), (10, "fp32"), (40, "int8")):
        data = line_graph(quantities, 1, precision)
        yield f"line of {quantities}, {precision}.onnx", "onnx", data, lambda _: None


def measure(name, format_, data, judged):
    """The line for one network, and whether it is as it should be."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(EACH):
        bare, loaded = BARE[format_](data), session.load(format_, data)
        tensor = loaded.inputs[0]
        real = draw.random(tensor.shape).astype(np.float32)
        own = session.Entry(tensor)({tensor.name: real}).copy()
        hand = by_hand(loaded, bare)
        calls = [
            lambda bare=bare, own=own: bare(own),
            lambda hand=hand, real=real: hand(real),
            lambda run=loaded.run, feeds={tensor.name: real}: run(feeds),
            lambda run=loaded.run, feeds={tensor.name: own}: run(feeds),
        ]
        around = judged(loaded)
        if around is not None:
            decider, image = around
            calls.append(lambda decider=decider, image=image: decider.judge(image))
        (_, hand_s, real_s, native_s, *judge_s), bare_us = ratios(calls)
        found.append([bare_us, real_s / hand_s, native_s, *judge_s])
    bare_us, *costs = (statistics.median(each) for each in zip(*found, strict=True))
    good = max(costs) <= LARGEST
    small = bare_us < FLOOR_US
    words = "   ".join(f"{what} {cost:5.2f}" for what, cost in zip(("session", "native", "judge"), costs, strict=False))
    mark = "ok   " if good else "small" if small else "BAD  "
    return f"{mark} {name:30} bare {bare_us:9.1f} us   {words}", good or small


def main():
    names, failed = sys.argv[1:], 0
    for name, *subject in subjects():
        if not names or any(each in name for each in names):
            line, good = measure(name, *subject)
            failed += not good
            print(line, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
