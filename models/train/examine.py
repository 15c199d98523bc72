"""What a model file makes of pictures that it never saw, through the very code that decides on the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from models import judge
from models.bundle import Bundle
from models.train import metrics
from models.train.pixels import Pixels

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

VARIANTS: Final = ("fp32-onnx", "int8-onnx", "fp32-tflite", "int8-tflite")
EXAMINED: Final = "int8-onnx"
"""Who answers for the figures; the others decide the same, which is measured as well."""


class Said(NamedTuple):
    """One answer per picture: ``scores``, and for classifiers the class (number in the card's labels, else −1).

    ``places``: column and row of what was found, n × 2, −1 where nothing was; None: nobody asked.
    """

    scores: Array
    classes: Array
    places: Array | None = None

    def decisions(self, threshold: float) -> Array:
        """Two numbers per picture: defect or not, and which class."""
        return np.stack([self.scores >= threshold, self.classes], axis=1)


def ask(bundle: Bundle, variant: str, pixels: Pixels, chosen: Array) -> Said:
    """Let one variant judge these pictures."""
    one = judge.build(bundle, variant)
    labels = bundle.card.outputs.labels if bundle.card.outputs else ()
    number = {label: index for index, label in enumerate(labels)}
    scores, classes, places = np.zeros(len(chosen)), np.full(len(chosen), -1), np.full((len(chosen), 2), -1)
    for place, index in enumerate(chosen):
        said = one.judge(picture(pixels, int(index)))
        if said is None:  # a judge of pictures needs no more than one
            raise ValueError("no answer")
        scores[place] = said.score
        classes[place] = number.get(str(said.details.get("class", "")), -1)
        places[place] = said.details.get("at_px", (-1, -1))
    return Said(scores, classes, places)


def picture(pixels: Pixels, index: int) -> Array:
    """As a camera would bring it: three channels."""
    image = pixels.images[index]
    return np.ascontiguousarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image)


class Parity(NamedTuple):
    """Share of pictures about which two variants decide the same; ``pictures``: how many were asked."""

    quantised_onnx: float
    quantised_tflite: float
    runtimes_fp32: float
    runtimes_int8: float
    pictures: int

    @property
    def worst(self) -> float:
        return min(self.quantised_onnx, self.quantised_tflite, self.runtimes_fp32, self.runtimes_int8)


def parity(bundle: Bundle, pixels: Pixels, chosen: Array, threshold: float) -> Parity:
    """All four variants on the same real pictures; same decision means: defect or not, and which class."""
    said = {name: ask(bundle, name, pixels, chosen).decisions(threshold) for name in VARIANTS}

    def same(one: str, other: str) -> float:
        return float((said[one] == said[other]).all(axis=1).mean())

    return Parity(
        same("fp32-onnx", "int8-onnx"),
        same("fp32-tflite", "int8-tflite"),
        same("fp32-onnx", "fp32-tflite"),
        same("int8-onnx", "int8-tflite"),
        len(chosen),
    )


class Result(NamedTuple):
    """Everything that is known of pictures that the model never saw. ``chosen``: which they are."""

    chosen: Array
    said: Said
    truth: Array
    bad: Array
    labels: tuple[str, ...]
    threshold: float

    @property
    def auroc(self) -> float:
        return metrics.auroc(self.said.scores, self.bad)

    @property
    def row(self) -> metrics.Row:
        return metrics.at(self.threshold, self.said.scores, self.bad)

    @property
    def matrix(self) -> Array:
        """Of the classes; of good and defect for those that only locate."""
        if (self.said.classes < 0).all():
            return metrics.confusion(self.bad.astype(int), (self.said.scores >= self.threshold).astype(int), 2)
        return metrics.confusion(self.truth, self.said.classes, len(self.labels))

    @property
    def matrix_labels(self) -> Sequence[str]:
        return ("good", "defect") if (self.said.classes < 0).all() else self.labels

    def numbers(self) -> dict[str, float | str]:
        """For the card."""
        matrix, row = self.matrix, self.row
        found: dict[str, float | str] = {
            "pictures": len(self.chosen),
            "auroc": round(self.auroc, 4),
            "recall": round(row.recall, 4),
            "false_rejects": round(row.false_rejects, 4),
            "false_rejects_at_most": round(row.at_most, 4),
            "good_or_defect_accuracy": round(float(((self.said.scores >= self.threshold) == self.bad).mean()), 4),
        }
        if len(matrix) > 2:
            found["accuracy"] = round(float(np.trace(matrix) / matrix.sum()), 4)
            found["macro_f1"] = round(metrics.macro_f1(matrix), 4)
            found["lowest_class_recall"] = round(min(c.recall for c in metrics.per_class(matrix) if c.pictures), 4)
        return found
