"""From good parts to a signed bundle: network, card with its scene, golden decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from models import backbone, bundle, golden, judge
from models.bundle import Bundle
from models.train.camera import CONFIDENCE, Fit
from models.train.camera_graph import HEAT, SUSPICION, camera_graph
from models.train.operations import multiplications

if TYPE_CHECKING:
    import numpy.typing as npt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from models.preprocess import Pixels

THRESHOLD: Final = 0.5  # a logit of 0: as far as the limit
_GOLDEN: Final = 1
_BLOT: Final = 6  # of the height and width: what nobody could call good


class Made(NamedTuple):
    """The signed files of a bundle."""

    bundle: Bundle
    files: dict[str, bytes]


def make(fit: Fit, images: Sequence[Pixels], name: str, version: int, key: Ed25519PrivateKey, *, source: str) -> Made:
    """The bundle of a fit. ``images``: the good parts; ``source``: where they came from."""
    file = f"{name}-int8.onnx"
    network = camera_graph(backbone.read(), fit.size, fit.memory, fit.band)
    card = _card(fit, len(images), name, version, source, file)
    card["metrics"]["multiplications"] = multiplications(network)
    drafted = bundle.draft(card, {file: network})
    good = [image for number, image in enumerate(images) if number not in fit.outliers][:_GOLDEN]
    samples = np.stack([*good, *(_blotted(image) for image in good)])
    recorded = golden.record(judge.build(drafted), drafted.card, samples)
    return Made(drafted, bundle.complete(drafted, recorded, key))


def _card(fit: Fit, count: int, name: str, version: int, source: str, file: str) -> dict[str, Any]:
    kept = count - len(fit.outliers)
    return {
        "name": name,
        "version": version,
        "task": "defect",
        "description": f"Does a part look like the {kept} good ones that this camera was shown?",
        "made": f"calibrate camera, {source}"[:100],
        "input": {
            "kind": "picture",
            "size": f"{fit.size[0]}x{fit.size[1]}",
            "colour": "bgr",
            **backbone.SCALING,
        },
        "outputs": {"name": SUSPICION, "activation": "sigmoid"},
        "threshold": {
            "value": THRESHOLD,
            "set_for": f"false rejects: {fit.beyond} of {kept} good parts"
            + (f"; at most {fit.false_rejects:.1%} of all" if fit.false_rejects is not None else ""),
            "samples": kept,
            **({"confidence": CONFIDENCE} if fit.false_rejects is not None else {}),
        },
        "parameters": {"heat": HEAT, "scene": fit.scene},
        "files": [{"name": file, "format": "onnx", "precision": "int8"}],
        "data": [
            {"name": source, "licence": "own"},
            {"name": backbone.LEARNED_FROM, "licence": "own", "source": "models/train/textures.py"},
        ],
        "metrics": {
            "farthest_good": round(float(max(np.delete(fit.scores, fit.outliers))), 4),
            "left_out": float(len(fit.outliers)),
        },
    }


def _blotted(image: Pixels) -> npt.NDArray[np.uint8]:
    """With a chequered blot in the middle: small enough that the scene is still the scene."""
    blotted = image.copy()
    height, width = image.shape[:2]
    high, wide = max(8, height // _BLOT), max(8, width // _BLOT)
    top, left = (height - high) // 2, (width - wide) // 2
    rows, columns = np.indices((high, wide))
    blotted[top : top + high, left : left + wide] = ((rows // 5 + columns // 5) % 2 * 255)[..., None]
    return blotted
