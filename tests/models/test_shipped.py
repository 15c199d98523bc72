"""The models that come with the product: whole, small, signed, and the same on both runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from models import bundle, golden, judge, keys
from models.releases import SHIPPED
from models.train.recipe import read_recipe

NAMES = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
VARIANTS = ("int8-onnx", "int8-tflite")
each_bundle = pytest.mark.parametrize("name", NAMES)


def shipped(name):
    return bundle.load(SHIPPED / name, keys.trusted(folders=[keys.SHIPPED]))


def test_both_are_there():
    """The defect network and the one of many classes."""
    assert {"pitting", "thermal-modules"} <= set(NAMES)


@each_bundle
def test_it_is_signed_by_a_key_that_ships(name):
    """And says who it is, what it learned from, under which licence, how good it is and by which command."""
    found = shipped(name)
    assert found.signed_by is not None
    assert found.card.name == name
    assert all(each.licence and each.source for each in found.card.data)
    assert "edge-agent train defects" in found.card.metrics["command"]
    assert found.card.metrics["auroc"] > 0.9
    assert found.files["NOTICE.txt"]


@each_bundle
def test_it_is_small(name):
    """At most 1 MB a file; all of them together below 4 MB."""
    assert all(len(shipped(name).files[file.name]) <= 1_000_000 for file in shipped(name).card.files)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 4_000_000


@each_bundle
def test_its_recipe_comes_along(name):
    """The card is what the recipe says."""
    recipe, card = read_recipe(name), shipped(name).card
    assert (recipe.size, recipe.colour) == (card.input.size, card.input.colour)
    assert [each.name for each in recipe.data] == [each.name for each in card.data]


@each_bundle
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_decides_as_it_should_here(name, variant):
    """Golden pictures, good and bad, on each runtime."""
    found = shipped(name)
    judge.load(found, variant)
    assert {"good", "defect"} <= set(golden.read(found.golden).labels.tolist())


def variations(found):
    """The golden pictures under other light, turned, shifted: two dozen that nobody tuned anything on."""
    random = np.random.default_rng(0)
    for image in golden.read(found.golden).inputs:
        for _ in range(6):
            changed = np.roll(image.astype(np.float32), random.integers(-3, 4, 2), axis=(0, 1))
            changed = changed * random.uniform(0.8, 1.2) + random.normal(0, 3, image.shape)
            yield np.clip(changed[:: random.choice((1, -1))], 0, 255).astype(np.uint8)


@each_bundle
def test_both_runtimes_say_the_same(name):
    """The same class or decision, and scores that differ by no more than a few steps of 8 bits."""
    found = shipped(name)
    onnx, tflite = (judge.build(found, variant) for variant in VARIANTS)
    agreed, off, count = 0, [], 0
    for image in variations(found):
        one, other = onnx.judge(image), tflite.judge(image)
        count += 1
        agreed += (one.label, one.details.get("class")) == (other.label, other.details.get("class"))
        off.append(abs(one.score - other.score))
    assert agreed >= 0.9 * count
    assert np.mean(off) < 0.05


@each_bundle
def test_an_almost_black_picture_is_not_brightened(name):
    """The same numbers go in whatever the picture holds: two shades of black differ by what the card says, no more."""
    found = shipped(name)
    width, height = found.card.input.size
    one = judge.build(found, "int8-onnx")
    said = [one.judge(np.full((height, width, 3), level, np.uint8)).score for level in (0, 1)]
    assert abs(said[0] - said[1]) < 0.2


def test_pitting_says_where():
    """A defect has its place."""
    found = shipped("pitting")
    kept = golden.read(found.golden)
    image = kept.inputs[kept.labels.tolist().index("defect")]
    answer = judge.build(found).judge(image)
    left, top, width, height = answer.details["box_px"]
    assert left <= answer.details["at_px"][0] <= left + width
    assert top <= answer.details["at_px"][1] <= top + height
