"""The task ``defect``: one picture in, good or defect out, by a network that classifies pictures.

The score is the share that the network gives to all classes that are not good; from the threshold on it is a
defect. A network with one output that rises with the suspicion (``sigmoid``) needs no labels.

``parameters: {heat: NAME}`` of the card names an output that says where: one number per cell of the picture, with the
activation of the score. A defect then has ``at_px`` (the hottest place) and ``box_px`` (left, top, width, height
of what hangs together with it and is as suspicious as the threshold), in pixels of the picture that was judged, and
``heat``: the map itself, as rows of hexadecimal digits, each the hottest of some cells.

``parameters: {scene: …}``: the model knows one scene only. Where the camera moved or the light changed it does not
judge: the label is ``not-inspected``, and ``details["reason"]`` says why (:mod:`models.scene`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from math import exp, prod, tanh
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from edge_agent.errors import BundleError, ModelError
from edge_agent.settings import Section
from edge_agent.vocabulary import DEFECT, GOOD, NOT_INSPECTED, Judgement
from models.card import Card, ModelFile, Outputs, PictureInput
from models.preprocess import Preprocess
from models.scene import Scene, SceneParameters
from models.session import Session, Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

_HEAT_MOST = 32  # rows and columns
_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_TOLERANCE = 0.02  # an int8 softmax does not add up to exactly 1


class PictureParameters(Section):
    """What the card may say besides."""

    heat: str | None = Field(default=None, description="The output that says where, by its name in the model file.")
    scene: SceneParameters | None = Field(default=None, description="The one scene that the model knows.")


class PictureJudge:
    """See :class:`models.task.TaskJudge`. It remembers nothing."""

    Parameters = PictureParameters

    def __init__(self, card: Card, file: ModelFile, parameters: PictureParameters, session: Session) -> None:
        if not isinstance(card.input, PictureInput) or card.outputs is None or card.threshold is None:
            raise BundleError("a card for defects needs an input of the kind picture, outputs and a threshold")
        if len(session.inputs) != 1:
            raise BundleError(f"{file.name} has {len(session.inputs)} inputs; one picture is one input")
        self._outputs = card.outputs
        self._output = _output(card.outputs, file, session)
        self._heat = _map(parameters.heat, file, session)
        self._is_suspect = [label not in card.outputs.good for label in card.outputs.labels]
        self._input = session.inputs[0].name
        self._preprocess = Preprocess(card.input, file, session.inputs[0])
        self._threshold = card.threshold.value
        self._session = session
        self._scene = Scene(parameters.scene) if parameters.scene else None
        self._size = card.input.size

    def memory(self) -> None:
        return None

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Each picture is judged by itself."""

    def judge(self, given: Any) -> Judgement:
        image = given
        if self._scene is not None:
            look = self._scene.look(given)
            if look.reason is not None:
                return Judgement(NOT_INSPECTED, 0.0, self._threshold, {"reason": look.reason, **look.details})
            image = self._scene.bring_back(given, look, self._size)
        said = self._session.run({self._input: self._preprocess(image)})
        shares = _shares(self._outputs.activation, said[self._output])
        details: dict[str, object] = {}
        if len(shares) > 1:
            details["class"] = self._outputs.labels[shares.index(max(shares))]
        score = shares[0] if len(shares) == 1 else sum(compress(shares, self._is_suspect))
        score = round(score, 4)  # before it is compared: a verdict must not contradict itself
        label = DEFECT if score >= self._threshold else GOOD
        if label == DEFECT and self._heat:
            heat = said[self._heat]
            cells = _heat(self._outputs.activation, heat.reshape(_cells(heat.shape)))
            details |= where(cells, self._threshold, given.shape) | {"heat": coarse(cells)}
        return Judgement(label, score, self._threshold, details)


def where(cells: npt.NDArray[Any], threshold: float, shape: tuple[int, ...]) -> dict[str, object]:
    """The hottest cell and the box around what hangs together with it, in pixels of a picture of this shape."""
    rows, columns = cells.shape
    row, column = divmod(int(cells.argmax()), columns)
    hot = cells >= min(threshold, cells[row, column])
    top, bottom, left, right, size = row, row + 1, column, column + 1, -1
    while size != (size := (bottom - top) * (right - left)):  # wider, as long as something hot touches it
        left, right = _reach(hot[max(0, top - 1) : bottom + 1].any(axis=0), left, right)
        top, bottom = _reach(hot[:, max(0, left - 1) : right + 1].any(axis=1), top, bottom)
    high, wide = shape[0] / rows, shape[1] / columns
    corner, extent = (left * wide, top * high), ((right - left) * wide, (bottom - top) * high)
    return {
        "at_px": [int((column + 0.5) * wide), int((row + 0.5) * high)],
        "box_px": [round(number) for number in (*corner, *extent)],
    }


def coarse(cells: npt.NDArray[Any]) -> list[str]:
    """At most 32 x 32 levels from ``0`` to ``f``, for drawing: shares from 0 to 1, each the hottest of its cells."""
    for _ in (0, 1):  # rows, then columns
        step = -(-len(cells) // _HEAT_MOST)
        hottest = cells[::step].copy()
        for first in range(1, step):
            others = cells[first::step]
            np.maximum(hottest[: len(others)], others, out=hottest[: len(others)])
        cells = hottest.T
    levels = np.rint(cells.clip(0, 1) * 15).astype(np.uint8)
    return [row.tobytes().decode() for row in _DIGITS[levels]]


def _reach(hot: npt.NDArray[np.bool_], first: int, end: int) -> tuple[int, int]:
    """From there to the first cold one on either side."""
    before, after = np.flatnonzero(~hot[:first]), np.flatnonzero(~hot[end:])
    return int(before[-1]) + 1 if before.size else 0, end + int(after[0]) if after.size else len(hot)


def _output(outputs: Outputs, file: ModelFile, session: Session) -> str:
    """The name of the output to read; raises BundleError where there is no such, or of another size."""
    known: dict[str, Tensor] = {tensor.name: tensor for tensor in session.outputs}
    name = outputs.name or session.outputs[0].name
    if name not in known:
        raise BundleError(f"{file.name} has no output {name!r}; it has {', '.join(known)}")
    count = prod(known[name].shape)
    if count == 1 and outputs.activation != "softmax":
        return name
    if count != len(outputs.labels) or count < 2:
        raise BundleError(f"{file.name}: the output {name!r} has {count} numbers for {len(outputs.labels)} labels")
    if not outputs.good or len(outputs.good) == count:
        raise BundleError("the card must say which of its labels are good, and which are not")
    return name


def _map(name: str | None, file: ModelFile, session: Session) -> str | None:
    """The name of the output that says where; raises BundleError where there is no such, or it is no plane."""
    if name is None:
        return None
    shape = next((tensor.shape for tensor in session.outputs if tensor.name == name), ())
    if len(shape) != 4 or shape[0] != 1 or 1 not in (shape[1], shape[3]):
        raise BundleError(f"{file.name} has no output {name!r} with one number per cell of the picture")
    return name


def _cells(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns, wherever the one channel stands."""
    return (shape[2], shape[3]) if shape[1] == 1 else (shape[1], shape[2])


def _shares(activation: str, output: npt.NDArray[Any]) -> list[float]:
    numbers: list[float] = output.reshape(-1).tolist()  # a handful: plain Python is faster than arrays
    if activation == "softmax":
        largest = max(numbers)
        powers = [exp(number - largest) for number in numbers]
        total = sum(powers)
        return [power / total for power in powers]
    if activation == "sigmoid":
        return [0.5 + 0.5 * tanh(0.5 * number) for number in numbers]
    _check_shares(min(numbers), max(numbers))
    return numbers


def _heat(activation: str, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same of a map: thousands of cells, where arrays are faster."""
    if activation == "softmax":
        powers: npt.NDArray[Any] = np.exp(cells - cells.max())
        shares: npt.NDArray[Any] = powers / powers.sum()
        return shares
    if activation == "sigmoid":
        return np.add(0.5, 0.5 * np.tanh(0.5 * cells))
    _check_shares(cells.min(), cells.max())
    return cells


def _check_shares(least: float, most: float) -> None:
    if least < -_TOLERANCE or most > 1 + _TOLERANCE:
        raise ModelError("the model's output is no share from 0 to 1", hint="does the card name the right activation?")
