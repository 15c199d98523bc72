"""The angles that a meter sees, and how usual a load would be behind each of the 48 ways to wire three transformers.

Angles are in degrees, positive for inductive loads that consume; beyond ±90° energy flows back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from math import acos, atan2, cos, degrees, hypot, radians
from statistics import fmean
from typing import Final

from edge_agent.commissioning.finding import PHASES, Snapshot

_THETA: Final = (0.0, -120.0, 120.0)  # of the voltages
_MOST_SNAPSHOTS: Final = 60
_STEPS: Final = 4  # so many smallest steps of power make an angle

Wires = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """One snapshot: per phase the current, the angle and whether it is above noise.

    ``signed``: the meter gives reactive power, so the angle has a sign; ``sure``: and the sign means something.
    """

    amps: tuple[float, float, float]
    volt_amps: tuple[float, float, float]
    angles: tuple[float, float, float]
    signed: bool
    loaded: tuple[bool, bool, bool]
    sure: bool = False

    def readings(self) -> list[tuple[float, tuple[float, float, float]]]:
        """What the angles may be, and what it costs to believe that."""
        if self.sure:
            return [(0.0, self.angles)]
        doubt = 0.4 if self.signed else 0.0
        choices = product((1.0, -1.0), repeat=3)
        return [
            (doubt if -1.0 in signs else 0.0, _three([s * a for s, a in zip(signs, self.angles, strict=True)]))
            for signs in choices
        ]


@dataclass(frozen=True, slots=True)
class Wiring:
    """Element ``i`` has the current of phase ``carries[i]``; ``signs[i]`` −1: its transformer looks the other way."""

    carries: Wires
    signs: Wires

    @property
    def is_healthy(self) -> bool:
        return self.carries == (0, 1, 2) and self.signs == (1, 1, 1)

    def shift(self, element: int, rotation: int) -> float:
        """What the angle seen by an element differs from the load's."""
        turned = rotation * (_THETA[element] - _THETA[self.carries[element]])
        return turned + (180 if self.signs[element] < 0 else 0)


HEALTHY: Final = Wiring((0, 1, 2), (1, 1, 1))
WIRINGS: Final = tuple(
    Wiring((p[0], p[1], p[2]), (s[0], s[1], s[2])) for p in permutations(range(3)) for s in product((1, -1), repeat=3)
)


def looks_of(window: Sequence[Snapshot], least_a: float, resolution: Mapping[str, float]) -> list[Look]:
    found = [look for snap in window if (look := _look(snap, least_a, resolution)) is not None]
    found = found[:: max(1, len(found) // _MOST_SNAPSHOTS)]
    # A meter whose reactive power is never negative may give its amount only.
    if any(angle < -3 for look in found for angle in look.angles):
        return [replace(look, sure=True) for look in found]
    return found


def _look(snap: Snapshot, least_a: float, resolution: Mapping[str, float]) -> Look | None:
    values = snap.values
    if any(f"{kind}_{phase}" not in values for kind in ("voltage", "current", "active_power") for phase in PHASES):
        return None
    amps = [abs(values[f"current_{phase}"]) for phase in PHASES]
    volt_amps = [abs(values[f"voltage_{phase}"]) * each for phase, each in zip(PHASES, amps, strict=True)]
    floor = max(least_a, 0.02 * max(amps))
    steps = [max(1.0, _STEPS * resolution.get(f"active_power_{phase}", 0.0)) for phase in PHASES]
    loaded = [each >= floor and va > step for each, va, step in zip(amps, volt_amps, steps, strict=True)]
    if not any(loaded):
        return None
    signed = all(f"reactive_power_{phase}" in values for phase in PHASES)
    angles = []
    for phase, va in zip(PHASES, volt_amps, strict=True):
        power = values[f"active_power_{phase}"]
        if signed:
            angles.append(degrees(atan2(values[f"reactive_power_{phase}"], power)))
        else:
            angles.append(degrees(acos(max(-1.0, min(1.0, power / va)))) if va > 1 else 0.0)
    return Look(_three(amps), _three(volt_amps), _three(angles), signed, (loaded[0], loaded[1], loaded[2]))


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    return (values[0], values[1], values[2])


def wrap(angle: float) -> float:
    return (angle + 180.0) % 360.0 - 180.0


def cost(looks: Sequence[Look], wiring: Wiring, *, consuming: bool) -> float:
    """Low: the load that this wiring implies is a usual one."""
    return min(
        fmean(_cost_of(look, wiring, rotation, consuming=consuming) for look in looks)
        + _complexity(wiring, consuming=consuming)
        + (0.4 if rotation < 0 else 0.0)
        for rotation in (1, -1)
    )


def _complexity(wiring: Wiring, *, consuming: bool) -> float:
    moved = sum(carried != index for index, carried in enumerate(wiring.carries))
    reversed_ = sum(sign < 0 for sign in wiring.signs)
    if reversed_ == 3 and moved == 0:
        return 0.9 if consuming else 4.0
    both = 1.0 if moved and reversed_ else 0.0
    return {0: 0.0, 2: 0.8, 3: 1.2}[moved] + {0: 0.0, 1: 0.8, 2: 1.5, 3: 2.5}[reversed_] + both


def _cost_of(look: Look, wiring: Wiring, rotation: int, *, consuming: bool) -> float:
    least = 1e9
    for doubt, angles in look.readings():
        implied, weights = [], []
        for element in range(3):
            if look.loaded[element]:
                implied.append(wrap(angles[element] - wiring.shift(element, rotation)))
                weights.append(max(0.3, min(1.0, 3 * look.amps[element] / sum(look.amps))))
        forth = sum(w * unusual(phi) for phi, w in zip(implied, weights, strict=True))
        back = sum(w * unusual(wrap(phi - 180)) for phi, w in zip(implied, weights, strict=True))
        back += 9.0 if consuming else 3.0
        least = min(least, doubt + min(forth, back) / sum(weights) * 3 / 2 + min(spread_of(implied) / 15, 3.0))
    return least


def unusual(phi: float) -> float:
    """How rare a load with this angle is; positive is inductive."""
    if phi >= 0:
        table = ((45, 0.0), (70, 0.4), (90, 1.2), (120, 3.0), (180, 6.0))
    else:
        phi = -phi
        table = ((15, 0.0), (60, 1.0), (90, 2.0), (120, 4.0), (180, 6.0))
    below, low = 0.0, 0.0
    for edge, cost in table:
        if phi <= edge:
            return low + (cost - low) * (phi - below) / (edge - below)
        below, low = float(edge), cost
    return low


def spread_of(angles: Sequence[float]) -> float:
    """Mean distance of the angles from their middle, in degrees."""
    x, y = sum(cos(radians(each)) for each in angles), sum(cos(radians(each - 90)) for each in angles)
    middle = degrees(atan2(y, x)) if hypot(x, y) > 1e-9 else 0.0
    return fmean(abs(wrap(each - middle)) for each in angles)
