"""Line anomaly: is the machine as it was when it was calibrated, and if not, what is off, since when?

For whoever integrates it:

    detector = LineDetector(card.input.quantities, card.parameters, card.threshold.value, session)
    detector.resume(age_s, now_s)                      # optional: the calibration ended just now
    detector.see("main-meter.active_power", 1234.5, at_s)   # every reading as it comes; absent: NaN
    judgement = detector.judge(now_s)                  # every `every` seconds, or once per row of a CSV

``at_s`` and ``now_s`` are seconds of one clock that does not step back (monotonic in the daemon, the file's own
times offline). ``session`` is a :class:`models.session.Session` with one input ``rows``, shape (1, R), and the
outputs ``score``, shape (1, 1), and, where the model can tell, ``contributions``, shape (1, Q). The bundle's
networks (line limits, isolation forest, LOF) all have this form, so they are exchangeable.

What preprocessing does, exactly: hold the last value of each quantity (:class:`~models.deviation.Holding`),
follow fast and slow means (:class:`~models.deviation.Deviations`), express deviations as multiples of their limits
(:func:`~models.deviation.rows`). All numbers that this needs are the card's ``parameters``, see :class:`Parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pydantic import Field, model_validator

from edge_agent.settings import Section
from edge_agent.vocabulary import ANOMALY, NORMAL, UNKNOWN, Judgement
from models.case import CLOSED, OPENED, Case
from models.deviation import OWN, Deviations, Holding, rows

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.session import Session

INPUT: Final = "rows"
SCORE: Final = "score"
CONTRIBUTIONS: Final = "contributions"
_TOP: Final = 3  # so many quantities are named

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Vector = tuple[Number, ...]


class Start(Section):
    """The state at the end of the calibration."""

    fast: tuple[Vector, ...] = Field(description="Per scale and quantity.")
    slow: tuple[Vector, ...] = Field(description="The same.")
    long: tuple[Vector, ...] = Field(description="The same.")
    seen_s: tuple[Vector, ...] = Field(description="The same.")


class Parameters(Section):
    """``parameters`` of an anomaly card: K scales, Q quantities in the order of ``input.quantities``."""

    hold_s: tuple[Positive, ...] = Field(description="Per quantity: for how long its last value stands.")
    fast_s: tuple[Positive, ...] = Field(description="Per scale: time constant of the mean that takes the noise away.")
    slow_s: tuple[Positive, ...] = Field(description="Per scale: time constant of the baseline.")
    limits: tuple[tuple[Vector, Vector], ...] = Field(
        description="Per scale: limits of own deviations, and of what the others do not explain; 0: left out."
    )
    explained: tuple[tuple[Vector, ...], ...] = Field(
        description="Per scale: Q rows of Q weights, how the others explain each."
    )
    reach: tuple[Vector, ...] = Field(
        default=(), description="Per scale and quantity: how far a single reading may pull its mean; 0: however far."
    )
    open_after_s: float = Field(default=3.0, ge=0, description="So long over the threshold opens a case.")
    quiet_s: float = Field(default=30.0, ge=0, description="So long below it closes the case.")
    present: float = Field(
        default=0.5, gt=0, le=1, description="With a smaller share of the judged quantities nothing is decided."
    )
    start: Start | None = Field(default=None, description="Where the baselines stood when the calibration ended.")
    left_out: dict[str, str] = Field(default={}, description="Quantities that are not judged, and why.")

    @model_validator(mode="after")
    def _fits(self) -> Parameters:
        scales, count = len(self.fast_s), len(self.hold_s)
        shapes = {
            "slow_s": (np.shape(self.slow_s), (scales,)),
            "limits": (np.shape(self.limits), (scales, 2, count)),
            "explained": (np.shape(self.explained), (scales, count, count)),
        }
        if self.reach:
            shapes["reach"] = (np.shape(self.reach), (scales, count))
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise ValueError(f"{name} has the shape {found}, not {wanted}")
        if not scales or not count or np.min(self.limits) < 0:
            raise ValueError("limits must not be negative, and there must be some")
        if not np.any(self.limits):
            raise ValueError("every limit is 0: nothing would be judged")
        return self


class LineDetector:
    """One machine. Called from one thread."""

    def __init__(
        self, quantities: Sequence[str], parameters: Mapping[str, Any] | Parameters, threshold: float, session: Session
    ) -> None:
        """Raises ValueError (of pydantic) when the parameters do not fit."""
        if not isinstance(parameters, Parameters):
            parameters = Parameters.model_validate(parameters)
        if len(quantities) != len(parameters.hold_s):
            raise ValueError(f"{len(quantities)} quantities, but parameters for {len(parameters.hold_s)}")
        self.quantities = tuple(quantities)
        self.threshold = threshold
        self._index = {name: index for index, name in enumerate(quantities)}
        self._parameters = parameters
        self._limits = np.asarray(parameters.limits, float)
        self._explained = np.asarray(parameters.explained, float)
        self._judged = (self._limits > 0).any(axis=(0, 1))
        self._session = session
        self._holding = Holding(parameters.hold_s)
        self._deviations = Deviations(len(quantities), parameters.fast_s, parameters.slow_s, parameters.reach or None)
        self._case = Case(parameters.open_after_s, parameters.quiet_s)

    def resume(self, age_s: float, now_s: float) -> bool:
        """Go on from the end of the calibration, ``age_s`` seconds ago, if that is near enough; else warm up anew.

        Without it nothing is decided for the first ``slow_s`` seconds. Returns whether it did.
        """
        start = self._parameters.start
        if start is None or not 0 <= age_s <= min(self._parameters.slow_s):
            return False
        self._deviations.restore(start.model_dump(), now_s - age_s)
        return True

    def see(self, quantity: str, value: float | None, at_s: float) -> None:
        """A reading came; None or NaN: absent. Quantities of no concern are passed over."""
        index = self._index.get(quantity)
        if index is not None:
            self._holding.see(index, nan if value is None else value, at_s)

    def judge(self, now_s: float) -> Judgement:
        """Decide about this moment; ModelError of the session passes through, and then nothing was learnt.

        ``label``: ``anomaly`` while a case is open, else ``normal``; ``unknown`` while too little is known (warming
        up, too many quantities absent), and then the score is 0 and an open case stays as it is.
        ``details``: ``off``, the quantities that contribute most, biggest first, each with ``share`` (of the limit;
        above 1 logarithmic) and ``direction``; ``since_s``, on the caller's clock, while a case is open;
        ``case``, ``opened`` or ``closed``, in the judgement that brought it; ``absent``, if any.
        """
        own = self._deviations.advance(self._holding.at(now_s), now_s)
        known = np.isfinite(own[0]) & self._judged
        absent = [self.quantities[index] for index in np.flatnonzero(~known & self._judged)]
        if known.sum() < max(1.0, self._parameters.present * self._judged.sum()):
            self._deviations.learn(not self._case.open)
            return Judgement(UNKNOWN, 0.0, self.threshold, {"absent": absent})
        row = rows(own, self._explained, self._limits, self._deviations.whole, self._deviations.away)
        outputs = self._session.run({INPUT: row[None, :]})
        score = float(outputs[SCORE].reshape(-1)[0])
        over = score >= self.threshold
        contributions = outputs.get(CONTRIBUTIONS)
        # A model that cannot tell which quantity it was makes all of them suspect.
        suspect = np.full(len(self.quantities), over) if contributions is None else contributions[0] >= self.threshold
        self._deviations.learn(~suspect)
        brought = self._case.step(over, now_s)
        return Judgement(
            ANOMALY if self._case.open else NORMAL, score, self.threshold, self._details(row, over, brought, absent)
        )

    def accept(self) -> None:
        """A person says: this is the new normal. Closes the case; the baselines go to where the machine is."""
        self._deviations.accept()
        self._case.close()

    def memory(self) -> dict[str, Any]:
        """What it learnt, as plain numbers: another detector of the same card goes on from here after ``recall``."""
        return {
            "holding": self._holding.memory(),
            "deviations": self._deviations.memory(),
            "case": self._case.memory(),
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """For a detector that has seen nothing yet. Raises ValueError, KeyError or TypeError where it does not fit."""
        self._case.recall(memory["case"])
        self._holding.recall(memory["holding"])
        self._deviations.recall(memory["deviations"])

    def _details(
        self, row: npt.NDArray[np.float32], over: bool, brought: str | None, absent: list[str]
    ) -> dict[str, object]:
        details: dict[str, object] = {}
        if over or self._case.open:
            details["off"] = self._off(row)
        if self._case.since_s is not None:
            details["since_s"] = self._case.since_s
        if brought in (OPENED, CLOSED):
            details["case"] = brought
        if absent:
            details["absent"] = absent
        return details

    def _off(self, row: npt.NDArray[np.float32]) -> list[dict[str, object]]:
        by_quantity = row.reshape(-1, 2, len(self.quantities))
        largest = np.abs(by_quantity).max(axis=(0, 1))
        own = by_quantity[:, OWN]
        off: list[dict[str, object]] = []
        for index in np.argsort(-largest, kind="stable")[:_TOP]:
            if largest[index] <= 0:
                break
            side = by_quantity[..., index].ravel()
            sign = side[np.abs(side).argmax()]
            off.append(
                {
                    "quantity": self.quantities[index],
                    "share": round(float(largest[index]), 3),
                    "direction": "high" if sign > 0 else "low",
                    # The others moved too, and it does not fit: not its value is off, but how it goes with theirs.
                    "alone": bool(np.abs(own[:, index]).max() >= largest[index]),
                }
            )
        return off
