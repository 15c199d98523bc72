"""Readings of different rates on one grid, as the detector would have held them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from edge_agent.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

HOLD_PERIODS: Final = 3.0  # for so many of its periods a value stands
_LARGEST_STEPS: Final = 200_000

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Quantity → its times in seconds, rising, and its values (NaN: absent)."""


class Aligned(NamedTuple):
    """All quantities on one grid: ``values`` has the shape (N, Q), NaN where there is none."""

    quantities: tuple[str, ...]
    times_s: Array
    values: Array
    every_s: float
    hold_s: tuple[float, ...]


def align(series: Series, every_s: float | None = None) -> Aligned:
    """Quantities of different rates on one grid: the last value of each, as the detector would hold it.

    ``every_s``: the grid; default the fastest quantity's period, at least 1 s. A value stands for three of its periods.
    Raises ModelError when there is nothing to align.
    """
    names = tuple(series)
    taken = [np.asarray(series[name][0], float) for name in names]
    periods = [float(np.median(np.diff(times))) if len(times) > 1 else np.inf for times in taken]
    known = [period for period in periods if 0 < period < np.inf]
    if not known:
        raise ModelError("no quantity has two readings", hint="run the line for longer")
    every_s = every_s or max(1.0, round(min(known), 3))
    begin, end = min(times[0] for times in taken if len(times)), max(times[-1] for times in taken if len(times))
    if (end - begin) / every_s > _LARGEST_STEPS:
        raise ModelError(f"{(end - begin) / 3600:.0f} h are too long at {every_s:g} s", hint="calibrate on a few hours")
    grid = begin + every_s * np.arange(int((end - begin) / every_s) + 1)
    hold_s = [HOLD_PERIODS * max(period if np.isfinite(period) else 0.0, every_s) for period in periods]
    values = np.full((len(grid), len(names)), np.nan)
    for column, (name, times) in enumerate(zip(names, taken, strict=True)):
        last = np.searchsorted(times, grid, side="right") - 1
        fresh = last >= 0
        fresh[fresh] = grid[fresh] - times[last[fresh]] <= hold_s[column]
        values[fresh, column] = np.asarray(series[name][1], float)[last[fresh]]
    return Aligned(names, grid, values, every_s, tuple(hold_s))
