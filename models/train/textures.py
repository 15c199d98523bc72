"""Surfaces that nobody owns, with blemishes that everybody knows where they are: what the backbone learns from.

::

    python -m models.train.textures OUT [--count 600] [--seed 0]   MVTec-style: train/good, test/blemish, ground_truth

A backbone must not know one surface only, so each picture is another one: noise of any grain and direction, weaves,
tiles, parts on a background, under uneven light. Half of them carry blemishes: spots, scratches, stains, patches
of another surface, out of place or out of focus.
"""

from __future__ import annotations

import argparse
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent import catalogue

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

SIZE: Final = (512, 384)


def noise(random: np.random.Generator, shape: tuple[int, int], grain: float, stretch: float, angle: float) -> Array:
    """Smooth noise, mean 0, deviation 1; ``grain``: pixels, ``stretch``: how much longer than wide, along ``angle``."""
    rows, columns = np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij")
    along = rows * np.sin(angle) + columns * np.cos(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    keep = np.exp(-((along * grain * stretch) ** 2 + (across * grain) ** 2) * 4)
    field = np.fft.ifft2(np.fft.fft2(random.normal(size=shape)) * keep).real
    even: Array = (field - field.mean()) / (field.std() + 1e-9)
    return even


def surface(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """A surface without a blemish: height x width x 3, 0 to 255, real."""
    kinds: tuple[Callable[..., Array], ...] = (_grained, _woven, _tiled, _parts)
    field = kinds[random.integers(len(kinds))](random, shape)
    base = random.uniform(40, 210) + random.uniform(-25, 25, 3)
    tint = 1 + random.normal(0, 0.15, 3)
    light = 1 + 0.25 * noise(random, shape, random.uniform(150, 600), 1, 0) * random.uniform(0, 1)
    image = (base + random.uniform(4, 35) * field[..., None] * tint) * light[..., None]
    grainy: Array = image + random.normal(0, random.uniform(0.5, 4), (*shape, 1))
    return grainy


def _grained(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    stretch = random.choice([1.0, 1.0, 4.0, 20.0])
    angle = random.uniform(0, np.pi)
    coarse = noise(random, shape, random.uniform(8, 60), stretch, angle)
    fine = noise(random, shape, random.uniform(1, 8), stretch, angle)
    field: Array = 0.7 * fine + random.uniform(0, 1) * coarse
    return field


def _woven(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    angle, period = random.uniform(0, np.pi), random.uniform(6, 40)
    bend = 0.4 * noise(random, shape, 120, 1, 0)
    one = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / period + bend)
    other = np.sin(2 * np.pi * (rows * np.cos(angle) - columns * np.sin(angle)) / (period * random.uniform(0.6, 2)))
    field: Array = one * random.uniform(0.4, 1) + other * random.choice([0.0, 0.6])
    return field + 0.3 * noise(random, shape, 2, 1, 0)


def _tiled(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    high, wide = random.integers(12, 70, 2)
    tile = noise(random, (int(high), int(wide)), random.uniform(2, 8), 1, 0)
    repeats = (shape[0] // high + 1, shape[1] // wide + 1)
    return np.tile(tile, repeats)[: shape[0], : shape[1]] + 0.2 * noise(random, shape, 1.5, 1, 0)


def _parts(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Rings, discs and bars on a background: edges belong to the picture."""
    field = 0.3 * noise(random, shape, random.uniform(1, 10), 1, 0)
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    for _ in range(random.integers(1, 8)):
        row, column = random.uniform(0, shape[0]), random.uniform(0, shape[1])
        size = random.uniform(20, 140)
        level = random.uniform(-3, 3)
        if random.random() < 0.5:
            far = np.hypot(rows - row, columns - column)
            inside = (far < size) & (far > size * random.choice([0.0, 0.5, 0.8]))
        else:
            angle = random.uniform(0, np.pi)
            along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
            across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
            inside = (np.abs(along) < size) & (np.abs(across) < size * random.uniform(0.1, 0.8))
        field = np.where(inside, level + 0.5 * field, field)
    return field


def blemish(random: np.random.Generator, image: Array) -> tuple[Array, Array]:
    """The surface with one blemish, and where it is (bool)."""
    shape = image.shape[:2]
    mask = _outline(random, shape)
    soft = _soft(mask.astype(float), random.uniform(0.5, 1.5))[..., None]
    inside = image[mask].mean() if mask.any() else 128.0
    dice = random.random()
    if dice < 0.35:  # a spot or pit
        change = random.uniform(20, 90) * random.choice([-1, -1, 1])
        other = image * random.uniform(0.2, 1) + (inside * (1 - 0.5) + change * 0.5 if dice < 0.1 else change)
    elif dice < 0.5:  # a stain
        other = image * (1 - random.uniform(0.15, 0.6) * random.uniform(0, 1, 3))
    elif dice < 0.7:  # another surface
        other = surface(random, shape)
        other = other - other.mean() + inside + random.uniform(-25, 25)
    elif dice < 0.88:  # out of place
        other = np.roll(image, random.integers(20, 200, 2), axis=(0, 1))[:: random.choice([1, -1])]
    else:  # worn smooth
        other = np.stack([_soft(image[..., k], random.uniform(4, 10)) for k in range(3)], axis=2) + random.uniform(
            -12, 12
        )
    changed = image * (1 - soft) + other * soft
    visible = np.abs(changed - image).mean(axis=2) > 5
    return changed, mask & (_soft(visible.astype(float), 2) > 0.25)


def _outline(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """A blob or a scratch somewhere."""
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    row, column = random.uniform(15, shape[0] - 15), random.uniform(15, shape[1] - 15)
    size = float(np.exp(random.uniform(np.log(3), np.log(45))))
    angle = random.uniform(0, np.pi)
    along = (rows - row) * np.sin(angle) + (columns - column) * np.cos(angle)
    across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    if random.random() < 0.3:
        across = across + 0.15 * size * np.sin(along / (size + 1) * random.uniform(1, 4))
        found: Array = (np.abs(along) < 2.5 * size + 6) & (np.abs(across) < random.uniform(1, 3))
        return found
    ragged = 1 + 0.35 * noise(random, shape, max(3.0, size), 1, 0)
    blob: Array = np.hypot(along / random.uniform(0.6, 1.6), across) < size * np.clip(ragged, 0.3, 2)
    return blob


def _soft(field: Array, sigma: float) -> Array:
    """Gaussian blur, periodic."""
    rows, columns = np.meshgrid(np.fft.fftfreq(field.shape[0]), np.fft.rfftfreq(field.shape[1]), indexing="ij")
    keep = np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2))
    return np.fft.irfft2(np.fft.rfft2(field) * keep, field.shape)


def png(mask: Array) -> bytes:
    """A grey PNG of 8 bits."""
    height, width = mask.shape
    lines = np.pad(mask.astype(np.uint8), ((0, 0), (1, 0))).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def write(out: Path, count: int, seed: int) -> None:
    """As many good ones as blemished ones, MVTec-style."""
    encode: Callable[..., bytes] = catalogue.load(catalogue.PICTURES, "encode")
    for folder in ("train/good", "test/blemish", "ground_truth/blemish"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        image = surface(random, SIZE[::-1])
        marks = np.zeros(image.shape[:2], bool)
        for _ in range(random.integers(1, 4) if number % 2 else 0):
            image, mark = blemish(random, image)
            marks |= mark
        picture = encode(np.clip(image, 0, 255).astype(np.uint8), 95)
        name = f"{number:05}"
        place = f"test/blemish/{name}.jpg" if marks.any() else f"train/good/{name}.jpg"
        (out / place).write_bytes(picture)
        if marks.any():
            (out / f"ground_truth/blemish/{name}_mask.png").write_bytes(png(marks * 255))


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    write(chosen.out, chosen.count, chosen.seed)


if __name__ == "__main__":
    main()
