"""A sensor beside a reference instrument: read until it is at rest, at one point or at two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from edge_agent.calibration import Correction
from edge_agent.clock import Clock
from edge_agent.commissioning.finding import Snapshot
from edge_agent.commissioning.settling import LEAST_READINGS, Rest, rest
from edge_agent.commissioning.source import Source, collect, opened
from edge_agent.errors import EdgeAgentError
from edge_agent.plan import Config, DevicePlan

_SHOWN: Final = {"temperature": ("°C", 2), "relative_humidity": ("%", 1), "pressure": ("Pa", 0)}

Tell = Callable[[str], None]


class Reference(NamedTuple):
    """What the reference instrument says, in the quantity's base unit."""

    quantity: str
    value: float


class Measured(NamedTuple):
    """A reference, and the sensor's own readings at rest beside it."""

    reference: Reference
    at_rest: Rest


def measure(
    plan: Config,
    chosen: DevicePlan,
    clock: Clock,
    references: list[Reference],
    span_s: float,
    patience_s: float,
    tell: Tell = lambda _: None,
) -> tuple[list[Measured], str]:
    """One point after the other, and where the readings came from. Raises EdgeAgentError when there is no rest.

    ``tell`` hears how it goes on; ``span_s``: how long it must be at rest.
    """
    points: list[Measured] = []
    every_s = max(0.2, min(chosen.periods.values(), default=1.0))
    span_s = max(span_s, LEAST_READINGS * every_s)
    with opened(plan, chosen, clock, every_s) as (source, _):
        for reference in references:
            points.append(_at_rest(source, reference, points, span_s, patience_s, tell))
        told = source.told
    return points, told


def _at_rest(
    source: Source, reference: Reference, before: list[Measured], span_s: float, patience_s: float, tell: Tell
) -> Measured:
    """Wait until the sensor is at rest, and for the second point: far enough from the first."""
    quantity = reference.quantity
    points: list[tuple[float, float]] = []

    def enough(window: list[Snapshot]) -> bool:
        value = window[-1].values.get(quantity)
        if value is None:
            return False
        raw = _raw(source, quantity, value)
        far = all(
            abs(raw - other.at_rest.mean) > 0.5 * abs(reference.value - other.reference.value) for other in before
        )
        if far:
            points.append((window[-1].at_s, raw))
        return rest(points, quantity, span_s) is not None

    def show(window: list[Snapshot]) -> None:
        seen = words(quantity, points[-1][1]) if points else "not there yet"
        told = words(quantity, reference.value)
        tell(f"sensor {seen}, reference {told}: waiting for rest, {window[-1].at_s:.0f} s")

    collect(source, patience_s, show, enough)
    found = rest(points, quantity, span_s)
    if found is None:
        why = f"gave no {quantity}" if not points else f"did not come to rest at {words(quantity, reference.value)}"
        raise EdgeAgentError(f"the sensor {why} in time", hint="keep draughts away, or wait longer with --patience")
    return Measured(reference, found)


def _raw(source: Source, quantity: str, value: float) -> float:
    """What the sensor itself said: the daemon's readings are corrected already."""
    applied: dict[str, Any] = getattr(source, "applied", {}).get("corrections", {})
    return Correction(**applied[quantity]).raw(value) if quantity in applied else value


def words(quantity: str, value: float) -> str:
    """With unit, as precise as such sensors are."""
    unit, digits = _SHOWN[quantity]
    return f"{value:.{digits}f} {unit}"
