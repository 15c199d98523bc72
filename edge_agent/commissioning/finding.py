"""What commissioning sees and says: snapshots of a meter, checks of physics, and findings that name a wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

GOOD: Final = "good"
WRONG: Final = "wrong"
UNSURE: Final = "unsure"  # it may be right; the evidence says what would decide it
NOT_JUDGED: Final = "not-judged"  # the meter does not say enough

PHASES: Final = ("l1", "l2", "l3")


class Snapshot(NamedTuple):
    """One reading: seconds since the first one, values in base units, what is absent and why."""

    at_s: float
    values: Mapping[str, float]
    absent: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """One law of physics and whether the readings obey it. ``evidence``: the numbers, in words."""

    name: str
    state: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should do.

    ``code``: for machines, like ``ct-reversed-l2``. ``certain``: no healthy installation looks like this; else it is
    a question to the person. ``remedy``: what to do now. ``settings``: what the config's device should say.
    """

    code: str
    certain: bool
    sentence: str
    evidence: str
    remedy: str
    settings: Mapping[str, object] = field(default_factory=dict)


def typical(window: Sequence[Snapshot], name: str) -> float | None:
    """The median of a quantity over a window; None where it never had a value."""
    values = [snapshot.values[name] for snapshot in window if name in snapshot.values]
    return median(values) if values else None
