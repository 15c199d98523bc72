"""What good parts look like to the backbone, place by place, and from where on a part is not one of them.

::

    pictures ─▶ scene (light, place) ─▶ brought back to it ─▶ features ─▶ memory
                                                      └─ each part against the others ─▶ usual distance, limit, outliers

A part is judged by the place that is farthest from all good parts. A part that was shown must be judged by the others,
not by itself: so each is left out once. With n parts nobody can promise less than about 3/n false rejects: what is
said is said with its confidence (Clopper and Pearson).
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
from models.train.camera_graph import FEATURES, NEAR, STRIDE, Memory, feature_graph

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.preprocess import Pixels

    Array = npt.NDArray[Any]

FEWEST: Final = 10
MOST: Final = 50
MOST_PIXELS: Final = 1 << 18
"""Of the model's picture: about 15 MB of features for 50 parts, and some 100 ms on a small board."""
MARGIN: Final = 1.5
"""How much farther than any good part a part may be: light and dirt change from day to day."""
CONFIDENCE: Final = 0.95
_EVEN: Final = 0.3  # of the mean: so much of the usual distance is the same everywhere
_BORDER: Final = 1  # cells: there the picture ends, and so does what the backbone knows
_FLAT: Final = 1e-3  # for channels that see nothing here
_FAR: Final = 3.0  # times as far as the farthest that counts: is it a good part?
_FEW: Final = 0.1  # of the parts may be no good ones

Show = Callable[[str, int, int], None]
"""Stage, done, of how many."""


class Fit(NamedTuple):
    """See the head of this file. ``scores``: of each part against the others; ``outliers``: indices of parts left out.

    ``false_rejects``: at most, with ``CONFIDENCE``.
    """

    size: tuple[int, int]
    scene: dict[str, Any]
    memory: Memory
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
    spread = features.std(axis=(0, 2, 3))
    if not spread.max() > 0:
        raise ModelError("all pictures are one flat grey")
    scale = 1.0 / (spread + _FLAT) / np.sqrt(len(spread))
    cells, step = _cells(features * scale[:, None, None])
    kept = list(range(len(images)))
    shape = features.shape[2:]
    scores, weight = _left_out(cells * np.float32(step), shape)
    outliers = _outliers(scores)
    if outliers:
        kept = [number for number in kept if number not in outliers]
        scores[kept], weight = _left_out(cells[:, kept] * np.float32(step), shape)
    limit = MARGIN * float(scores[kept].max())
    memory = Memory(cells[:, kept], step, scale, weight, _inside(shape), limit)
    return Fit(size, scene, memory, scores, outliers, doubts, false_rejects_at_most(len(kept)))


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


def _cells(features: Array) -> tuple[Array, float]:
    """Parts × channels × rows × columns as places × parts × channels in 8-bit steps, and the step."""
    step = float(np.abs(features).max()) / 127
    numbers = np.rint(features / step).astype(np.int8)
    return np.ascontiguousarray(numbers.reshape(*features.shape[:2], -1).transpose(2, 0, 1)), step


def _left_out(cells: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """How far each part is from the others, as the network will say it, and the weight of each place."""
    count = cells.shape[1]
    length = (cells * cells).sum(axis=2)
    far = np.full((count, *shape), np.inf, np.float32)
    places = np.arange(len(cells)).reshape(shape)
    for down, across in NEAR:
        rows = np.clip(np.arange(shape[0]) + down, 0, shape[0] - 1)
        columns = np.clip(np.arange(shape[1]) + across, 0, shape[1] - 1)
        there = places[rows[:, None], columns].reshape(-1)
        # places × part that is judged × part that it is compared with
        square = length[:, :, None] + length[there][:, None, :] - 2 * cells @ cells[there].transpose(0, 2, 1)
        square[:, np.arange(count), np.arange(count)] = np.inf
        far = np.minimum(far, square.min(axis=2).T.reshape(far.shape))
    far = np.sqrt(np.maximum(far, 0))
    usual = far.mean(axis=0)
    weight = (1 + _EVEN) / (usual + _EVEN * usual.mean() + 1e-9)
    inside = _inside(shape)
    return np.array([float((_smooth(each * weight) * inside).max()) for each in far]), weight


def _smooth(plane: Array) -> Array:
    """Mean of three by three, as the network's: what is outside does not count."""
    rows, columns = plane.shape
    total, count = np.zeros_like(plane), np.zeros_like(plane)
    padded, ones = np.pad(plane, 1), np.pad(np.ones_like(plane), 1)
    for down in range(3):
        for across in range(3):
            part = (slice(down, down + rows), slice(across, across + columns))
            total += padded[part]
            count += ones[part]
    mean: Array = total / count
    return mean


def _inside(shape: tuple[int, ...]) -> Array:
    inside = np.zeros(shape, np.float32)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = 1
    return inside


def _outliers(scores: Array) -> list[int]:
    """Those that are far beyond nearly all others, the farthest first: a few only, or else it is how parts are."""
    few = max(1, int(_FEW * len(scores)))
    order = np.argsort(-scores)
    return [int(number) for number in order[:few] if scores[number] > _FAR * scores[order[few]]]
