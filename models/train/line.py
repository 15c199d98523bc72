"""What ``calibrate line`` learns from minutes of normal running: which deviations are too much. NumPy only.

How a limit comes about, for every quantity and every scale:

1. The detector's own preprocessing runs over the calibration, so what is measured is what will be judged.
2. Episodes that happen once or twice and are far off are not normal running: they are left out and reported.
   What happens three times is normal, whatever it looks like.
3. Neighbouring moments resemble each other; the autocorrelation says how many independent looks the calibration
   really holds (Bartlett). Fewer than ``FEWEST_LOOKS`` and nothing is known about how far the quantity wanders: it is
   left out and named, and a longer calibration would take it in.
4. The limit is the root mean square times the quantile of Student's t with so many degrees of freedom: few looks
   make wide limits, and so does unsteady running (kurtosis). Its tail is the stated false alarms per day, shared
   among all looks of a day and all rows. A quantity that wanders further than its noise explains will wander further
   still when it is watched for longer: its limit is wider by the root of that ratio, but never more than three times
   all that it did in the calibration.
5. What the others explain is measured on blocks that the weights have not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent.errors import ModelError
from models.deviation import Deviations, rest, rows
from models.train.alignment import Aligned
from models.train.tails import most_events, student_limit
from models.train.wander import independent_looks, span, tail_degrees, wander

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

SCALES: Final = ((6.0, 80.0), (12.0, 160.0), (30.0, 600.0))  # s: fast and slow mean, where the calibration holds them
FEWEST_LOOKS: Final = 4.0
SHORTEST_S: Final = 200.0  # there is nothing to be learnt from less
SHORT_S: Final = 1800.0  # less is warned about
DAY_S: Final = 86400.0
_BLOCKS: Final = 4
_SCALE_FITS: Final = 2.4  # a calibration holds a scale when it is so many times as long as its baseline
_FAR: Final = 8.0  # robust standard deviations
_RECURS: Final = 3  # so many episodes are normal running
_RARELY: Final = 0.05
_RIDGE: Final = 0.1  # of the correlation matrix: quantities that are almost the same must not cancel out
_EXPLAINED: Final = 0.5  # the others must take half of it away, or the row is not worth its false alarms
_EXPLAINING_LOOKS: Final = 16.0
_ABSURD: Final = 1e100
_WIDEST: Final = 3.0  # times all that the quantity did in the calibration
_REACH: Final = 3.0  # root mean squares of what a reading brings
_LOOKS_PER_WEIGHT: Final = 8.0  # weights from fewer looks explain the noise of the calibration


@dataclass(slots=True)
class Fit:
    """What was learnt. ``parameters``: for the card, see :class:`models.anomaly.Parameters`.

    ``rows``: what the network would have been given in the calibration, shape (N, R), for baselines and parity.
    ``warnings``: sentences for the person; ``report``: numbers for the card's metrics.
    """

    quantities: tuple[str, ...]
    every_s: float
    parameters: dict[str, Any]
    rows: npt.NDArray[np.float32]
    warnings: list[str] = field(default_factory=list)
    report: dict[str, float | str] = field(default_factory=dict)


def fit_line(data: Aligned, false_alarms_per_day: float = 1.0) -> Fit:
    """Learn from normal running. Raises ModelError for what cannot be used at all; everything else is a warning."""
    there = np.isfinite(data.values).any(axis=1)  # while the machine is switched off nothing is known of it
    duration_s = float(there.sum() * data.every_s)
    if duration_s < SHORTEST_S * max(1.0, data.every_s):
        raise ModelError(
            f"{duration_s:.0f} s of normal running are too short",
            hint=f"{SHORT_S / 60 * max(1.0, data.every_s):.0f} minutes are good at a reading every {data.every_s:g} s",
        )
    left_out = _unusable(data.quantities, data.values[there])
    values = data.values.copy()
    values[:, [index for index, name in enumerate(data.quantities) if name in left_out]] = np.nan
    unit = max(1.0, data.every_s)
    warnings = _drop_episodes(values, data, round(SCALES[0][1] * unit / data.every_s))
    scales = [scale for scale in SCALES if duration_s >= _SCALE_FITS * scale[1] * unit]
    fast_s, slow_s = [fast * unit for fast, _ in scales], [slow * unit for _, slow in scales]
    resolution = _resolution(values)
    reach = _reach(Deviations(len(data.quantities), fast_s, slow_s), data.times_s, values, resolution)
    state = Deviations(len(data.quantities), fast_s, slow_s, reach)
    own, away = _replay(state, data.times_s, values)
    explained, remaining = _explain(own)
    both = np.stack([own, remaining], axis=2)  # (N, K, 2, Q)
    limits, looks = _limits(both, resolution, duration_s, false_alarms_per_day)
    limits *= np.sqrt(wander(both, values, explained, data, fast_s))
    limits = np.minimum(limits, _WIDEST * span(values))
    for index, name in enumerate(data.quantities):
        if not limits[..., index].any():
            left_out.setdefault(name, "moves too slowly for so short a calibration")
    if not limits.any():
        raise ModelError("nothing here can be judged", hint="; ".join(f"{k}: {v}" for k, v in left_out.items()))
    network_rows = np.stack([rows(each, explained, limits, away=far) for each, far in zip(own, away, strict=True)])
    parameters: dict[str, Any] = {
        "hold_s": list(data.hold_s),
        "fast_s": fast_s,
        "slow_s": slow_s,
        "limits": limits.tolist(),
        "explained": explained.tolist(),
        "reach": reach.tolist(),
        "start": state.snapshot(),
        "left_out": left_out,
    }
    fit = Fit(data.quantities, data.every_s, parameters, network_rows)
    fit.warnings = _warn(data, data.values[there], duration_s, left_out) + warnings
    fit.report = _report(network_rows, duration_s, looks, limits, false_alarms_per_day)
    return fit


def _unusable(quantities: Sequence[str], values: Array) -> dict[str, str]:
    left_out = {}
    for name, column in zip(quantities, values.T, strict=True):
        present = column[np.isfinite(column)]
        if len(present) < len(column) / 2:
            left_out[name] = "absent for more than half of the time"
        elif present.min() == present.max():
            left_out[name] = "constant"
        elif np.abs(present).max() > _ABSURD:
            left_out[name] = "has values that no machine has"
    return left_out


def _resolution(values: Array) -> Array:
    """The smallest step of each quantity that was seen; a finer deviation than a part of it is rounding."""
    steps = np.zeros(values.shape[1])
    for index, column in enumerate(values.T):
        levels = np.unique(column[np.isfinite(column)])
        if len(levels) > 1:
            steps[index] = np.diff(levels).min()
    return steps


def _replay(state: Deviations, times_s: Array, values: Array) -> tuple[Array, Array]:
    """``own`` and ``away`` of every moment."""
    own, away = np.empty((2, len(times_s), *state.fast.shape))
    for index, (at_s, row) in enumerate(zip(times_s, values, strict=True)):
        own[index] = state.advance(row, at_s)
        away[index] = state.away
        state.learn()
    return own, away


def _reach(state: Deviations, times_s: Array, values: Array, resolution: Array) -> Array:
    """How far a single reading may pull, shape (K, Q): what readings bring now and then, never less than one step."""
    square, count = np.zeros(state.fast.shape), np.zeros(state.fast.shape)
    for at_s, row in zip(times_s, values, strict=True):
        known = np.isfinite(state.advance(row, at_s))
        square += np.where(known, state.surprise**2, 0.0)
        count += known
        state.learn()
    return _REACH * np.maximum(np.sqrt(square / np.maximum(count, 1)), resolution)


def _drop_episodes(values: Array, data: Aligned, reach: int) -> list[str]:
    """Far and rare episodes become NaN, in place; one sentence for each quantity.

    Far: from the running median of ``reach`` moments before and after.
    """
    found: dict[str, list[float]] = {}
    floor = _resolution(values)
    for index, name in enumerate(data.quantities):
        known = np.flatnonzero(np.isfinite(values[:, index]))
        if len(known) < 2 * reach:
            continue
        column = values[known, index]
        off = np.abs(column - _running_median(column, reach))
        far = off > _FAR * max(1.4826 * float(np.median(off)), floor[index])
        begins = np.flatnonzero(far & ~np.roll(far, 1))
        if 0 < len(begins) < _RECURS and far.mean() < _RARELY:
            values[known[far], index] = np.nan
            found[name] = [float(data.times_s[known[begin]] - data.times_s[0]) for begin in begins]
    moments = {name: ", ".join(f"{at_s:.0f} s" for at_s in sorted(set(when))[:_RECURS]) for name, when in found.items()}
    return [f"{name}: far off at {when}; left out as not normal" for name, when in moments.items()]


def _running_median(column: Array, reach: int) -> Array:
    padded = np.pad(column, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    parts = np.array_split(windows, max(1, len(column) // 4096))  # a median copies what it is given
    median: Array = np.concatenate([np.median(part, axis=1) for part in parts])
    return median


def _explain(own: Array) -> tuple[Array, Array]:
    """Weights per scale, shape (K, Q, Q), and what they leave on blocks that they have not seen, shape of ``own``."""
    _, scales, count = own.shape
    explained = np.zeros((scales, count, count))
    remaining = np.full_like(own, np.nan)
    for scale in range(scales):
        part = own[:, scale]
        usable = _explainable(part)
        full = np.flatnonzero(np.isfinite(part[:, usable]).all(axis=1))
        if usable.sum() < 2 or len(full) < _BLOCKS * 10:
            continue
        for block in np.array_split(full, _BLOCKS):
            others = np.setdiff1d(full, block)
            unseen = _weights(part[others], usable)
            remaining[block, scale] = [rest(row[None], unseen[None])[0] for row in part[block]]
        explained[scale] = _weights(part[full], usable)
        worth = np.nansum(remaining[full, scale] ** 2, axis=0) < _EXPLAINED**2 * np.nansum(part[full] ** 2, axis=0)
        explained[scale][~worth] = 0.0
        remaining[:, scale, ~worth] = np.nan
    return explained, remaining


def _explainable(part: Array) -> npt.NDArray[np.bool_]:
    """Which quantities may explain and be explained: two that wander slowly always seem to go together."""
    looks = np.zeros(part.shape[1])
    for index, column in enumerate(part.T):
        known = column[np.isfinite(column)]
        if len(known) > len(part) / 4:
            looks[index] = independent_looks(known)
    usable = looks >= _EXPLAINING_LOOKS
    enough: npt.NDArray[np.bool_] = usable & (looks >= _LOOKS_PER_WEIGHT * (usable.sum() - 1))
    return enough


def _weights(part: Array, usable: npt.NDArray[np.bool_]) -> Array:
    """Ridge regression of each usable quantity on the other usable ones, from the inverse of their correlation."""
    weights = np.zeros((len(usable), len(usable)))
    chosen = np.flatnonzero(usable)
    size = np.sqrt((part[:, chosen] ** 2).mean(axis=0))
    chosen, size = chosen[size > 0], size[size > 0]
    if len(chosen) < 2:
        return weights
    scaled = part[:, chosen] / size
    inverse = np.linalg.inv(scaled.T @ scaled / len(scaled) + _RIDGE * np.eye(len(chosen)))
    regression = -inverse / np.diag(inverse)[:, None]
    np.fill_diagonal(regression, 0.0)
    weights[np.ix_(chosen, chosen)] = regression * size[:, None] / size[None, :]
    return weights


def _limits(both: Array, resolution: Array, duration_s: float, per_day: float) -> tuple[Array, Array]:
    """Limits and independent looks, shape (K, 2, Q); 0 where nothing can be said."""
    shape = both.shape[1:]
    spread, looks, tails = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for place in np.ndindex(shape):
        column = both[(slice(None), *place)]
        column = column[np.isfinite(column)]
        if len(column) > 1:
            looks[place] = independent_looks(column)
            spread[place] = max(np.sqrt((column**2).mean()), 0.1 * resolution[place[-1]])
            tails[place] = tail_degrees(column)
    judged = (looks >= FEWEST_LOOKS) & (spread > 0)
    limits = np.zeros(shape)
    for place in zip(*np.nonzero(judged), strict=True):
        tail = per_day * duration_s / (DAY_S * looks[place] * judged.sum())
        limits[place] = spread[place] * student_limit(min(tail / 2.0, 0.1), float(min(looks[place], tails[place])))
    return limits, looks


def _warn(data: Aligned, values: Array, duration_s: float, left_out: Mapping[str, str]) -> list[str]:
    warnings = [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    if duration_s < SHORT_S * max(1.0, data.every_s):
        warnings.append(f"{duration_s / 60:.0f} minutes are short: limits are wide, and slow changes stay unseen")
    gone: dict[str, list[str]] = {}
    for index, name in enumerate(data.quantities):
        missing = float(np.isnan(values[:, index]).mean())
        if 0.02 < missing < 0.5:
            gone.setdefault(f"{missing:.0%}", []).append(name)
    warnings += [f"{_several(names)} absent for {share} of the time" for share, names in gone.items()]
    return warnings


def _several(names: list[str]) -> str:
    """``a was``, ``a, b and 3 others were``."""
    others = f" and {len(names) - 2} others" if len(names) > 2 else ""
    return f"{', '.join(names[:2])}{others} {'were' if len(names) > 1 else 'was'}"


def _report(
    network_rows: npt.NDArray[np.float32], duration_s: float, looks: Array, limits: Array, per_day: float
) -> dict[str, float | str]:
    over = np.abs(network_rows).max(axis=1) >= 1.0
    openings = int((over[1:] & ~over[:-1]).sum() + over[0])
    judged = limits > 0
    return {
        "false_alarms_per_day": per_day,
        "minutes": round(duration_s / 60.0, 1),
        "rows_judged": int(judged.sum()),
        "fewest_looks": round(float(looks[judged].min()), 1),
        "over_limit_in_calibration": openings,
        "confirmed_at_most_per_day_95": round(most_events(openings) * DAY_S / duration_s, 1),
    }
