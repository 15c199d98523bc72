"""What good parts look like to the backbone, place by place, and from where on a part is not one of them.

::

    pictures ─▶ scene (light, place) ─▶ brought back to it ─▶ features, contrast ─▶ memory, band
                                                      └─ each part against the others ─▶ usual distance, limit, outliers

A part is judged by the place that is farthest from all good parts. A part that was shown must be judged by the others,
not by itself: so each is left out once. With n parts nobody can promise less than about 3/n false rejects: what is
said is said with its confidence (Clopper and Pearson).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import comb
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge_agent.errors import ModelError
from models import backbone, session
from models.card import ModelFile, PictureInput
from models.preprocess import Preprocess
from models.scene import Scene, SceneParameters, describe
from models.train import camera_band
from models.train.camera_band import second
from models.train.camera_graph import CONTRAST, FEATURES, NEAR, STRIDE, Band, Memory, feature_graph

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.preprocess import Pixels

    Array = npt.NDArray[Any]

FEWEST: Final = 10
MOST: Final = 50
MOST_PIXELS: Final = 1 << 18
"""Of the model's picture."""
MARGIN: Final = 2.0
"""How much farther than the second farthest good part a part may be: light and dirt change from day to day, and one
odd part among the good ones must not let all others pass."""
CONFIDENCE: Final = 0.95
_EVEN: Final = 0.3  # of the mean: so much of the usual distance is the same everywhere
_BORDER: Final = 1  # cells: there the picture ends, and so does what the backbone knows
DIRECTIONS: Final = 16
_RESTLESS: Final = 2
_SIGHT: Final = 2  # cells: how far around it a feature looks
_AT_ONCE: Final = 512  # places: all of them would need a lot of memory
_SAME: Final = 0.002  # of the light: less than any sensor's noise
_FLAT: Final = 1e-3  # for channels that see nothing here
_FAR: Final = 3.0  # times as far as the farthest that counts: is it a good part?
_FEW: Final = 0.1  # of the parts may be no good ones
_LIE_DIFFERENTLY: Final = (
    "the parts lie differently each time, so nobody can tell from them how many others will be refused: lay them alike;"
    f" or show more, at most {MOST}: the more, the fewer"
)

Region = tuple[int, int, int, int]
Show = Callable[[str, int, int], None]
"""Stage, done, of how many."""


class Fit(NamedTuple):
    """See the head of this file. ``scores``: of each part against the others, as a share of the limit.

    ``outliers``: indices of parts left out; ``beyond``: how many others are beyond the limit. ``false_rejects``: of all
    good parts at most, with ``CONFIDENCE``; None where parts lie differently each time: few tell little of others then.
    """

    size: tuple[int, int]
    scene: dict[str, Any]
    memory: Memory
    band: Band
    scores: Array
    outliers: list[int]
    beyond: int
    doubts: list[str]
    false_rejects: float | None


def model_size(width: int, height: int) -> tuple[int, int]:
    """Of the model's picture: never larger than the camera's, multiples of 8, at most ``MOST_PIXELS``."""
    factor = min(1.0, (MOST_PIXELS / (width * height)) ** 0.5)
    wide, high = (max(8 * STRIDE, int(side * factor / STRIDE) * STRIDE) for side in (width, height))
    return wide, high


def fit(images: Sequence[Pixels], show: Show, region: Region | None = None) -> Fit:
    """Learn good parts, in the order in which they were seen; pictures of one size.

    ``region``: width, height, left, top in pixels of these pictures: nothing else is judged. Raises ModelError where
    they cannot be told from anything.
    """
    _check_region(region, *images[0].shape[1::-1])
    scene, doubts = describe(images)
    size = model_size(images[0].shape[1], images[0].shape[0])
    sees = Eye(size, SceneParameters.model_validate(scene))
    features, contrast = (np.empty((len(images), *shape), np.float32) for shape in sees.shapes)
    for number, image in enumerate(images):
        show("look", number, len(images))
        features[number], contrast[number] = sees(image)
    show("learn", 0, 1)
    coarse, fine = (_inside(region, images[0], *seen) for seen in ((features, _BORDER), (contrast, camera_band.BORDER)))
    if np.mean([np.abs(later - earlier).mean() for earlier, later in pairwise(contrast)]) < _SAME:
        doubts.append("the pictures are nearly the same: show different parts, or others will be refused")
    band, outside, calm = camera_band.fit(contrast, fine)
    memory, far = remember(features, coarse * _cellwise(calm))
    outliers = _outliers(np.maximum(far / memory.limit, outside / band.limit))
    if outliers:
        kept = np.delete(np.arange(len(images)), outliers)
        band, outside[kept], calm = camera_band.fit(contrast[kept], fine)
        memory, far[kept] = remember(features[kept], coarse * _cellwise(calm))
    scores = np.maximum(far / memory.limit, outside / band.limit)
    beyond = int((np.delete(scores, outliers) >= 1).sum())
    at_most = None
    if scene["shift"] is None:
        doubts.append(_LIE_DIFFERENTLY)
    else:
        at_most = false_rejects_at_most(len(images) - len(outliers), beyond)
    return Fit(size, scene, memory, band, scores, outliers, beyond, doubts, at_most)


def remember(features: Array, counts: Array) -> tuple[Memory, Array]:
    """What parts × channels × rows × columns are to be remembered by, and how far each part is from the others.

    ``counts``: rows × columns, how much a place counts; 0: not at all.
    """
    spread = camera_band.deviation(features)
    if not spread.max() > 0:
        raise ModelError("all pictures are one flat grey")
    basis = _basis(features, 1 / (spread + _FLAT))
    cells, step = _cells(np.stack([np.tensordot(basis, part, 1) for part in features]))
    shape = features.shape[2:]
    far, weight = _left_out(cells, step, shape)
    weight = weight * counts
    scores = np.array([float(_smooth(each * weight).max()) for each in far])
    return Memory(cells, step, basis, weight, MARGIN * max(1.0, second(scores))), scores


def false_rejects_at_most(count: int, beyond: int = 0, confidence: float = CONFIDENCE) -> float:
    """``beyond`` of ``count`` good parts were beyond the limit: how many of all at most are, with this confidence.

    Source: Clopper and Pearson, Biometrika 26, 1934.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        share = (low + high) / 2
        seen = sum(comb(count, few) * share**few * (1 - share) ** (count - few) for few in range(beyond + 1))
        low, high = (share, high) if seen > 1 - confidence else (low, share)
    return high


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
        shapes = {output.name: output.shape[1:] for output in self._session.outputs}
        self.shapes = shapes[FEATURES], shapes[CONTRAST]

    def __call__(self, image: Pixels) -> tuple[Array, Array]:
        """Features and contrast, channels × rows × columns."""
        look = self._scene.look(image)
        back = self._scene.bring_back(image, look, self._size)
        seen = self._session.run({self._name: self._preprocess(back)})
        return seen[FEATURES][0], seen[CONTRAST][0]


def _basis(features: Array, even: Array) -> Array:
    """The main directions of what features say: the others cost memory and tell nothing (principal components)."""
    channels = len(even)
    mean = features.mean(axis=(0, 2, 3))
    alike = np.zeros((channels, channels))
    for part in features:
        cells = ((part - mean[:, None, None]) * even[:, None, None]).reshape(channels, -1)
        alike += cells @ cells.T
    _, directions = np.linalg.eigh(alike)
    basis = directions[:, ::-1][:, :DIRECTIONS].T * even / np.sqrt(channels)
    found: Array = basis.astype(np.float32)
    return found


def _cells(features: Array) -> tuple[Array, float]:
    """Parts × directions × rows × columns as places × parts × directions in 8-bit steps, and the step."""
    step = float(np.abs(features).max()) / 127
    numbers = np.rint(features / step).astype(np.int8)
    return np.ascontiguousarray(numbers.reshape(*features.shape[:2], -1).transpose(2, 0, 1)), step


def _left_out(steps: Array, step: float, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """How far each part is from the nearest other at each place, and the weight of each place."""
    cells = steps * np.float32(step)
    count = cells.shape[1]
    length = (cells * cells).sum(axis=2)
    square = np.full((len(cells), count), np.inf, np.float32)
    places = np.arange(len(cells)).reshape(shape)
    itself = np.arange(count)
    for down, across in NEAR:
        rows = np.clip(np.arange(shape[0]) + down, 0, shape[0] - 1)
        columns = np.clip(np.arange(shape[1]) + across, 0, shape[1] - 1)
        there = places[rows[:, None], columns].reshape(-1)
        for start in range(0, len(cells), _AT_ONCE):
            here = slice(start, start + _AT_ONCE)
            beside = there[here]
            # places × part that is judged × part that it is compared with
            far = length[here, :, None] + length[beside][:, None] - 2 * cells[here] @ cells[beside].transpose(0, 2, 1)
            far[:, itself, itself] = np.inf
            np.minimum(square[here], far.min(axis=2), out=square[here])
    nearest = np.sqrt(np.maximum(square, 0)).reshape(*shape, count)
    usual = np.maximum(step, nearest.mean(axis=-1))  # nothing finer is remembered
    weight = (1 + _EVEN) / (usual + _EVEN * usual.mean() + 1e-9)
    return nearest.transpose(2, 0, 1), weight


def _smooth(plane: Array) -> Array:
    return camera_band.smooth(plane, 1)


def _cellwise(calm: Array) -> Array:
    """How much a cell counts: by the least calm of all that its features see; they see dirt better than contrast."""
    rows, columns = (size // STRIDE for size in calm.shape)
    least = calm.reshape(rows, STRIDE, columns, STRIDE).min(axis=(1, 3))
    wide = np.pad(least, _SIGHT, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(wide, [2 * _SIGHT + 1] * 2).min(axis=(2, 3))
    counts: Array = around**_RESTLESS
    return counts


def _check_region(region: Region | None, width: int, height: int) -> None:
    """Somebody who names pixels that are not there means other pictures than these."""
    if region is None:
        return
    wide, high, left, top = region
    if left + wide > width or top + high > height:
        raise ModelError(
            f"the region {wide}x{high}+{left}+{top} reaches beyond the pictures, which are {width}x{height}",
            hint="width x height + left + top, all of it inside the picture",
        )


def _inside(region: Region | None, image: Pixels, seen: Array, border: int) -> Array:
    """Rows × columns of what was seen: 1 in the region, but not at the border of the picture."""
    height, width = image.shape[:2]
    wide, high, left, top = region or (width, height, 0, 0)
    rows, columns = ((np.arange(count) + 0.5) / count for count in seen.shape[2:])
    inside = np.outer(
        (rows > top / height) & (rows < (top + high) / height),
        (columns > left / width) & (columns < (left + wide) / width),
    ).astype(np.float32)
    inside[[*range(border), *range(-border, 0)]] = 0
    inside[:, [*range(border), *range(-border, 0)]] = 0
    if not inside.any():
        raise ModelError("the region is outside of the pictures, or too small to judge anything in it")
    return inside


def _outliers(scores: Array) -> list[int]:
    """Those that are far beyond nearly all others, the farthest first: a few only, or else it is how parts are."""
    few = max(1, int(_FEW * len(scores)))
    order = np.argsort(-scores)
    return [int(number) for number in order[:few] if scores[number] > _FAR * scores[order[few]]]
