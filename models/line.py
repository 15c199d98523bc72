"""The task ``anomaly`` as the machinery asks for it: rows go to the line's detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.errors import BundleError
from edge_agent.vocabulary import Judgement
from models import anomaly
from models.card import Card, ModelFile, RowsInput
from models.session import Session
from models.task import Row


class LineJudge:
    """See :class:`models.task.TaskJudge`. ``detector``: for who wants to resume it or to accept a new normal."""

    Parameters = anomaly.Parameters
    UNTIL = "until_s"
    """Metric of a card: when its calibration ended, on the clock of its rows."""

    def __init__(self, card: Card, file: ModelFile, parameters: anomaly.Parameters, session: Session) -> None:
        if not isinstance(card.input, RowsInput) or card.threshold is None:
            raise BundleError("a card for anomalies needs an input of the kind rows, and a threshold")
        try:
            self.detector = anomaly.LineDetector(card.input.quantities, parameters, card.threshold.value, session)
        except ValueError as error:
            raise BundleError(f"{file.name} does not fit its card: {error}") from error
        until_s = card.metrics.get(self.UNTIL)
        self._until_s = float(until_s) if isinstance(until_s, float | int) else None

    def memory(self) -> dict[str, Any]:
        return self.detector.memory()

    def recall(self, memory: Mapping[str, Any]) -> None:
        self.detector.recall(memory)
        self._until_s = None

    def judge(self, given: Any) -> Judgement:
        row: Row = given
        if self._until_s is not None:  # the first row: where the calibration ended just before it, no warming up
            self.detector.resume(row.time_s - self._until_s, row.time_s)
            self._until_s = None
        for quantity, value in row.values.items():
            self.detector.see(quantity, value, row.time_s)
        return self.detector.judge(row.time_s)
