"""The judge process: every model of the line, in a process of its own that may hang or crash.

It speaks to the agent as :mod:`edge_agent.eye_link` says, and lives and ends as :mod:`edge_agent.judging_process` does.

::

    rows of the agent ──newest of each quantity──▶ model after model, each at its own pace ──▶ verdicts
                                                             └── what each has learnt, once a second ──▶ memory

The agent keeps the memory and gives it to the process that comes after this one, so that the end of a process costs
the seconds that starting one takes and not the minutes in which a baseline forms; an open case stays the same case.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from math import nan
from typing import Any, Final

from edge_agent.clock import NS, Clock, Stamp, SystemClock, iso
from edge_agent.deciding import Deciding, opened
from edge_agent.eye_link import Alive, Link, LinkClosedError, packed
from edge_agent.judging_process import main
from edge_agent.mark import Mark
from edge_agent.memory import rss_bytes
from edge_agent.vocabulary import Verdict
from models.task import Row

_PERIOD_S: Final = 1.0  # of a model that does not say
_BEAT_NS: Final = NS
_EARLY: Final = 0.1  # of a period: a row that comes a little early is not left for the next


class Line:
    """One model of the line, with what came since it last judged."""

    def __init__(self, deciding: Deciding) -> None:
        self.deciding = deciding
        self.period_s = deciding.period_s or _PERIOD_S
        self._values: dict[str, float] = {}
        self._judged_ns: int | None = None
        self._case: tuple[float, str] | None = None  # since when, on its own clock and in UTC
        self._epoch_s: float | None = None

    def look(self, values: Mapping[str, float], at: Stamp) -> Verdict | None:
        """The verdict about this moment; None: not yet. NaN: absent."""
        self._values.update(values)
        period_ns = self.period_s * NS * (1 - _EARLY)
        if self._judged_ns is not None and at.mono_ns - self._judged_ns < period_ns:
            return None
        self._judged_ns = at.mono_ns
        row, self._values = Row(self._steady_s(at), self._values), {}
        verdict = self.deciding.decide(row, at)
        self._name_case(verdict, at, row.time_s)
        return verdict

    def _steady_s(self, at: Stamp) -> float:
        """Seconds that never step, since 1970 as the first row knew it: a calibration may have ended just then."""
        if self._epoch_s is None:
            self._epoch_s = at.wall_ms / 1000 - at.mono_ns / NS
        return self._epoch_s + at.mono_ns / NS

    def _name_case(self, verdict: Verdict, at: Stamp, now_s: float) -> None:
        """Since when in UTC, and an id that stays the same while the case is open."""
        since_s = verdict.details.pop("since_s", None)
        if not isinstance(since_s, float):
            return
        if self._case is None or self._case[0] != since_s:
            self._case = since_s, iso(at.wall_ms - int((now_s - since_s) * 1000))
        verdict.details["since"] = self._case[1]
        verdict.details["case_id"] = f"{self.deciding.model}-{self._case[1]}"

    def memory(self) -> str:
        """All that was learnt, for ``recall`` in the process after this one. Raises ValueError."""
        memory = {"epoch_s": self._epoch_s, "case": self._case, "deciders": self.deciding.memory()}
        return json.dumps(memory, allow_nan=False, separators=(",", ":"))

    def recall(self, text: str) -> None:
        """Before the first row. Of what does not fit nothing is taken over."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            memory = json.loads(text)
            epoch_s, case = memory["epoch_s"], memory["case"]
            self.deciding.recall(memory["deciders"])
            self._epoch_s = None if epoch_s is None else float(epoch_s)
            self._case = None if case is None else (float(case[0]), str(case[1]))


class Report:
    """Tells the agent that there is life, and how much."""

    def __init__(self, link: Link, lines: list[Line], clock: Clock) -> None:
        self.merged = 0
        self.judged = 0
        self._link = link
        self._lines = lines
        self._clock = clock
        self._last_ns = clock.mono_ns()

    def beat(self) -> None:
        """To be called after every row."""
        now_ns = self._clock.mono_ns()
        if now_ns - self._last_ns < _BEAT_NS:
            return
        models = [line.deciding for line in self._lines]
        counts = {"merged": self.merged, "judged": self.judged}
        for model in models:
            counts |= model.counts()
        per_s = round(self.judged / ((now_ns - self._last_ns) / NS), 2)
        remarks = [remark[:300] for model in models for remark in model.remarks]
        shares = {model.model: model.fallback_share for model in models}
        self.merged = self.judged = 0
        self._last_ns = now_ns
        self._link.send("alive", alive=packed(Alive(counts, per_s, rss_bytes(), remarks, shares)))
        for line in self._lines:
            with contextlib.suppress(ValueError):  # too much for a packet: some hundred quantities
                self._link.send("memory", model=line.deciding.model, memory=line.memory())


def _live(link: Link, mark: Mark, order: dict[str, Any]) -> None:
    """Judge until the link closes. ``order``: what the parent said first."""
    clock = SystemClock()
    deadlines = order["deadlines"]
    lines = []
    for each in order["models"]:
        link.send("opening")
        lines.append(Line(opened(each, each["model"], mark, clock, deadlines[each["model"]], remember=True)))
    report = Report(link, lines, clock)
    _say_ready(link, lines)
    try:
        while True:
            _obey(link, lines, report)
    except LinkClosedError:
        return


def _say_ready(link: Link, lines: list[Line]) -> None:
    quantities = sorted({name for line in lines for name in line.deciding.quantities})
    link.send("open", every_s=min(line.period_s for line in lines), quantities=quantities)


def _obey(link: Link, lines: list[Line], report: Report) -> None:
    """Hear all that waits; of several rows the newest values count."""
    values: dict[str, float] = {}
    at: Stamp | None = None
    message = link.receive(None)
    while message is not None:
        if message["say"] == "rows":
            report.merged += at is not None
            at = Stamp(*message["at"])
            values |= {name: nan if value is None else value for name, value in message["values"].items()}
        elif message["say"] == "candidate":
            link.send("opening")
            for line in lines:
                if line.deciding.model == message["model"]:
                    line.deciding.try_beside(message["candidate"], message["judgements"])
            _say_ready(link, lines)
        elif message["say"] == "recall":
            for line in lines:
                if line.deciding.model == message["model"]:
                    line.recall(message["memory"])
        message = link.receive(0)
    if at is not None:
        _judge(link, lines, report, values, at)


def _judge(link: Link, lines: list[Line], report: Report, values: Mapping[str, float], at: Stamp) -> None:
    for line in lines:
        verdict = line.look(values, at)
        if verdict is not None:
            report.judged += 1
            link.send("verdict", verdict=packed(verdict))
        if line.deciding.trial is not None:
            link.send("trial", trial=packed(line.deciding.trial))
            line.deciding.trial = None
    report.beat()


if __name__ == "__main__":
    main(_live)
