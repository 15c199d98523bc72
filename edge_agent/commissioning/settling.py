"""When a sensor has come to rest beside its reference, and how well its mean is known then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Final

LEAST_READINGS: Final = 10
# How fast a quantity may still drift, in its unit per minute, and the smallest step that sensors of it resolve.
DRIFT: Final = {"temperature": 0.05, "relative_humidity": 0.25, "pressure": 15.0}
STEP: Final = {"temperature": 0.01, "relative_humidity": 0.05, "pressure": 1.0}
# Further from the reference than this it is no calibration: the reference is elsewhere, or the sensor is broken.
FARTHEST: Final = {"temperature": 5.0, "relative_humidity": 15.0, "pressure": 1500.0}
APART: Final = {"temperature": 5.0, "relative_humidity": 15.0, "pressure": 2000.0}


@dataclass(frozen=True, slots=True)
class Rest:
    """A quantity at rest. ``drift``: per minute; ``type_a``: standard uncertainty of ``mean``, scatter and drift."""

    mean: float
    scatter: float
    drift: float
    count: int
    type_a: float


def rest(points: Sequence[tuple[float, float]], quantity: str, span_s: float) -> Rest | None:
    """The last ``span_s`` of (seconds, value), if they no longer drift; None while they do or are too few.

    The slope must be below the limit even at the far end of its own uncertainty, so that noise cannot pass for rest.
    """
    if not points or points[-1][0] - points[0][0] < span_s:
        return None
    tail = [(at_s, value) for at_s, value in points if at_s >= points[-1][0] - span_s]
    if len(tail) < LEAST_READINGS:
        return None
    times, values = [at for at, _ in tail], [value for _, value in tail]
    middle_t, mean = fmean(times), fmean(values)
    spread = sum((at - middle_t) ** 2 for at in times)
    slope = sum((at - middle_t) * (value - mean) for at, value in tail) / spread
    left = [value - mean - slope * (at - middle_t) for at, value in tail]
    noise = sqrt(sum(each**2 for each in left) / (len(left) - 2))
    slope_error = noise / sqrt(spread)
    if (abs(slope) + 2 * slope_error) * 60 > DRIFT[quantity]:
        return None
    scatter = stdev(values)
    # Resolution and what it still drifts in half of the span are rectangular: half width / √3.
    type_a = sqrt((scatter / sqrt(len(values))) ** 2 + (STEP[quantity] / sqrt(12)) ** 2 + (slope * span_s / 2) ** 2 / 3)
    return Rest(mean, scatter, slope * 60, len(values), type_a)


@dataclass(frozen=True, slots=True)
class Line:
    """``value = raw × gain + offset``; ``uncertainty``: expanded (k = 2) at the points themselves."""

    gain: float
    offset: float
    uncertainty: float


def line(points: Sequence[tuple[Rest, float]], reference_u: float) -> Line:
    """Through one point an offset, through two a gain and an offset. ``reference_u``: expanded (k = 2)."""
    worst = max(at_rest.type_a for at_rest, _ in points)
    uncertainty = 2 * sqrt(worst**2 + (reference_u / 2) ** 2)
    low, reference_low = points[0]
    if len(points) == 1:
        return Line(1.0, reference_low - low.mean, uncertainty)
    high, reference_high = points[1]
    gain = (reference_high - reference_low) / (high.mean - low.mean)
    return Line(gain, reference_low - gain * low.mean, uncertainty)


def objections(quantity: str, points: Sequence[tuple[Rest, float]]) -> list[str]:
    """Why this is no calibration; empty when it is one."""
    found = [
        f"the sensor says {at_rest.mean:.2f} where the reference says {reference:g}: that is too far apart for a "
        "calibration (is the reference beside it? is the sensor broken?)"
        for at_rest, reference in points
        if abs(at_rest.mean - reference) > FARTHEST[quantity]
    ]
    if len(points) == 2 and abs(points[1][1] - points[0][1]) < APART[quantity]:
        found.append(f"two points must be at least {APART[quantity]:g} apart")
    elif len(points) == 2 and not 0.8 < (points[1][0].mean - points[0][0].mean) / (points[1][1] - points[0][1]) < 1.25:
        found.append("between the two points the sensor moved too much or too little to be sound")
    return found
