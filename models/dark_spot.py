"""The rule ``dark-spot``: without any training it finds dark spots (pits, holes, stains) on a brighter product.

The picture is divided into cells, 96 along its longer side, and each cell has its mean grey level. A morphological
closing over 7 × 7 cells fills every dark thing that is narrower than 7 cells in both directions; what it filled is
a spot, and how much it filled, as a share of the full scale, is the score. Large dark areas (the belt beside the
product) stay as they are and count nothing. The same picture always has the same score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.camera_settings import RuleSection
from edge_agent.vocabulary import DEFECT, GOOD, Judgement

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CELLS = 96
_REACH = 3  # cells on either side: a spot is narrower than 7


class DarkSpot:
    """Stateless; see above."""

    Settings = RuleSection

    def __init__(self, settings: RuleSection) -> None:
        self._threshold = settings.threshold

    @property
    def decided_by(self) -> str:
        return "rule/dark-spot@1"

    @property
    def model_sha256(self) -> str | None:
        return None

    def open(self) -> None:
        """Nothing to load."""

    def judge(self, image: Any) -> Judgement:
        cell = max(1, max(image.shape[:2]) // _CELLS)
        grey = cells(image, cell)
        filled = closing(grey) - grey
        row, column = divmod(int(filled.argmax()), grey.shape[1])
        score = float(filled[row, column]) / 255
        label = DEFECT if score >= self._threshold else GOOD
        where: dict[str, object] = {"at_px": [int((column + 0.5) * cell), int((row + 0.5) * cell)]}
        return Judgement(label, round(score, 4), self._threshold, where if label == DEFECT else {})


def cells(image: npt.NDArray[np.uint8], cell: int) -> npt.NDArray[np.float32]:
    """Mean grey level (ITU-R BT.601) of each cell; an incomplete one at the edge is left out."""
    rows, columns = image.shape[0] // cell, image.shape[1] // cell
    # Whole rows first: that is ten times as fast as both directions at once.
    strips = image[: rows * cell, : columns * cell].reshape(rows, cell, columns * cell * 3).sum(axis=1, dtype="uint32")
    sums = strips.reshape(rows, columns, cell, 3).sum(axis=2)
    grey: npt.NDArray[np.float32] = (sums @ [0.114, 0.587, 0.299] / cell**2).astype("float32")
    return grey


def closing(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Grey-scale closing over 7 × 7 cells; beyond the edge the picture goes on as it ended."""
    import numpy as np  # noqa: PLC0415 - whoever only reads settings does not pay for it

    wide = np.pad(grey, 2 * _REACH, mode="edge")
    for axis in (0, 1):
        wide = np.lib.stride_tricks.sliding_window_view(wide, 2 * _REACH + 1, axis=axis).max(axis=-1)
    for axis in (0, 1):
        wide = np.lib.stride_tricks.sliding_window_view(wide, 2 * _REACH + 1, axis=axis).min(axis=-1)
    return wide
