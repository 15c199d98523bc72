"""``card.yaml``: what a bundle is, exactly enough to use it and to answer for it.

::

    name: pitting
    version: 3
    task: defect
    input: {kind: picture, size: 64x32, colour: grey, mean: [127.5], std: [127.5]}
    outputs: {name: logits, activation: softmax, labels: [good, pit], good: [good]}
    threshold: {value: 0.71, set_for: false-reject rate 1 %, samples: 500, confidence: 0.95}
    files:
      - {name: int8.onnx, format: onnx, precision: int8, sha256: …}
      - {name: int8.tflite, format: tflite, precision: int8, sha256: …}
    data: [{name: BSData, licence: CC BY-SA 4.0, source: https://…}]
    metrics: {auroc: 0.97}
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from edge_agent.document import parse, validate
from edge_agent.errors import BundleError
from edge_agent.settings import Duration, Resolution, Section

FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CARD: Final = "card.yaml"
LARGEST_CARD_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be made of letters, digits, _ and -")
    return name


def _file_name(name: str) -> str:
    if not FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be a plain file name of letters, digits, ., _ and -")
    return name


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("must be 64 hexadecimal digits in lower case")
    return text


Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, AfterValidator(_name)]
"""What a bundle may be called: it becomes the name of a folder and of files."""


class PictureInput(Section):
    """A picture becomes numbers: resized, channels as named, (pixel − mean) / std. Never by looking at it."""

    kind: Literal["picture"] = Field(description="One picture at a time.")
    size: Resolution = Field(description="Width x height that the model wants.")
    colour: Literal["grey", "rgb", "bgr"] = Field(description="The channels and their order.")
    resize: Literal["area", "bilinear"] = Field(
        default="area", description="How it gets that size: by averaging areas, or from two neighbours down to half."
    )
    mean: tuple[Number, ...] = Field(default=(0.0,), description="Of pixels from 0 to 255: one, or one per channel.")
    std: tuple[Annotated[Number, Field(gt=0)], ...] = Field(default=(1.0,), description="The same.")

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @model_validator(mode="after")
    def _fits(self) -> PictureInput:
        if self.size[0] < 1 or self.size[1] < 1 or self.size[0] * self.size[1] > 1 << 24:
            raise ValueError("size must be at least 1x1 and at most 16 million pixels")
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, self.channels):
                raise ValueError(f"{key} needs one number, or {self.channels}")
        return self


class RowsInput(Section):
    """Rows of readings, one after the other, in the order of time."""

    kind: Literal["rows"] = Field(description="One row of readings at a time.")
    quantities: tuple[str, ...] = Field(
        min_length=1, max_length=1000, description="The columns, in the model's order: `device.quantity` or any name."
    )
    every: Duration = Field(gt=0, description="The time from row to row that the model was made for.")

    @model_validator(mode="after")
    def _each_once(self) -> RowsInput:
        twice = sorted({name for name in self.quantities if self.quantities.count(name) > 1})
        if twice:
            raise ValueError(f"quantities has {', '.join(twice)} twice")
        return self


class Outputs(Section):
    """What the model says, and how that becomes a label and a score."""

    name: str = Field(default="", description="The output to read, by its name in the file; default: the first.")
    activation: Literal["softmax", "sigmoid", "none"] = Field(
        default="none", description="What turns the output into shares from 0 to 1, where the model has not done it."
    )
    labels: tuple[str, ...] = Field(default=(), max_length=1000, description="Of the classes, in the model's order.")
    good: tuple[str, ...] = Field(default=(), description="Which of the labels are good.")

    @model_validator(mode="after")
    def _known(self) -> Outputs:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels names a class twice")
        strange = [label for label in self.good if label not in self.labels]
        if strange:
            raise ValueError(f"good names {', '.join(strange)}, which labels does not")
        return self


class Threshold(Section):
    """From which score on it is a defect or an anomaly, and what that was set for."""

    value: Number = Field(description="A score of this or more is a defect or an anomaly.")
    set_for: str = Field(description="What it was set for: `false-reject rate 1 %`.")
    samples: int | None = Field(default=None, ge=0, description="On how many samples it was set.")
    confidence: float | None = Field(default=None, gt=0, lt=1, description="With which confidence that holds.")


class ModelFile(Section):
    """One variant of the model."""

    name: Annotated[str, AfterValidator(_file_name)] = Field(description="The file.")
    format: Literal["onnx", "tflite"] = Field(description="Which runtime it is for.")
    precision: Literal["fp32", "int8"] = Field(description="Of its weights and activations.")
    layout: Literal["nchw", "nhwc"] | None = Field(
        default=None, description="Order of a picture's axes; default: nchw in ONNX, nhwc in TFLite."
    )
    sha256: Annotated[str, AfterValidator(_sha256)] = Field(description="Of the file.")

    @property
    def variant(self) -> str:
        """``int8-onnx``: which one it is, among those of a bundle."""
        return f"{self.precision}-{self.format}"

    @property
    def axes(self) -> str:
        """Order of a picture's axes."""
        return self.layout or ("nchw" if self.format == "onnx" else "nhwc")


class Data(Section):
    """Data that it was trained on."""

    name: str = Field(description="The data set, or where it was recorded.")
    licence: str = Field(description="Under which licence; `own` for recordings of the operator.")
    source: str = Field(default="", description="Where it can be had.")


class Card(Section):
    """The whole card."""

    name: Name = Field(description="The bundle.")
    version: int = Field(
        ge=1, le=2**53, description="A whole number that grows: an older one never replaces a newer one."
    )
    task: Literal["defect", "anomaly", "forecast"] = Field(description="What it decides.")
    description: str = Field(default="", max_length=2000, description="For a person, in a sentence.")
    made: str = Field(default="", max_length=100, description="When, and from what: `2026-11-20, calibrate line`.")
    input: Annotated[PictureInput | RowsInput, Field(discriminator="kind")] = Field(description="What it is given.")
    outputs: Outputs | None = Field(default=None, description="What it says, where the task reads it from here.")
    threshold: Threshold | None = Field(default=None, description="From which score on it is not good.")
    parameters: dict[str, Any] = Field(default={}, description="What else the task needs; checked by the task.")
    files: tuple[ModelFile, ...] = Field(min_length=1, max_length=16, description="Variants, the preferred one first.")
    data: tuple[Data, ...] = Field(min_length=1, description="What it was trained on.")
    metrics: dict[str, Number | str] = Field(default={}, description="How good it was, and on what.")

    @model_validator(mode="after")
    def _one_each(self) -> Card:
        for what in ("name", "variant"):
            found = [getattr(file, what) for file in self.files]
            twice = sorted({each for each in found if found.count(each) > 1})
            if twice:
                raise ValueError(f"files has {', '.join(twice)} twice")
        return self

    def file(self, variant: str | None = None) -> ModelFile:
        """The variant of that name (``int8-onnx``), or the first. Raises BundleError."""
        for file in self.files:
            if variant in (None, file.variant):
                return file
        known = ", ".join(file.variant for file in self.files)
        raise BundleError(f"{self.name} has no variant {variant!r}; it has {known}")

    def decided_by(self, file: ModelFile) -> str:
        """``pitting@3/int8-onnx``: who decides."""
        return f"{self.name}@{self.version}/{file.variant}"


def read_card(data: bytes) -> Card:
    """The card; raises BundleError with every mistake in it and its line."""
    if len(data) > LARGEST_CARD_BYTES:
        raise BundleError(f"{CARD} is larger than {LARGEST_CARD_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{CARD} is not UTF-8 text") from error
    document = parse(text, CARD)
    if not isinstance(document.data, dict) and not document.problems:
        raise BundleError(f"{CARD} is not a card")
    card = validate(document, Card) if isinstance(document.data, dict) else None
    if card is None or document.problems:
        raise BundleError("\n".join(str(problem) for problem in sorted(set(document.problems))))
    return card
