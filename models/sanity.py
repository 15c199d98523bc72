"""Climate and meter sanity: is each quantity of a device believable and usual? No training, from the first minute.

    jump              away from the median of the last ten minutes by more than such a quantity moves on its own
    spike             one reading alone is away that far, its neighbours are not
    flatline          exactly the same value for longer than a living sensor repeats itself
    condensation      the air is within 2 K of its dew point
    unusual, drift    new for this hour of the day, or creeping: see :mod:`models.novelty`; after two weeks of listening

What is impossible is not judged here: it never becomes a value (:mod:`edge_agent.plausibility`). Power and current jump
whenever somebody switches a machine on, so they have no jump; a zero may last for ever, so it is no flatline. A device
without quantities of :data:`LIMITS` costs nothing. Pure Python, some microseconds per value: it runs beside the wires.

For whoever integrates it: ``Sanity(quantities)`` per device, ``step(values, mono_s, wall_s)`` for every reading (absent
quantities are not in ``values``); it returns what began and what ended, never the same thing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from edge_agent.psychrometrics import dew_point
from models.novelty import DRIFT as DRIFT_LOOK
from models.novelty import Novelty

JUMP: Final = "jump"
SPIKE: Final = "spike"
FLATLINE: Final = "flatline"
CONDENSATION: Final = "condensation"
UNUSUAL: Final = "unusual"
DRIFT: Final = "drift"
_LASTS: Final = {FLATLINE: 0.0, CONDENSATION: 60.0, JUMP: 30.0, SPIKE: 60.0, UNUSUAL: 3600.0, DRIFT: 3600.0}  # s calm

_MINUTES: Final = 600.0  # s: the running median
_SLICE: Final = 10.0  # s: at most one value per slice enters it, whatever the pace
_FEWEST: Final = 5  # values in it, or nothing is compared
_NEW_LEVEL: Final = 1800.0  # s: a jump that stays is a new level
_ALONE: Final = 120.0  # s: readings further apart are no neighbours
_NEAR: Final = 2.0  # K above the dew point
_CLEAR: Final = 3.0
_SOAKED: Final = 300.0  # s near the dew point before it is said
_PACE: Final = 300.0  # s: what novelty is given are means of so long
_LISTEN: Final = 4032  # of them, two weeks, before novelty speaks
_NOVEL: Final = 2.0


class Limits(NamedTuple):
    """Of one quantity: ``jump`` in its unit, ``flat_s`` in seconds; None: never. ``novelty``: worth listening for."""

    jump: float | None
    flat_s: float | None
    novelty: bool = False


_VOLTAGE: Final = Limits(23.0, 600.0)  # a tenth of 230 V: EN 50160 has ± 10 %
_LINKED: Final = Limits(40.0, 600.0)
LIMITS: Final[dict[str, Limits]] = {
    "temperature": Limits(3.0, 6 * 3600.0, novelty=True),
    "relative_humidity": Limits(10.0, 6 * 3600.0, novelty=True),
    "pressure": Limits(500.0, 6 * 3600.0, novelty=True),
    "frequency": Limits(0.5, 1800.0),
    **dict.fromkeys(("voltage", "voltage_l1", "voltage_l2", "voltage_l3"), _VOLTAGE),
    **dict.fromkeys(("voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1"), _LINKED),
    **dict.fromkeys(("active_power", "current", "current_l1", "current_l2", "current_l3"), Limits(None, 7200.0)),
}


class Change(NamedTuple):
    """Something began or ended. ``share``: in units of its limit; ``since_s``: on the caller's monotonic clock."""

    quantity: str
    kind: str
    began: bool
    since_s: float
    share: float


class Sanity:
    """One device. ``quantities``: those that it may have; only those with limits are looked at."""

    def __init__(self, quantities: Iterable[str], limits: Mapping[str, Limits] = LIMITS) -> None:
        self._watches = {name: _Watch(limits[name]) for name in quantities if name in limits}
        self._open: dict[tuple[str, str], tuple[float, float]] = {}  # → since, last seen
        self._soaked_since_s: float | None = None

    @property
    def open(self) -> dict[tuple[str, str], float]:
        """What is going on: quantity and kind → since when."""
        return {key: since_s for key, (since_s, _) in self._open.items()}

    def step(self, values: Mapping[str, float], mono_s: float, wall_s: float) -> list[Change]:
        """A reading: ``mono_s`` never steps back, ``wall_s`` are Unix seconds (for the hour of the day)."""
        changes: list[Change] = []
        for name, watch in self._watches.items():
            value = values.get(name)
            if value is not None:
                for kind, since_s, share in watch.look(value, mono_s, wall_s):
                    self._seen(name, kind, since_s, share, mono_s, changes)
        if "temperature" in self._watches and "relative_humidity" in self._watches:
            self._condensation(values, mono_s, changes)
        for (name, kind), (since_s, last_s) in list(self._open.items()):
            if mono_s - last_s > _LASTS[kind]:
                del self._open[name, kind]
                changes.append(Change(name, kind, began=False, since_s=since_s, share=0.0))
        return changes

    def _seen(self, name: str, kind: str, since_s: float, share: float, mono_s: float, changes: list[Change]) -> None:
        known = self._open.get((name, kind))
        if known is None:
            changes.append(Change(name, kind, began=True, since_s=since_s, share=round(share, 3)))
        self._open[name, kind] = (known[0] if known else since_s, mono_s)

    def _condensation(self, values: Mapping[str, float], mono_s: float, changes: list[Change]) -> None:
        temperature, humidity = values.get("temperature"), values.get("relative_humidity")
        if temperature is None or humidity is None or humidity <= 0.0:  # dry air has no dew point
            return
        above = temperature - dew_point(temperature, humidity)
        key = ("dew_point", CONDENSATION)
        if above > (_CLEAR if key in self._open else _NEAR):
            self._soaked_since_s = None
            return
        if self._soaked_since_s is None:
            self._soaked_since_s = mono_s
        if mono_s - self._soaked_since_s >= _SOAKED:
            self._seen(*key, self._soaked_since_s, _NEAR / max(above, 0.1), mono_s, changes)


class _Watch:
    """One quantity."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._recent: deque[tuple[float, float]] = deque()  # one per slice, of the last ten minutes
        self._away_since_s: float | None = None
        self._before: tuple[float, float] | None = None  # when the first reading away came, and how far it was
        self._same: tuple[float, float] | None = None  # value, since
        self._novelty = Novelty(_NOVEL) if limits.novelty else None
        self._mean = (0.0, 0, 0)  # sum, count, period
        self._listened = 0

    def look(self, value: float, mono_s: float, wall_s: float) -> list[tuple[str, float, float]]:
        """Kind, since when and share of its limit, for everything that is the case now."""
        found = []
        if self._limits.jump is not None:
            found += self._jump(value, mono_s)
        if self._limits.flat_s is not None:
            found += self._flat(value, mono_s, self._limits.flat_s)
        if self._novelty is not None:
            found += self._novel(self._novelty, value, mono_s, wall_s)
        return found

    def share(self, value: float) -> float:
        """How far the value is from the median of the last ten minutes, in units of the limit."""
        if self._limits.jump is None or len(self._recent) < _FEWEST:
            return 0.0
        ordered = sorted(recent for _, recent in self._recent)
        return abs(value - ordered[len(ordered) // 2]) / self._limits.jump

    def _jump(self, value: float, mono_s: float) -> list[tuple[str, float, float]]:
        share = self.share(value)
        before, self._before = self._before, None
        if share < 1.0:
            self._away_since_s = None
            self._remember(value, mono_s)
            if before is not None and mono_s - before[0] <= _ALONE:
                return [(SPIKE, before[0], before[1])]
            return []
        if self._away_since_s is None:  # it may be alone: the next reading tells
            self._away_since_s = mono_s
            self._before = (mono_s, share)
            return []
        if mono_s - self._away_since_s > _NEW_LEVEL:
            self._recent.clear()
            self._away_since_s = None
            self._remember(value, mono_s)
            return []
        return [(JUMP, self._away_since_s, share)]

    def _remember(self, value: float, mono_s: float) -> None:
        recent = self._recent
        if not recent or mono_s - recent[-1][0] >= _SLICE:
            recent.append((mono_s, value))
        while recent[0][0] < mono_s - _MINUTES and (len(recent) > _FEWEST or recent[0][0] < mono_s - 6 * _MINUTES):
            recent.popleft()

    def _flat(self, value: float, mono_s: float, flat_s: float) -> list[tuple[str, float, float]]:
        if self._same is None or value != self._same[0] or value == 0.0:
            self._same = (value, mono_s)
        lasted_s = mono_s - self._same[1]
        return [(FLATLINE, self._same[1], lasted_s / flat_s)] if lasted_s >= flat_s else []

    def _novel(self, novelty: Novelty, value: float, mono_s: float, wall_s: float) -> list[tuple[str, float, float]]:
        total, count, period = self._mean
        now = int(wall_s // _PACE)
        if now == period or not count:
            self._mean = (total + value, count + 1, now)
            return []
        self._mean = (value, 1, now)
        self._listened += 1
        novel = novelty.step(total / count, period * _PACE)
        if not novel.news or self._listened < _LISTEN:
            return []
        return [(DRIFT if novel.look == DRIFT_LOOK else UNUSUAL, mono_s, novel.score / _NOVEL)]
