"""What was trained becomes a bundle: its card, with figures and licences, and its golden samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edge_agent import catalogue
from edge_agent.errors import EdgeAgentError
from models import bundle, golden, judge
from models.bundle import Bundle
from models.card import PictureInput
from models.train import examine
from models.train.examine import Parity, Result
from models.train.prepared import Prepared

_GOLDEN: Final = 4
_MOST_GOLDEN_BYTES: Final = 700_000


@dataclass
class Made:
    """``drafted``: a bundle without golden samples and signature, with all four variants; ``network``: torch's."""

    drafted: Bundle
    network: Any
    result: Result
    parity: Parity
    prepared: Prepared
    golden: bytes = b""
    extra: dict[str, float | str] = field(default_factory=dict)


def draft(
    prepared: Prepared, files: dict[str, bytes], threshold: float, samples: int, numbers: dict[str, Any] | None = None
) -> Bundle:
    """The bundle with these files; small ones first."""
    recipe = prepared.recipe
    locates = prepared.kind == "locate"
    good = [label for number, label in enumerate(prepared.labels) if number in prepared.good]
    outputs: dict[str, Any] = (
        {"name": "suspicion", "activation": "sigmoid"}
        if locates
        else {"name": "logits", "activation": "softmax", "labels": list(prepared.labels), "good": good}
    )
    set_for = (
        "the fewest mistakes" if recipe.false_rejects is None else f"false-reject rate {recipe.false_rejects * 100:g} %"
    )
    ranked = sorted(files, key=lambda name: (not name.startswith("int8"), not name.endswith("tflite")))  # fast first
    width, height = recipe.size or (0, 0)
    card: dict[str, Any] = {
        "name": recipe.name,
        "version": recipe.version,
        "task": "defect",
        "description": recipe.description,
        "input": {
            "kind": "picture",
            "size": f"{width}x{height}",
            "colour": recipe.colour,
            **({"resize": recipe.resize} if recipe.resize != "area" else {}),
            "mean": [recipe.mean],
            "std": [recipe.std],
        },
        "outputs": outputs,
        **({"parameters": {"heat": "heat"}} if locates else {}),
        "threshold": {"value": threshold, "set_for": set_for, **({"samples": samples} if samples else {})},
        "files": [{"name": name, "format": name.split(".")[1], "precision": name.split(".")[0]} for name in ranked],
        "data": [each.model_dump(exclude_defaults=True) for each in recipe.data],
        "metrics": numbers or {},
    }
    notice = {"NOTICE.txt": recipe.notice.encode()} if recipe.notice else {}
    return bundle.draft(card, {**files, **notice})


def finish(made: Made, command: str, *, small: bool = True) -> Bundle:
    """The bundle as it ships: figures on the card, golden samples recorded. ``small``: int8 only."""
    numbers: dict[str, Any] = {
        key: value
        for key, value in made.result.numbers().items()
        if not (isinstance(value, float) and math.isnan(value))
    }
    numbers |= {
        "int8_agrees_onnx": round(made.parity.quantised_onnx, 5),
        "int8_agrees_tflite": round(made.parity.quantised_tflite, 5),
        "onnx_agrees_tflite": round(made.parity.runtimes_int8, 5),
        "examined": examine.EXAMINED,
        "command": command,
        **made.extra,
    }
    names = [file.name for file in made.drafted.card.files if not small or file.precision == "int8"]
    threshold = made.drafted.card.threshold
    drafted = draft(
        made.prepared,
        {name: made.drafted.files[name] for name in names},
        threshold.value if threshold else 0.5,
        (threshold.samples or 0) if threshold else 0,
        numbers,
    )
    made.golden = golden_samples(made, drafted)
    return drafted


def golden_samples(made: Made, drafted: Bundle) -> bytes:
    """The clearest good and bad pictures that were never seen, made smaller until they are small enough to ship.

    Raises EdgeAgentError where none is clear.
    """
    scores, bad = made.result.said.scores, made.result.bad
    order = np.argsort(scores)
    right = order[(scores[order] >= made.result.threshold) == bad[order]]
    clear = np.concatenate([right[: _GOLDEN // 2], right[-(_GOLDEN // 2) :]])
    threshold = made.result.threshold
    if not (np.abs(scores[clear] - threshold) > golden.CLOSE * abs(threshold)).any():
        raise EdgeAgentError(
            "it did not learn to tell good from bad: no picture that it never saw is clearly one or the other",
            hint="train longer (--epochs), or on more parts",
        )
    pictures_ = [examine.picture(made.prepared.pixels, int(made.result.chosen[each])) for each in clear]
    resize = catalogue.load(catalogue.PICTURES, "resize")
    width, height = drafted.card.input.size if isinstance(drafted.card.input, PictureInput) else (0, 0)
    for part in (1, 2, 3, 4):
        images = np.stack([resize(each, width // part, height // part) for each in pictures_])
        data = golden.record(judge.build(drafted), drafted.card, images)
        if len(data) <= _MOST_GOLDEN_BYTES:
            break
    return data
