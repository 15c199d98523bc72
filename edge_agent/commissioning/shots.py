"""Good parts as a configured camera sees them: taken by its own eye process, which nobody here can be hurt by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Final

from edge_agent.clock import NS, Clock
from edge_agent.errors import EdgeAgentError
from edge_agent.health import Health
from edge_agent.plan import KindPlan
from edge_agent.stages.eye import Eye
from edge_agent.vocabulary import ANOMALY, DEFECT, GOOD, NORMAL, UNKNOWN, Evidence, Verdict

_LABELS: Final = (GOOD, DEFECT, NORMAL, ANOMALY, UNKNOWN)  # whatever a rule says of it: a person says it is good
_QUALITY: Final = 97

Show = Callable[[int, Path | None, str], None]
"""How many there are, the newest of them, and why the last picture does not count (or nothing)."""


def take(
    camera: KindPlan, count: int, folder: Path, relative_to: Path, within_s: float, clock: Clock, show: Show
) -> Path:
    """So many pictures as files in a folder inside ``folder``. Raises EdgeAgentError where they do not come in time."""
    settings = camera.settings
    keep = settings.evidence.model_copy(update={"labels": _LABELS, "pre": 0, "post": 0, "jpeg_quality": _QUALITY})
    kept: list[str] = []
    why = ""
    stop = Event()
    end_ns = clock.mono_ns() + int(within_s * NS)

    def note(verdict: Verdict) -> None:
        nonlocal why
        why = verdict.reason or ""
        if why:
            show(len(kept), None, why)

    def evidence(picture: Evidence) -> None:
        kept.append(picture.id)
        show(len(kept), folder / camera.name / f"{picture.id}.jpg", "")
        if len(kept) >= count:
            stop.set()

    def progress() -> None:
        if clock.mono_ns() > end_ns:
            stop.set()

    eye = Eye(
        camera.name,
        camera.kind,
        settings.model_copy(update={"evidence": keep}),
        folder,
        clock,
        Health(clock),
        on_verdict=note,
        on_evidence=evidence,
        relative_to=relative_to,
    )
    eye.body(stop, progress)
    if len(kept) < count:
        raise EdgeAgentError(
            f"{camera.name} gave {len(kept)} of {count} pictures in {within_s:.0f} s{f': {why}' if why else ''}",
            hint="is the camera free? a running daemon holds it: systemctl stop edge-agent",
        )
    return folder / camera.name
