"""The figures that people act on, and the page that they look at."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import EdgeAgentError
from models.train import metrics, packing, report
from models.train.examine import Parity, Result, Said
from models.train.pictures import Sample
from models.train.pixels import Pixels

some = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60)


def arrays(pairs):
    return np.array([score / 20 for score, _ in pairs]), np.array([bad for _, bad in pairs])


@given(some)
def test_auroc_is_the_chance_that_bad_scores_higher(pairs):
    """Against the definition, pair by pair."""
    scores, bad = arrays(pairs)
    against = [(b > g) + 0.5 * (b == g) for b in scores[bad] for g in scores[~bad]]
    found = metrics.auroc(scores, bad)
    assert found == pytest.approx(np.mean(against)) if against else np.isnan(found)


@given(some, st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_no_more_good_parts_are_refused_than_allowed(pairs, allowed):
    """And no lower threshold would do: what is refused less, finds no more."""
    scores, bad = arrays(pairs)
    if bad.all():
        return
    chosen = metrics.threshold_for(scores, bad, allowed)
    assert metrics.at(chosen, scores, bad).false_rejects <= allowed
    lower = scores[scores < chosen]
    if len(lower):
        assert metrics.at(lower.max(), scores, bad).false_rejects > allowed


@given(some)
def test_the_fewest_mistakes(pairs):
    """No other threshold makes fewer."""
    scores, bad = arrays(pairs)
    wrong = [(bad != (scores >= value)).sum() for value in scores]
    assert (bad != (scores >= metrics.threshold_for(scores, bad, None))).sum() == min(wrong)


@pytest.mark.parametrize(("count", "of", "limit"), [(0, 10, 0.2589), (0, 300, 0.00994), (1, 100, 0.0466), (5, 5, 1.0)])
def test_small_numbers_prove_little(count, of, limit):
    """Upper 95 % bounds from tables (Clopper and Pearson): none of 10 may still be one in four."""
    assert metrics.upper(count, of) == pytest.approx(limit, rel=0.01)


def test_classes_by_hand():
    """Precision, recall and F1 of a small confusion matrix; a class that does not occur counts nowhere."""
    matrix = metrics.confusion(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0]), 3)
    first, second, third = metrics.per_class(matrix)
    assert first[:3] == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert second[:3] == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert np.isnan(third.recall)
    assert metrics.macro_f1(matrix) == pytest.approx((2 / 3 + 1 / 2) / 2)


def result(classes=True):
    random = np.random.default_rng(0)
    truth = np.arange(30) % 3
    bad = truth > 0
    scores = np.clip(0.5 + 0.3 * np.where(bad, 1, -1) + random.normal(0, 0.2, 30), 0, 1)
    said = np.where(scores >= 0.5, 1 + (truth == 2), 0) if classes else np.full(30, -1)
    return Result(np.arange(30), Said(scores, said), truth, bad, ("good", "a<b>", "dent"), 0.5)


def page(**how):
    images = np.random.default_rng(1).integers(0, 255, (30, 24, 32, 3), np.uint8)
    masks = {4: np.pad(np.ones((6, 6), np.uint8), ((9, 9), (13, 13)))}
    samples = [Sample(Path(f"p<{k}>.jpg"), "good", str(k)) for k in range(30)]
    pixels = Pixels(images, masks, images[:, 0], images[:, 0])
    return report.render("pit & co", result(**how), Parity(1, 1, 1, 0.99, 30), samples, pixels, [("seed", "0")], ["x"])


@pytest.mark.parametrize("classes", [True, False])
def test_the_page_is_whole_and_refers_to_nothing(classes):
    """Every tag is closed, names are escaped, pictures are inside, no script."""
    text = page(classes=classes)
    open_tags = []

    class Check(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "path", "rect", "polyline"):
                open_tags.append(tag)
            for key, value in attrs:
                assert key not in ("href", "onload")
                assert key != "src" or value.startswith("data:image/jpeg;base64,")

        def handle_endtag(self, tag):
            if tag not in ("path", "rect", "polyline"):
                assert open_tags.pop() == tag

    Check().feed(text)
    assert open_tags == []
    assert "<script" not in text
    assert "a<b>" not in text
    assert "pit &amp; co" in text


def test_a_mistake_in_a_large_picture_is_shown_from_near():
    """A missed pit where its label is, a false alarm where the model saw it: two views in its figure."""
    images = np.full((2, 200, 300, 3), 90, np.uint8)
    masks = {0: np.pad(np.ones((6, 6), np.uint8), ((9, 185), (283, 11)))}
    samples = [Sample(Path(f"{k}.jpg"), "good", str(k)) for k in range(2)]
    said = Said(np.array([0.1, 0.9]), np.full(2, -1), np.array([[-1, -1], [10, 190]]))
    found = Result(np.arange(2), said, np.array([1, 0]), np.array([True, False]), ("good", "pit"), 0.5)
    sheet = report._sheet(found, samples, Pixels(images, masks, images[:, 0], images[:, 0]))
    assert [each.count("<img") for each in sheet.split("<figure>")[1:]] == [2, 2]


def test_the_worst_mistakes_come_first():
    """Those that are surest of what is wrong; right answers are not shown."""
    found = result()
    order = report.worst(found)
    off = [abs(found.said.scores[k] - 0.5) for k in order]
    assert off == sorted(off, reverse=True)
    assert all((found.said.scores[k] >= 0.5) != found.bad[k] for k in order)
    assert len(re.findall("<figure><img", page())) == len(order)


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1]])
def test_a_model_that_tells_nothing_apart_becomes_no_bundle(scores):
    """All its scores on the threshold, or every one on the wrong side: that is what people are told."""
    good, bad = [False, False], [True, True]
    said = Said(np.array(scores), np.zeros(4, int))
    result = Result(np.arange(4), said, np.array([0, 0, 1, 1]), np.array([*good, *bad]), ("good", "pit"), 0.5)
    made = SimpleNamespace(result=result, parity=Parity(1.0, 1.0, 1.0, 1.0, 4), extra={})
    with pytest.raises(EdgeAgentError, match="did not learn to tell good from bad"):
        packing.golden_samples(made, made)
