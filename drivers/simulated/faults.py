"""Faults by the clock: what a twin does wrong, when, for how long and how often."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ConfigDict, Field

from edge_agent.settings import Duration, Section


class Fault(Section):
    """One line of a twin's script. What a ``kind`` does is the twin's business."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    kind: str = Field(description="What goes wrong.")
    at: Duration = Field(default=0.0, ge=0, description="When it begins, counted from the start of the twin.")
    lasts: Duration | None = Field(default=None, alias="for", gt=0, description="How long; for ever if not given.")
    every: Duration | None = Field(default=None, gt=0, description="After how long it begins again; once if not given.")


def active(faults: Iterable[Fault], elapsed_s: float) -> frozenset[str]:
    """The kinds that are wrong ``elapsed_s`` seconds after the start of the twin."""
    return frozenset(fault.kind for fault in faults if _is_active(fault, elapsed_s))


def _is_active(fault: Fault, elapsed_s: float) -> bool:
    since_s = elapsed_s - fault.at
    if since_s < 0:
        return False
    if fault.every is not None:
        since_s %= fault.every
    return fault.lasts is None or since_s < fault.lasts
