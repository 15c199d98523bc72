"""What good parts look like to the backbone, place by place, and from where on a part is not one of them.

::

    pictures ─▶ scene (light, place) ─▶ brought back to it ─▶ features ─▶ mean, deviation per place (± 1 cell)
                                                                 └─ each part against the others ─▶ limit, outliers

A part is judged by the place that is farthest off. A part that was shown must be judged by the others, not by itself:
so each is left out once. With n parts nobody can promise less than about 3/n false rejects: what is said is said
with its confidence (rule of three, Clopper and Pearson).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge_agent.errors import ModelError
from models import backbone, session
from models.card import ModelFile, PictureInput
from models.preprocess import Preprocess
from models.scene import Scene, SceneParameters, describe
from models.train.camera_graph import FEATURES, STRIDE, feature_graph

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.preprocess import Pixels

    Array = npt.NDArray[Any]

FEWEST: Final = 10
MOST: Final = 50
MOST_PIXELS: Final = 1 << 18
"""Of the model's picture: about 15 MB of features for 50 parts, and some 100 ms on a small board."""
MARGIN: Final = 1.2
"""How much farther than any good part a part may be: light and dirt change from day to day."""
CONFIDENCE: Final = 0.95
_NEAR: Final = 1  # cells: how far a part may lie beside its place
_EVEN: Final = 0.3  # of a channel's variance over all places: no place is known better than that
_BORDER: Final = 1  # cells: there the picture ends, and so does what the backbone knows
_FAR: Final = 4.0  # deviations from the other good parts: is it one?
_MOST_OUTLIERS: Final = 0.15

Show = Callable[[str, int, int], None]
"""Stage, done, of how many."""


class Fit(NamedTuple):
    """See the head of this file. ``scores``: of each part against the others; ``outliers``: indices of parts left out.

    ``mean``, ``inverse``: channels × rows × columns. ``false_rejects``: at most, with ``CONFIDENCE``.
    """

    size: tuple[int, int]
    scene: dict[str, Any]
    mean: Array
    inverse: Array
    limit: float
    scores: Array
    outliers: list[int]
    doubts: list[str]
    false_rejects: float


def model_size(width: int, height: int) -> tuple[int, int]:
    """Of the model's picture: never larger than the camera's, multiples of 8, at most ``MOST_PIXELS``."""
    factor = min(1.0, (MOST_PIXELS / (width * height)) ** 0.5)
    wide, high = (max(8 * STRIDE, round(side * factor / STRIDE) * STRIDE) for side in (width, height))
    return wide, high


def fit(images: Sequence[Pixels], show: Show) -> Fit:
    """Learn good parts; pictures of one size. Raises ModelError where they cannot be told from anything."""
    scene, doubts = describe(images)
    size = model_size(images[0].shape[1], images[0].shape[0])
    sees = Eye(size, SceneParameters.model_validate(scene))
    features = np.empty((len(images), *sees.shape), np.float32)
    for number, image in enumerate(images):
        show("look", number, len(images))
        features[number] = sees(image)
    show("learn", 0, 1)
    near = [_near(each) for each in features]
    even = features.var(axis=(0, 2, 3))[:, None, None]
    if not even.max() > 0:
        raise ModelError("all pictures are one flat grey")
    kept = list(range(len(images)))
    scores = _left_out(features, near, kept, even)
    outliers = _outliers(scores)
    if outliers:
        kept = [number for number in kept if number not in outliers]
        scores[kept] = _left_out(features, near, kept, even)
    mean, inverse = _gauss(near, kept, even)
    return Fit(
        size,
        scene,
        mean,
        inverse,
        MARGIN * float(scores[kept].max()),
        scores,
        outliers,
        doubts,
        false_rejects_at_most(len(kept)),
    )


def false_rejects_at_most(count: int, confidence: float = CONFIDENCE) -> float:
    """Nobody of ``count`` good parts was beyond the limit: how many of all at most are, with this confidence."""
    return float(1 - (1 - confidence) ** (1 / count))


class Eye:
    """Features of pictures as the judge will see them."""

    def __init__(self, size: tuple[int, int], scene: SceneParameters) -> None:
        data = feature_graph(backbone.read(), *size)
        self._session = session.load("onnx", data)
        self._name = self._session.inputs[0].name
        card = PictureInput.model_validate(
            {"kind": "picture", "size": "x".join(map(str, size)), "colour": "bgr", **backbone.SCALING}
        )
        file = ModelFile(name="features.onnx", format="onnx", precision="int8", sha256="0" * 64)
        self._preprocess = Preprocess(card, file, self._session.inputs[0])
        self._scene = Scene(scene)
        self._size = size
        self.shape = self._session.outputs[0].shape[1:]

    def __call__(self, image: Pixels) -> Array:
        """Channels × rows × columns."""
        look = self._scene.look(image)
        back = self._scene.bring_back(image, look, self._size)
        seen: Array = self._session.run({self._name: self._preprocess(back)})[FEATURES][0]
        return seen


def _near(features: Array) -> tuple[Array, Array]:
    """Mean and mean square over the cell and those around it."""
    _, rows, columns = features.shape
    padded = np.pad(features, ((0, 0), (_NEAR, _NEAR), (_NEAR, _NEAR)), mode="edge")
    total, squares = np.zeros_like(features), np.zeros_like(features)
    steps = range(2 * _NEAR + 1)
    for down in steps:
        for across in steps:
            part = padded[:, down : down + rows, across : across + columns]
            total += part
            squares += part * part
    count = len(steps) ** 2
    return total / count, squares / count


def _gauss(near: Sequence[tuple[Array, Array]], kept: Sequence[int], even: Array) -> tuple[Array, Array]:
    """Mean and inverse deviation per channel and place; none at the border."""
    mean: Array = np.mean([near[number][0] for number in kept], axis=0)
    square: Array = np.mean([near[number][1] for number in kept], axis=0)
    inverse = 1.0 / np.sqrt(np.maximum(square - mean * mean, 0) + _EVEN * even + 1e-9)
    inside = np.zeros(inverse.shape[1:], np.float32)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = 1
    return mean, inverse * inside


def _left_out(features: Array, near: Sequence[tuple[Array, Array]], kept: Sequence[int], even: Array) -> Array:
    """How far each is from the others."""
    scores = np.empty(len(kept))
    for place, number in enumerate(kept):
        mean, inverse = _gauss(near, [each for each in kept if each != number], even)
        scores[place] = distance(features[number], mean, inverse)
    return scores


def distance(features: Array, mean: Array, inverse: Array) -> float:
    """What the network does: the largest root mean square over the channels."""
    away = (features - mean) * inverse
    return float(np.sqrt((away * away).mean(axis=0)).max())


def _outliers(scores: Array) -> list[int]:
    """Those that are far from all others, the farthest first; never more than a few: else it is how parts are."""
    middle = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - middle))) + 0.03 * middle
    order = np.argsort(-scores)[: int(_MOST_OUTLIERS * len(scores))]
    return [int(number) for number in order if scores[number] > middle + _FAR * spread]
