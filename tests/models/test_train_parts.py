"""Who learns and who examines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.train import parts

few = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), min_size=1, max_size=60)


@given(few, st.integers(0, 5))
def test_a_part_is_never_on_both_sides(samples, seed):
    """Whatever the parts and classes are."""
    groups = [str(group) for group, _ in samples]
    sides = parts.split(groups, [label for _, label in samples], (0.6, 0.2, 0.2), seed)
    assert all(len({int(s) for s, g in zip(sides, groups, strict=True) if g == name}) == 1 for name in set(groups))


@given(few, st.integers(2, 5), st.integers(0, 5))
def test_each_part_is_held_out_once(samples, count, seed):
    """Folds share no part, and each picture is in exactly one."""
    groups = [str(group) for group, _ in samples]
    numbers = parts.folds(groups, [label for _, label in samples], count, seed)
    assert set(numbers.tolist()) <= set(range(count))
    assert all(len({int(n) for n, g in zip(numbers, groups, strict=True) if g == name}) == 1 for name in set(groups))


def test_classes_are_shared_out_evenly():
    """Also the rare one."""
    labels = ["good"] * 800 + ["rare"] * 40
    sides = parts.split([str(k) for k in range(840)], labels, (0.7, 0.1, 0.2), 1)
    for side, share in enumerate((0.7, 0.1, 0.2)):
        rare = sum(label == "rare" for label, s in zip(labels, sides, strict=True) if s == side)
        assert rare == pytest.approx(40 * share, abs=1)
        assert (sides == side).sum() == pytest.approx(840 * share, abs=2)


def test_the_same_seed_splits_the_same_way():
    """And another one does not."""
    groups, labels = [str(k) for k in range(50)], ["good", "bad"] * 25
    one, again, other = (parts.split(groups, labels, (0.5, 0.2, 0.3), seed).tolist() for seed in (3, 3, 4))
    assert one == again
    assert one != other


def pictures_of(seed, count=12):
    random = np.random.default_rng(seed)
    thumbs = np.kron(random.integers(0, 256, (count, 8, 8), np.uint8), np.ones((8, 8), np.uint8))
    return thumbs, thumbs[:, ::4, np.linspace(0, 63, 17).astype(int)].copy()


def test_copies_are_found_whatever_they_are_called():
    """Also where a codec changed the last digit; other pictures are none."""
    thumbs, small = pictures_of(0)
    thumbs[7] = np.clip(thumbs[2].astype(int) + 1, 0, 255)
    small[7] = small[2]
    found = parts.copies(parts.look(small), thumbs)
    assert found.sets == ((2, 7),)


def test_copies_join_their_parts_and_contradictions_are_told():
    """A copy in another part makes both one; a copy with another label teaches nothing."""
    thumbs, small = pictures_of(1, 5)
    for copy in (1, 4):
        thumbs[copy], small[copy] = thumbs[0], small[0]
    found = parts.copies(parts.look(small), thumbs)
    groups = parts.joined(["a", "b", "c", "d", "e"], found)
    assert groups[0] == groups[1] == groups[4]
    assert len(set(groups)) == 3
    assert found.contradictions(["x", "x", "x", "x", "y"]) == ((0, 1, 4),)
    assert found.contradictions(["x", "x", "y", "y", "x"]) == ()


def test_what_is_nearly_the_same_is_no_copy():
    """The same part a moment later, a little brighter: a neighbour, not a copy."""
    thumbs, small = pictures_of(2, 3)
    thumbs[1] = np.clip(thumbs[0].astype(int) + 6, 0, 255)
    small[1] = small[0]
    assert parts.copies(parts.look(small), thumbs).sets == ()
