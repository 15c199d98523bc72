"""How good a model is, in numbers that people act on. NumPy only; scores rise with the suspicion."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


class Row(NamedTuple):
    """What a threshold does: share of good that is refused, its upper bound (95 %), share of bad that is found."""

    threshold: float
    false_rejects: float
    at_most: float
    recall: float


def auroc(scores: Array, bad: Array) -> float:
    """Chance that a bad picture scores higher than a good one; ties count half; NaN where one kind is missing."""
    good, found = np.sort(scores[~bad]), scores[bad]
    if not len(good) or not len(found):
        return float("nan")
    below = np.searchsorted(good, found, "left") + np.searchsorted(good, found, "right")
    return float(below.sum() / (2 * len(good) * len(found)))


def roc(scores: Array, bad: Array) -> tuple[Array, Array]:
    """False-reject rate and recall, for every threshold from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.diff(scores[order]) != 0, True] if len(order) else np.zeros(0, bool)
    found, refused = np.cumsum(bad[order])[last], np.cumsum(~bad[order])[last]
    return np.r_[0.0, refused / max(1, (~bad).sum())], np.r_[0.0, found / max(1, bad.sum())]


def precision_recall(scores: Array, bad: Array) -> tuple[Array, Array]:
    """Recall and precision, for every threshold from the highest down."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(bad[order])
    return found / max(1, bad.sum()), found / np.arange(1, len(order) + 1)


def threshold_for(scores: Array, bad: Array, false_rejects: float | None) -> float:
    """The lowest threshold that refuses at most this share of the good; None: the one with the fewest mistakes.

    It lies halfway to the next lower score, so that it does not depend on the last digit.
    """
    each = np.unique(scores)
    if false_rejects is None:
        wrong = [int((bad != (scores >= value)).sum()) for value in each]
        chosen = int(np.argmin(wrong))
    else:
        allowed = int(false_rejects * (~bad).sum())
        good = np.sort(scores[~bad])[::-1]
        limit = good[allowed] if allowed < len(good) else -inf
        above = np.searchsorted(each, limit, "right")
        if above >= len(each):  # nothing scores higher than that good picture
            return float(np.nextafter(each[-1], inf)) if each[-1] != 0 else 1e-6
        chosen = int(above)
    return float(each[chosen] if chosen == 0 else (each[chosen] + each[chosen - 1]) / 2)


def at(threshold: float, scores: Array, bad: Array) -> Row:
    """What this threshold does to these pictures."""
    refused, good = int((scores[~bad] >= threshold).sum()), int((~bad).sum())
    recall = float((scores[bad] >= threshold).mean()) if bad.any() else float("nan")
    return Row(threshold, refused / max(1, good), upper(refused, good), recall)


def upper(count: int, of: int, confidence: float = 0.95) -> float:
    """Highest rate at which so few would still be seen (exact one-sided binomial bound, Clopper and Pearson 1934)."""
    if count >= of:
        return 1.0
    low, high = count / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(count, of, middle) > 1 - confidence else (low, middle)
    return high


def _at_most(count: int, of: int, rate: float) -> float:
    """Chance of ``count`` or fewer."""
    k = np.arange(1, count + 1)
    logs = np.r_[0.0, np.cumsum(np.log((of - k + 1) / k))] if of else np.zeros(1)
    exponents = np.arange(count + 1)
    return float(np.exp(logs + exponents * np.log(rate) + (of - exponents) * np.log1p(-rate)).sum())


def table(scores: Array, bad: Array, rates: tuple[float, ...] = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)) -> list[Row]:
    """The choice that people have."""
    return [at(threshold_for(scores, bad, rate), scores, bad) for rate in rates]


def confusion(truth: Array, said: Array, classes: int) -> npt.NDArray[np.int64]:
    """Rows: what it is; columns: what was said."""
    return np.bincount(truth * classes + said, minlength=classes**2).reshape(classes, classes)


class Class(NamedTuple):
    """Per class; NaN where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float
    pictures: int


def per_class(matrix: npt.NDArray[np.int64]) -> list[Class]:
    """From a confusion matrix."""
    right, is_, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        Class(
            float(r / s) if s else float("nan"),
            float(r / n) if n else float("nan"),
            float(2 * r / (n + s)) if n + s else float("nan"),
            int(n),
        )
        for r, n, s in zip(right, is_, said, strict=True)
    ]


def macro_f1(matrix: npt.NDArray[np.int64]) -> float:
    """Mean over the classes that occur."""
    return float(np.mean([each.f1 for each in per_class(matrix) if each.pictures]))
