"""Models that we did not make, through our sessions: ``python -m bench.fixtures``.

The folder ``runtime_fixtures`` in EDGE_AGENT_DATA (default ``../shared/data``) has models with expected outputs.
One line per model: agreement of decisions (the largest output; of an autoencoder its distance from its input) and the
largest difference (int8: in steps), or why it is refused.
"""

import os
import sys
from pathlib import Path

import numpy as np

from edge_agent.errors import ModelError
from models import onnx_guard, session, tflite_guard

DATA = Path(os.environ.get("EDGE_AGENT_DATA", "../shared/data")) / "runtime_fixtures"
GUARDS = {"onnx": onnx_guard.check, "tflite": tflite_guard.check}
MUST_BE_REFUSED = {"person_detect.tflite"}

# Kernels round differently. When 32 bits become 8 again, TFLite's optimised kernels (all that tflite-runtime 2.14 has
# for int8) round twice; XNNPACK and the reference kernels of today round once, as the expected outputs were made. It
# is no matter of versions: today's runtime without XNNPACK gives the very same numbers as the old one.
STEPS = 4.5
# What such steps make of an autoencoder's distance: at most 2.4 % over the 14 samples of ad01. Becoming int8 changed
# the same distances by 0.4 to 13 % (half of them by more than 5.5 %), and healthy machines differ by 13 % anyway.
DISTANCE = 0.05


def samples(path, loaded):
    """Inputs and expected outputs in real numbers; None where a model comes without."""
    if path.suffix == ".onnx":
        import onnx  # noqa: PLC0415 - for two of them
        from onnx import numpy_helper  # noqa: PLC0415

        message = onnx.TensorProto()
        message.ParseFromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
        shape = loaded.inputs[0].shape
        count = int(np.prod(shape))
        return (np.arange(count, dtype=np.float32) / count).reshape(1, *shape), numpy_helper.to_array(message)[None]
    arrays = path.with_name(f"{path.stem}_io.npz")
    if not arrays.exists():
        return None
    with np.load(arrays) as found:
        return found["x"], found["y"]


def compare(path):
    """The line for one model, and whether it is as it should be."""
    format_ = path.suffix[1:]
    data = path.read_bytes()
    try:
        GUARDS[format_](data)
        loaded = session.load(format_, data)
    except ModelError as error:
        return f"refused: {error}", path.name in MUST_BE_REFUSED
    found = samples(path, loaded)
    if found is None:
        return "loads", path.name not in MUST_BE_REFUSED
    given, into = loaded.inputs[0], loaded.outputs[0]
    same, worst = 0, 0.0
    for x, y in zip(*found, strict=True):
        answer = loaded.run({given.name: x.reshape(given.shape)})[into.name].reshape(-1)
        expected = y.reshape(-1).astype(np.float64)
        if into.scale:
            expected = (expected - into.zero_point) * into.scale
        if given.shape == into.shape and len(answer) > 1:  # an autoencoder: how far it is from its input decides
            seen = (
                x.reshape(-1)
                if not given.scale
                else (x.reshape(-1).astype(np.float64) - given.zero_point) * given.scale
            )
            one, other = (float(((each - seen) ** 2).mean()) for each in (answer, expected))
            same += abs(one - other) < DISTANCE * other
        else:
            same += int(answer.argmax() == expected.argmax())
        worst = max(worst, float(np.abs(answer - expected).max()))
    count = len(found[0])
    if into.scale:
        steps = worst / into.scale
        return f"{same} of {count} decisions agree, at most {steps:.1f} steps apart", same == count and steps < STEPS
    scale = max(1e-3, float(np.abs(found[1]).max()))
    return f"{same} of {count} decisions agree, at most {worst:.2g} apart", same == count and worst < 1e-3 * scale


def main():
    failed = 0
    for path in sorted([*DATA.glob("*/*.onnx"), *DATA.glob("*/*.tflite")]):
        line, good = compare(path)
        failed += not good
        print(f"{'ok  ' if good else 'BAD '} {path.name:28} {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
