"""Computed surfaces: each another one, blemishes where the mask says, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from drivers import opencv
from models.train import pictures, textures


def test_a_blemish_is_where_its_mask_is():
    """The picture changes inside of the mask and hardly anywhere else."""
    seen = 0
    for number in range(12):
        random = np.random.default_rng(number)
        image = textures.surface(random, (96, 128))
        changed, mask = textures.blemish(random, image)
        off = np.abs(changed - image).mean(axis=2)
        if mask.sum() > 20:
            seen += 1
            assert off[mask].mean() > 3
            assert off[~mask].mean() < 0.5 * off[mask].mean()
    assert seen > 6


def test_a_mask_is_a_png_that_reads_back():
    """What is written is what a decoder sees."""
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 7:21] = 255
    assert (opencv.decode(textures.png(mask), 10_000)[..., 0] == mask).all()


def test_the_folder_is_one_that_training_reads(tmp_path):
    """Half good, half with a blemish and its mask; the same seed gives the same pictures."""
    for name in ("a", "b"):
        textures.write(tmp_path / name, 4, seed=1)
    found = pictures.read(tmp_path / "a")
    assert (found.kind, found.labels) == ("regions", ("good", "blemish"))
    assert len(found.samples) == 4
    for sample in found.samples:
        twin = tmp_path / "b" / sample.path.relative_to(tmp_path / "a")
        assert twin.read_bytes() == sample.path.read_bytes()


@pytest.mark.parametrize("stretch", [1.0, 20.0])
def test_noise_is_even(stretch):
    """Mean 0 and deviation 1, whatever the grain."""
    field = textures.noise(np.random.default_rng(0), (64, 64), 5, stretch, 0.3)
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1)
