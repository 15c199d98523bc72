"""Two tails of statistics that limits are made of, to about nine digits, without a statistics library."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log, log1p

_STEPS = 200


def student_limit(tail: float, degrees: float) -> float:
    """The value that a Student t with so many degrees of freedom passes upwards with probability ``tail`` (< 0.5)."""
    low, high = 0.0, 1.0
    while student_tail(high, degrees) > tail:
        low, high = high, high * 2.0
    return _bisect(lambda value: student_tail(value, degrees) > tail, low, high)


def student_tail(value: float, degrees: float) -> float:
    """P(T > value) for value ≥ 0."""
    return 0.5 * _incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + value * value))


def most_events(seen: int, confidence: float = 0.95) -> float:
    """The largest expected number with which seeing so few events still happens with probability 1 − confidence."""

    def at_most(expected: float) -> float:
        term = total = exp(-expected)
        for count in range(1, seen + 1):
            term *= expected / count
            total += term
        return total

    return _bisect(lambda expected: at_most(expected) > 1.0 - confidence, 0.0, 10.0 * (seen + 1))


def _bisect(below: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        low, high = (middle, high) if below(middle) else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, by the continued fraction (Abramowitz and Stegun 26.5.8, evaluated after Lentz)."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = exp(a * log(x) + b * log1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a
    tiny = 1e-300
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / (1.0 + term * d or tiny)
            c = 1.0 + term / c or tiny
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return front * fraction
