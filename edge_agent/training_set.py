"""Kept pictures as a folder that ``train defects`` takes: a folder per class, people's word before that of models.

Pictures of one part share the beginning of their names, up to ``__``, so that a part is never on both sides of a split.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.clock import iso
from edge_agent.errors import EdgeAgentError
from edge_agent.evidence_index import Kept
from edge_agent.relabelling import FOLDER, LABEL, Picture, corrections, pictures
from edge_agent.vocabulary import ANOMALY, DEFECT, GOOD, NORMAL
from edge_agent.whole import UNFINISHED

GROUPS: Final = "([^/]+)__"
"""Finds the part in a path below the folder; for ``train defects --groups``."""

_SAME_PART_MS: Final = 2000  # between two pictures of which nobody knows when their part was seen


@dataclass(frozen=True, slots=True)
class Example:
    """``group``: the part that it shows."""

    path: Path
    label: str
    group: str
    name: str
    is_corrected: bool


@dataclass(slots=True)
class TrainingSet:
    """``left_out``: why, and how many."""

    examples: list[Example] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def classes(self) -> dict[str, int]:
        return dict(sorted(Counter(example.label for example in self.examples).items()))


def gather(state_dir: Path, first_ms: int, end_ms: int, cameras: Collection[str] = ()) -> TrainingSet:
    """What was taken in that time, by all cameras or these. Raises EdgeAgentError where it cannot be read."""
    try:
        said = {each.kept.id: each for each in corrections(state_dir)}
        found = {each.kept.id: each for each in pictures(state_dir)}
    except OSError as error:
        raise EdgeAgentError(f"the pictures cannot be read: {error.strerror}", hint=str(error.filename)) from error
    for each in said.values():
        kept = each.kept
        found[kept.id] = Picture(kept, state_dir / FOLDER / kept.camera / f"{kept.id}.jpg")
    wanted = [
        each
        for each in found.values()
        if first_ms <= each.kept.at_ms < end_ms and (not cameras or each.kept.camera in cameras)
    ]
    groups = parts(each.kept for each in wanted)
    judged_by_people = {groups[name] for name in groups if name in said}
    gathered = TrainingSet()
    for picture in sorted(wanted, key=lambda each: (each.kept.camera, each.kept.at_ms, each.kept.id)):
        kept = picture.kept
        group, correction = groups[kept.id], said.get(kept.id)
        label = correction.label if correction else _label(kept)
        if correction is None and group in judged_by_people:
            gathered.left_out["a person labelled another picture of the same part"] += 1
        elif correction is None and kept.uncertain:
            gathered.left_out["uncertain, and no person labelled it"] += 1
        elif label is None:
            gathered.left_out["not judged, and no person labelled it"] += 1
        else:
            gathered.examples.append(Example(picture.path, label, group, kept.id, correction is not None))
    return gathered


def _label(kept: Kept) -> str | None:
    """The class that the model gave it."""
    if kept.label in (DEFECT, ANOMALY):
        return kept.kind if kept.kind and LABEL.fullmatch(kept.kind) else kept.label
    return GOOD if kept.label in (GOOD, NORMAL) else None


def parts(kept: Iterable[Kept]) -> dict[str, str]:
    """Picture → the part that it shows.

    Where no sensor saw the part, pictures that follow each other closely, or were kept for the same verdict, may show
    the same one: they are one.
    """
    groups: dict[str, str] = {}
    name, last, of = "", None, set[str]()
    for each in sorted(kept, key=lambda each: (each.camera, each.part is not None, each.at_ms)):
        if each.part is not None:
            groups[each.id] = _name(each.camera, each.part)
            continue
        follows = last is not None and last.camera == each.camera
        if last is None or not (follows and (each.at_ms - last.at_ms <= _SAME_PART_MS or each.of in of)):
            name, of = _name(each.camera, iso(each.at_ms)), set()
        groups[each.id], last = name, each
        of.add(each.of)
    return groups


def _name(camera: str, time: str) -> str:
    return f"{camera}-{''.join(letter for letter in time if letter.isalnum())}"


def write(gathered: TrainingSet, folder: Path) -> None:
    """A new folder, whole or not at all. Raises EdgeAgentError."""
    if folder.exists():
        raise EdgeAgentError(f"{folder} is there already")
    fresh = folder.with_name(f".{folder.name}{UNFINISHED}")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for example in gathered.examples:
            if not example.path.exists():  # it has made room for a newer one meanwhile
                continue
            home = fresh / example.label
            home.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(example.path, home / f"{example.group}__{example.name}.jpg")
        fresh.rename(folder)
    except OSError as error:
        raise EdgeAgentError(f"cannot write {folder}: {error.strerror}", hint=str(error.filename)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
