"""A drawn production line: bright round parts on a darker belt, some of them with a dark spot.

Every picture is a pure function of the seed and the time, so that it goes on where it was after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from drivers.pictures import Image

_BELT, _PART, _SPOT = 90, 190, 40  # grey levels
_NOISE = 4.0


class Part(NamedTuple):
    """One part on the belt: its number, where its middle is (0 to 1 across the picture), whether it has a defect."""

    number: int
    across: float
    has_defect: bool


class Conveyor:
    """Draws what the camera would see. ``defect_every``: each n-th part has a spot; 0: none."""

    def __init__(self, size: tuple[int, int], part_every_s: float, defect_every: int, seed: int) -> None:
        self._width, self._height = size
        self._part_every_s = part_every_s
        self._defect_every = defect_every
        self._seed = seed
        rng = np.random.default_rng(seed)
        # The noise of a sensor, drawn once and shifted at random: drawing it anew would cost more than all the rest.
        self._noise = rng.normal(0, _NOISE, (self._height * 2, self._width, 1)).astype(np.int16)
        self._rows, self._columns = np.mgrid[0 : self._height, 0 : self._width].astype(np.float32)

    def part(self, elapsed_s: float, *, defective: bool = False) -> Part:
        """The part in front of the camera: it enters left and leaves right within one period."""
        number, across = divmod(elapsed_s / self._part_every_s, 1.0)
        scripted = self._defect_every > 0 and int(number) % self._defect_every == self._defect_every - 1
        return Part(int(number), across, defective or scripted)

    def draw(self, elapsed_s: float, *, defective: bool = False) -> Image:
        """The picture at that moment."""
        part = self.part(elapsed_s, defective=defective)
        radius = self._height * 0.3
        middle = (part.across * (self._width + 2 * radius) - radius, self._height / 2)
        grey = np.full((self._height, self._width), _BELT, dtype=np.int16)
        self._disc(grey, middle, radius, _PART)
        if part.has_defect:
            turn = np.random.default_rng((self._seed, part.number)).uniform(0, 2 * np.pi)
            spot = (middle[0] + radius * 0.5 * np.cos(turn), middle[1] + radius * 0.5 * np.sin(turn))
            self._disc(grey, spot, self._width * 0.02, _SPOT)
        shift = int(np.random.default_rng((self._seed, int(elapsed_s * 1e6) % 2**63)).integers(self._height))
        noisy = grey[..., None] + self._noise[shift : shift + self._height]
        return np.repeat(noisy.clip(0, 255).astype(np.uint8), 3, axis=2)

    def _disc(self, grey: np.ndarray, middle: tuple[float, float], radius: float, level: int) -> None:
        x, y = middle
        grey[(self._columns - x) ** 2 + (self._rows - y) ** 2 < radius**2] = level
