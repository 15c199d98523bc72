"""How many parts were good, bad and not inspected, per camera and shift.

Shifts begin at times of the wall clock of the place, so that a day of 23 or 25 hours has the same shifts as any other.
The counts are kept in the same commit as the verdicts that they count: a restart neither loses nor repeats one.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any, Final

from edge_agent.clock import NS, Stamp, iso
from edge_agent.outbox import VERDICT, Row
from edge_agent.vocabulary import ANOMALY, DEFECT, GOOD, NORMAL, Verdict

NOTE: Final = "shift/"
"""Before the camera, in the notes of the database and in topics."""

_TELL_EVERY_NS: Final = 60 * NS
_BUCKETS: Final = {GOOD: "good", NORMAL: "good", DEFECT: "bad", ANOMALY: "bad"}  # all others: not inspected


class Shifts:
    """When shifts begin. ``zone`` None: that of the machine."""

    def __init__(self, times: Iterable[str], zone: tzinfo | None = None) -> None:
        """``times``: ``06:00``, one or more, in any order."""
        self._times = sorted(time.fromisoformat(each) for each in times)
        self._zone = zone
        self._known = (0, 0)

    def around(self, wall_ms: int) -> tuple[int, int]:
        """Beginning and end of the shift that contains that instant, in Unix milliseconds."""
        begin_ms, end_ms = self._known
        if begin_ms <= wall_ms < end_ms:
            return self._known
        today = (datetime.fromtimestamp(wall_ms / 1000, UTC).astimezone(self._zone)).date()
        days = [today + timedelta(days=offset) for offset in (-2, -1, 0, 1, 2)]
        begins = sorted({self._ms(datetime.combine(day, each)) for day in days for each in self._times})
        index = bisect_right(begins, wall_ms)
        self._known = begins[index - 1], begins[index]
        return self._known

    def _ms(self, local: datetime) -> int:
        """An hour that is there twice is the first of them; one that is left out is the one after it."""
        return int(local.replace(tzinfo=self._zone).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Count:
    """One camera in one shift. ``since_ms``: from when on it was counted; later than its beginning: not all of it."""

    begin_ms: int
    end_ms: int
    since_ms: int
    good: int = 0
    bad: int = 0
    not_inspected: int = 0

    def plus(self, label: str) -> Count:
        bucket = _BUCKETS.get(label, "not_inspected")
        return replace(self, **{bucket: getattr(self, bucket) + 1})

    def fields(self) -> dict[str, object]:
        """As it is told."""
        return {
            "from": iso(self.begin_ms),
            "to": iso(self.end_ms),
            "since": iso(self.since_ms),
            "good": self.good,
            "bad": self.bad,
            "not_inspected": self.not_inspected,
        }


class Tally:
    """Called from the recorder's thread, but for ``summary`` and ``follow``."""

    def __init__(self) -> None:
        self._shifts = Shifts(["00:00"])
        self._now: dict[str, Count] = {}
        self._before: dict[str, Count] = {}  # the shift before, for those who come late
        self._cameras: frozenset[str] = frozenset()
        self._dirty: set[str] = set()  # not told yet
        self._unkept: set[str] = set()  # not in the database yet
        self._told_ns = 0

    def follow(self, cameras: Iterable[str], shifts: Shifts) -> None:
        """What is counted from here on."""
        self._cameras, self._shifts = frozenset(cameras), shifts

    def recall(self, notes: Mapping[str, object]) -> None:
        """Go on where the last run ended."""
        for key, text in notes.items():
            try:
                said = json.loads(str(text))
                counts = {name: _count(said[name]) for name in ("now", "before") if said.get(name)}
            except (ValueError, TypeError, AttributeError, RecursionError):
                continue
            for name, known in (("now", self._now), ("before", self._before)):
                if name in counts:
                    known[key.removeprefix(NOTE)] = counts[name]

    def add(self, verdict: Verdict) -> list[Row]:
        """Count it; what is to be told of a shift that has ended with it."""
        camera, at = verdict.subject, verdict.at
        if camera not in self._cameras:
            return []
        before = self._before.get(camera)
        rows: list[Row] = []
        if before is not None and before.begin_ms <= at.wall_ms < before.end_ms:  # it came late
            self._before[camera] = before = before.plus(verdict.label)
            rows = [_row(camera, before, at, final=True)]
        else:
            rows = self._roll(camera, at)
            self._now[camera] = self._now[camera].plus(verdict.label)
            self._dirty.add(camera)
        self._unkept.add(camera)
        return rows

    def _roll(self, camera: str, at: Stamp) -> list[Row]:
        """Begin a new shift where the last one is over, or the clock was set; what is told of the last one."""
        now = self._now.get(camera)
        begin_ms, end_ms = self._shifts.around(at.wall_ms)
        if now is not None and (now.begin_ms, now.end_ms) == (begin_ms, end_ms):
            return []
        goes_on = now is not None and now.end_ms == begin_ms
        self._now[camera] = Count(begin_ms, end_ms, begin_ms if goes_on else at.wall_ms)
        self._dirty.add(camera)
        self._unkept.add(camera)
        if now is None:
            return []
        self._before[camera] = now
        return [_row(camera, now, at, final=True)]

    def due(self, at: Stamp) -> list[Row]:
        """What is to be told now: shifts that are over, and once a minute what has changed."""
        rows = [row for camera in sorted(self._cameras) for row in self._roll(camera, at)]
        if at.mono_ns - self._told_ns >= _TELL_EVERY_NS:
            self._told_ns = at.mono_ns
            rows += [_row(camera, self._now[camera], at, final=False) for camera in sorted(self._dirty & self._cameras)]
            self._dirty.clear()
        return rows

    def notes(self) -> dict[str, str]:
        """What the database does not know yet; :meth:`kept` says that it does."""
        return {
            NOTE + camera: json.dumps(
                {
                    name: asdict(known[camera])
                    for name, known in (("now", self._now), ("before", self._before))
                    if camera in known
                }
            )
            for camera in sorted(self._unkept)
        }

    def kept(self) -> None:
        self._unkept.clear()

    def summary(self, camera: str) -> dict[str, object]:
        """The shift that is on, and the one before."""
        pairs = {"shift": self._now.get(camera), "last_shift": self._before.get(camera)}
        return {name: count.fields() for name, count in pairs.items() if count is not None}


def _count(said: Mapping[str, Any]) -> Count:
    """Raises ValueError, TypeError or AttributeError for what no tally wrote."""
    if not all(isinstance(number, int) for number in said.values()):
        raise ValueError("no numbers")
    return Count(**said)


def _row(camera: str, count: Count, at: Stamp, *, final: bool) -> Row:
    fields: dict[str, Any] = {"subject": camera, **count.fields(), "final": final}
    return Row(VERDICT, NOTE + camera, at, json.dumps(fields, separators=(",", ":"))[1:-1], retain=True)
