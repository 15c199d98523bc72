"""From what was seen of normal running to a fit that a person can look at: what is doubtful, what was left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from models import judge
from models.bundle import Bundle
from models.task import Row
from models.train.alignment import Aligned, Series, align
from models.train.line import DAY_S, Fit, fit_line
from models.train.tails import most_events

_GAP: Final = 10.0  # periods without any reading
_LONGEST: Final = 20_000  # rows that are judged again for the comparison


@dataclass(slots=True)
class Calibrated:
    """``doubts``: why the data may be no normal running. ``warnings``: what else a person should know."""

    data: Aligned
    fit: Fit
    doubts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, str]:
        found: dict[str, str] = self.fit.parameters["left_out"]
        return found

    @property
    def judged(self) -> list[str]:
        return [name for name in self.fit.quantities if name not in self.left_out]

    def table(self) -> Iterator[tuple[str, str, str]]:
        """Quantity, its normal range, and the deviations that are too much."""
        limits = np.asarray(self.fit.parameters["limits"])
        for index, name in enumerate(self.fit.quantities):
            column = self.data.values[:, index]
            low, high = np.nanmin(column), np.nanmax(column)
            own = [
                f"{limit:.3g} in {fast:g} s"
                for limit, fast in zip(limits[:, 0, index], self.fit.parameters["fast_s"], strict=True)
                if limit > 0
            ]
            reason = self.left_out.get(name, "only as the others explain it")
            yield name, f"{low:.6g} to {high:.6g}", ", ".join(own) or f"({reason})"

    def compare(self, before: Bundle, new: Bundle) -> None:
        """How often the bundle before would have raised a case in the same minutes, and how often the new one does."""
        self.numbers["cases_before"] = cases(before, self.data)
        self.numbers["cases"] = cases(new, self.data)


def calibrate(series: Series, false_alarms_per_day: float) -> Calibrated:
    """Raises ModelError for what cannot be used at all."""
    tidy, muddled = _tidied(series)
    data = align(tidy)
    fit = fit_line(data, false_alarms_per_day)
    found = Calibrated(data, fit)
    for warning in fit.warnings:
        # What is merely left out is no doubt about the rest.
        (found.warnings if "is left out" in warning else found.doubts).append(warning)
    found.doubts += _gaps(data, tidy)
    if muddled:
        found.doubts.append(f"{muddled} rows were out of order")
    report = fit.report
    minutes = float(report["minutes"])
    over = float(report["over_limit_in_calibration"])
    found.numbers = {
        "minutes": minutes,
        "rows": len(data.times_s),
        "false_alarms_per_day": false_alarms_per_day,
        "cases": over,
        "at_most_per_day_95": round(most_events(int(over)) * DAY_S / max(minutes * 60.0, 1.0), 1),
    }
    return found


def cases(of: Bundle, data: Aligned) -> int:
    """How many cases the bundle opens in the data; quantities that it does not know count as absent."""
    judging = judge.load(of)
    wanted = judging.card.input.quantities  # type: ignore[union-attr]
    columns = [(index, name) for index, name in enumerate(data.quantities) if name in wanted]
    opened = 0
    for at_s, row in zip(data.times_s[:_LONGEST], data.values[:_LONGEST], strict=True):
        said = judging.judge(Row(float(at_s), {name: float(row[index]) for index, name in columns}))
        opened += said.details.get("case") == "opened"
    return opened


def _tidied(series: Series) -> tuple[dict[str, tuple[list[float], list[float]]], int]:
    """In the order of time, and how many were not."""
    tidy, muddled = {}, 0
    for name, (times, values) in series.items():
        at, value = np.asarray(times, float), np.asarray(values, float)
        muddled = max(muddled, int((np.diff(at) < 0).sum()))
        order = np.argsort(at, kind="stable")
        tidy[name] = (at[order].tolist(), value[order].tolist())
    return tidy, muddled


def _gaps(data: Aligned, series: Series) -> list[str]:
    """Times in which nothing at all came."""
    times = np.unique(np.concatenate([np.asarray(at) for at, _ in series.values()]))
    wide = np.flatnonzero(np.diff(times) > _GAP * data.every_s)
    if not len(wide):
        return []
    longest = float(np.diff(times)[wide].max())
    return [f"{len(wide)} times nothing came for more than {_GAP * data.every_s:g} s, once for {longest:.0f} s"]
