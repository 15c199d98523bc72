"""What people say of kept pictures: "that was good", "that was a scratch". It wins over every verdict.

A labelled picture is linked into ``corrections/<camera>/`` of the state folder, where no quota of evidence reaches it,
with what was said beside it. Only the daemon writes there; whoever exports pictures reads.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

from edge_agent.clock import Stamp, iso
from edge_agent.errors import EdgeAgentError
from edge_agent.evidence_index import UNCERTAIN, Kept, kept_from, read
from edge_agent.outbox import VERDICT, Row
from edge_agent.vocabulary import UNKNOWN, nearest
from edge_agent.whole import whole

EVIDENCE: Final = "evidence"
FOLDER: Final = "corrections"
LABEL: Final = re.compile(r"\w[\w-]{0,63}")
"""It becomes the name of a folder."""

_MOST: Final = 10_000  # by hand; a script that runs away fills no disk


class Picture(NamedTuple):
    """A picture that was kept, and its file."""

    kept: Kept
    path: Path


@dataclass(frozen=True, slots=True)
class Correction:
    """``label``: what it shows; ``was``: what had been said before, by a model or a person."""

    kept: Kept
    label: str
    was: str
    who: str
    at_ms: int

    def row(self, at: Stamp) -> Row:
        """As it is told the broker."""
        kept = self.kept
        fields = {
            "subject": kept.camera,
            "evidence": kept.id,
            "taken": iso(kept.at_ms),
            "label": self.label,
            "was": self.was,
            "decided_by": kept.decided_by,
            "who": self.who,
        }
        return Row(VERDICT, f"correction/{kept.camera}", at, json.dumps(fields)[1:-1])


def correct(state_dir: Path, picture: str, label: str, who: str, at: Stamp) -> Correction:
    """Put on record what a picture shows. Raises EdgeAgentError.

    ``picture``: its id (of a marked copy: that of the original), or a camera: its newest picture with a verdict.
    ``label``: ``good``, or whatever the defect is called.
    """
    if LABEL.fullmatch(label) is None:
        raise EdgeAgentError(f"{label!r} is no label", hint="letters, digits, _ and -: good, scratch, dent-deep")
    folder = state_dir / FOLDER
    known = {each.kept.id: each for each in corrections(state_dir)}
    if len(known) >= _MOST:
        raise EdgeAgentError(f"{len(known)} pictures are labelled already", hint=f"export them, then empty {folder}")
    found = _find(state_dir, picture.removesuffix("-overlay"), known)
    was = known[found.kept.id].label if found.kept.id in known else found.kept.label
    correction = Correction(found.kept, label, was, who[:100], at.wall_ms)
    try:
        _keep(folder / found.kept.camera, found, correction)
    except OSError as error:
        raise EdgeAgentError(f"cannot be kept: {error.strerror}", hint=str(folder)) from error
    return correction


def _find(state_dir: Path, picture: str, known: dict[str, Correction]) -> Picture:
    everything = list(pictures(state_dir))
    by_id = {each.kept.id: each for each in everything}
    if picture in by_id:
        return by_id[picture]
    if picture in known:  # its evidence has made room for others
        kept = known[picture].kept
        return Picture(kept, state_dir / FOLDER / kept.camera / f"{kept.id}.jpg")
    own = [each for each in everything if each.kept.camera == picture and each.kept.role in ("verdict", UNCERTAIN)]
    if own:
        return max(own, key=lambda each: each.kept.at_ms)
    names = {*by_id, *(each.kept.camera for each in everything)}
    hint = "edge-agent alarms pictures lists them" if names else "no picture is kept yet"
    raise EdgeAgentError(f"no picture {picture!r} is kept{nearest(picture, names)}", hint=hint)


def _keep(folder: Path, found: Picture, correction: Correction) -> None:
    """The picture first: what was said makes it count. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{found.kept.id}.jpg"
    if not target.exists():
        try:
            os.link(found.path, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            with found.path.open("rb") as source, whole(target) as copy:
                shutil.copyfileobj(source, copy)
    with whole(target.with_suffix(".json")) as file:
        file.write(json.dumps(asdict(correction)).encode())


def corrections(state_dir: Path) -> Iterator[Correction]:
    """All of them; what cannot be read, or has lost its picture, is none."""
    for path in sorted((state_dir / FOLDER).glob("*/*.json")):
        try:
            said = json.loads(path.read_bytes())
            kept = kept_from(said["kept"])
            found = Correction(kept, str(said["label"]), str(said["was"]), str(said["who"]), int(said["at_ms"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        fits = (kept.camera, kept.id) == (path.parent.name, path.stem) and LABEL.fullmatch(found.label)
        if fits and path.with_suffix(".jpg").exists():
            yield found


def pictures(state_dir: Path) -> Iterator[Picture]:
    """Every picture that is kept as it was taken, oldest first within a folder. Raises OSError."""
    for camera in _folders(state_dir / EVIDENCE):
        for folder in (camera, camera / UNCERTAIN):
            said = {kept.id: kept for kept in read(folder) if kept.camera == camera.name}
            for path in sorted(folder.glob("*.jpg")):
                kept = said.get(path.stem) or _unsaid(camera.name, path)
                if kept.role != "overlay" and not path.is_symlink():
                    yield Picture(kept, path)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _unsaid(camera: str, path: Path) -> Kept:
    """A picture whose line was lost in a power cut: nobody knows what was said of it."""
    of, _, role = path.stem.rpartition("-")
    if not role.startswith(("pre", "post", "overlay")):
        of, role = path.stem, "verdict"
    at_ms = path.stat().st_mtime_ns // 1_000_000
    return Kept(path.stem, camera, role.rstrip("0123456789"), of, at_ms, UNKNOWN, "")
