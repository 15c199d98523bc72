"""What each kept picture shows, one JSON line per picture beside the pictures: for whoever labels, exports or looks.

Only the eye process writes it. A line that was torn by a power cut, or whose picture is gone, counts for nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from edge_agent.vocabulary import Verdict
from edge_agent.whole import whole

INDEX: Final = "index.jsonl"
UNCERTAIN: Final = "uncertain"  # the folder of its own, and the role
_SPARE: Final = 1000  # lines about pictures that are gone, before the file is written anew


@dataclass(frozen=True, slots=True)
class Kept:
    """One picture, and what was said of exactly this one.

    ``of``: id of the verdict that it was kept for. ``part``: when a sensor saw the part that it shows, if one did.
    ``kind``: the model's own name of what it is.
    """

    id: str
    camera: str
    role: str
    of: str
    at_ms: int
    label: str
    decided_by: str
    score: float | None = None
    threshold: float | None = None
    kind: str | None = None
    part: str | None = None
    uncertain: str | None = None


def kept_as(picture: str, role: str, of: str, verdict: Verdict) -> Kept:
    """The line about a picture of this verdict."""
    said = verdict.details
    return Kept(
        picture,
        verdict.subject,
        role,
        of,
        verdict.at.wall_ms,
        verdict.label,
        verdict.decided_by,
        verdict.score,
        verdict.threshold,
        *(str(said[name]) if name in said else None for name in ("class", "part", "uncertain")),
    )


class Index:
    """The file of one folder. Called from one thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / INDEX
        self._lines = 0

    def open(self, there: set[str]) -> None:
        """Begin with what is still there; raises OSError. ``there``: ids of the pictures."""
        with whole(self._path) as file:
            found = [line for line in read(self._path.parent) if line.id in there]
            file.write(b"".join(map(_line, found)))
        self._lines = len(found)

    def add(self, kept: Kept, there: Iterable[str]) -> None:
        """One more, on the disk before this returns; raises OSError."""
        with self._path.open("ab") as file:
            file.write(_line(kept))
            file.flush()
            os.fdatasync(file.fileno())
        self._lines += 1
        ids = set(there) if self._lines % _SPARE == 0 else None
        if ids is not None and self._lines > len(ids) + _SPARE:
            self.open(ids)


def read(folder: Path) -> Iterator[Kept]:
    """Every line that can be read, oldest first; raises OSError for a file that is there and cannot be."""
    try:
        data = (folder / INDEX).read_bytes()
    except FileNotFoundError:
        return
    for line in data.splitlines():
        try:
            found = kept_from(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            continue
        yield found


_NAMES: Final = {field.name for field in fields(Kept)}


def kept_from(said: Any) -> Kept:
    """Raises ValueError or TypeError for what no eye wrote."""
    if not isinstance(said, dict):
        raise ValueError("not a line of an index")
    found = Kept(**{name: said[name] for name in said.keys() & _NAMES})
    if not all(isinstance(word, str) for word in (found.id, found.camera, found.role, found.of, found.label)):
        raise ValueError("not a line of an index")
    if not isinstance(found.at_ms, int):
        raise ValueError("no time")
    return found


def _line(kept: Kept) -> bytes:
    return json.dumps({name: value for name, value in asdict(kept).items() if value is not None}).encode() + b"\n"
