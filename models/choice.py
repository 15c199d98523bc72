"""Which variant of a bundle decides on this board, and on how many threads: measured by ``calibrate model``.

Kept in ``calibration/model-<name>.json`` of the state folder, for exactly the bundle that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from pydantic import Field, ValidationError

from edge_agent.errors import ModelError
from edge_agent.settings import Section
from models import archive

if TYPE_CHECKING:
    from models.bundle import Bundle

_LARGEST: Final = 256 << 10


class Measured(Section):
    """One variant on so many threads, over the golden samples, in a process of its own."""

    variant: str = Field(description="Which file.")
    threads: int = Field(ge=1, description="On how many threads.")
    p50_ms: float = Field(ge=0, description="One judgement takes so long, half of the time.")
    p95_ms: float = Field(ge=0, description="The same, 95 % of the time.")
    rss_bytes: int = Field(ge=0, description="Memory of the whole process.")
    same: float = Field(ge=0, le=1, description="Share of golden samples that are decided as they should be.")
    wrong: str = Field(default="", description="Why it cannot be used.")


class Choice(Section):
    """What was chosen. Without a measurement: the card's first variant whose runtime is installed, one thread."""

    sha256: str = Field(default="", description="Of the bundle that was measured.")
    variant: str | None = Field(default=None, description="The variant that decides.")
    threads: int = Field(default=1, ge=1, le=64, description="On how many threads.")
    why: str = Field(default="", description="Why this one.")
    at: str = Field(default="", description="When it was measured, UTC.")
    measured: tuple[Measured, ...] = Field(default=(), description="The whole table.")


_UNSTEADY: Final = 3.0  # times as long as half of them
_ALIKE: Final = 1.1  # times as long is as good: then fewer threads, then what the card prefers


def choose(measured: Sequence[Measured]) -> Choice:
    """The fastest of those that decide as they should, and why. Raises ModelError where there is none."""
    usable = [each for each in measured if not each.wrong and each.same == 1.0]
    if not usable:
        raise ModelError("no variant decides as it should on this board", hint=measured[0].wrong if measured else "")
    fastest = min(each.p50_ms for each in usable)
    best = min((each for each in usable if each.p50_ms <= _ALIKE * fastest), key=lambda each: each.threads)
    why = f"{best.p50_ms:g} ms on {best.threads} thread{'s' if best.threads > 1 else ''}"
    if best.variant.startswith("fp32") and any(each.variant.startswith("int8") for each in measured):
        small = [each.p50_ms for each in usable if each.variant.startswith("int8")]
        why += f"; int8 is not faster here ({min(small):g} ms)" if small else "; int8 cannot be used here"
    if not is_steady(usable):
        why += "; times varied much: measure again while nothing else keeps this board busy"
    return Choice(variant=best.variant, threads=best.threads, why=why, measured=tuple(measured))


def is_steady(measured: Sequence[Measured]) -> bool:
    """Whether the times say something of the models, and not of what else ran meanwhile."""
    return median(each.p95_ms / max(each.p50_ms, 1e-6) for each in measured) <= _UNSTEADY


def path_of(state_dir: Path, name: str) -> Path:
    return state_dir / "calibration" / f"model-{name}.json"


def chosen(state_dir: Path, of: Bundle) -> Choice:
    """The choice for exactly this bundle; what cannot be read, or was measured for another one, chooses nothing."""
    found = read(state_dir, of.card.name)
    if found is None or found.sha256 != of.sha256 or found.variant not in {file.variant for file in of.card.files}:
        return Choice()
    return found


def read(state_dir: Path, name: str) -> Choice | None:
    """What was measured last, or None."""
    try:
        with path_of(state_dir, name).open("rb") as file:
            return Choice.model_validate_json(file.read(_LARGEST))
    except (OSError, ValidationError):
        return None


def keep(state_dir: Path, name: str, choice: Choice) -> None:
    """Raises OSError."""
    path = path_of(state_dir, name)
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o750)
        archive.give(path.parent, state_dir.stat())
    archive.replace(path, choice.model_dump_json(indent=1).encode() + b"\n")
