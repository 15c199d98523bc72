"""How well a piece of normal running tells how far a quantity goes: looks, tails, and noise against wandering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.train.alignment import HOLD_PERIODS, Aligned

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


def independent_looks(series: Array) -> float:
    """How many independent looks at its own variance a series holds: N / Σρ² over all lags (Bartlett)."""
    count = len(series)
    centred = series - series.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * count)) ** 2
    correlation = np.fft.irfft(spectrum)[:count]
    if correlation[0] <= 0:
        return 0.0
    correlation = correlation / correlation[0]
    faded = np.flatnonzero(correlation < 0.05)  # beyond it there is only the noise of the estimate
    reach = faded[0] if len(faded) else count
    return float(count / (1.0 + 2.0 * (correlation[1:reach] ** 2).sum()))


def tail_degrees(column: Array) -> float:
    """Degrees of freedom of the Student t that has this kurtosis: unsteady running has heavier tails than noise."""
    square = column**2
    power = float(square.mean())
    excess = float((square**2).mean()) / power**2 - 3.0 if power else 0.0
    return 4.0 + 6.0 / max(excess, 1e-3)


def wander(both: Array, values: Array, explained: Array, data: Aligned, fast_s: Sequence[float]) -> Array:
    """How much further each deviation goes than the noise of its readings explains, at least 1, shape (K, 2, Q).

    What is only noise goes as far tomorrow as it did today. A temperature or a level that wanders does not.
    """
    count = values.shape[1]
    ratio = np.ones(both.shape[1:])
    known = np.isfinite(both)
    size = np.sqrt((np.where(known, both, 0.0) ** 2).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    for index in range(count):
        period_s = data.hold_s[index] / HOLD_PERIODS
        lag = max(1, round(period_s / data.every_s))
        steps = values[lag:] - values[:-lag]
        for scale, fast in enumerate(fast_s):
            gain = 1.0 - np.exp(-period_s / fast)
            smoothed = np.sqrt(gain / (2.0 - gain))  # what of the noise a mean leaves
            for kind, weights in enumerate((np.zeros(count), explained[scale, index])):
                used = np.flatnonzero(weights)
                noise = steps[:, index] - steps[:, used] @ weights[used]
                noise = noise[np.isfinite(noise)]
                expected = smoothed * np.sqrt((noise**2).mean() / 2.0) if len(noise) else 0.0
                if expected > 0:
                    ratio[scale, kind, index] = max(1.0, size[scale, kind, index] / expected)
    return ratio


def span(values: Array) -> Array:
    """From the lowest to the highest value of each quantity; 0 where there is none."""
    known = np.isfinite(values)
    span = np.where(known, values, -np.inf).max(axis=0) - np.where(known, values, np.inf).min(axis=0)
    found: Array = np.where(known.any(axis=0), span, 0.0)
    return found
