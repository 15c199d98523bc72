"""Labelled pictures in a folder, as people keep them, read into samples.

===================  ===============================================================================================
folders per class    ``good/*.jpg``, ``crack/*.jpg``, …
MVTec-style          ``train/good``, ``test/good``, ``test/<defect>``, masks: ``ground_truth/<defect>/<n>_mask.png``
polygons (labelme)   pictures anywhere, ``<name>.json`` anywhere; a picture without polygons is good; polygons that
                     are labelled ``ignore`` mark what nobody shall learn from
===================  ===============================================================================================

Everything that is wrong is collected: whoever labels wants to mend it in one go.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from math import cos, isfinite, pi, sin
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_agent.errors import ConfigError, Problem

SUFFIXES: Final = {".jpg", ".jpeg", ".png"}
GOOD_NAMES: Final = ("good", "ok", "normal", "no-anomaly", "no_anomaly", "no-defect")
IGNORE: Final = "ignore"
CLASSES: Final = "classes"
REGIONS: Final = "regions"

Points = tuple[tuple[float, float], ...]


class Region(NamedTuple):
    """A polygon in pixels of the picture, x to the right, y down."""

    label: str
    points: Points


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture. ``group``: the part that it shows; a part is never on both sides of a split.

    ``size``: width and height that its labels were made for, where they say so.
    """

    path: Path
    label: str
    group: str
    regions: tuple[Region, ...] = ()
    mask: Path | None = None
    size: tuple[int, int] | None = None


class PictureSet(NamedTuple):
    """``kind``: ``classes`` or ``regions``. ``labels``: the good ones first; ``good``: which they are."""

    samples: tuple[Sample, ...]
    kind: str
    labels: tuple[str, ...]
    good: tuple[str, ...]


def read(folder: Path, groups: str | None = None, good: Iterable[str] = ()) -> PictureSet:
    """Every labelled picture below the folder; raises ConfigError with all that is wrong. See :func:`find`."""
    found, problems = find(folder, groups, good)
    if problems:
        raise ConfigError(problems)
    return found


def find(folder: Path, groups: str | None = None, good: Iterable[str] = ()) -> tuple[PictureSet, list[Problem]]:
    """Every labelled picture below the folder, and what is wrong with folders and labels.

    Raises ConfigError where nothing can be read at all. ``groups``: regular expression; what its first group (or all
    of it) finds in a picture's path below the folder names the part; a picture where it finds nothing is a part of its
    own. None: each picture is.
    """
    problems: list[Problem] = []
    try:
        pattern = re.compile(groups) if groups else None
    except re.error as error:
        raise ConfigError([Problem(0, "--groups", f"{groups!r} is no regular expression: {error}")]) from error
    if not folder.is_dir():
        raise ConfigError([Problem(0, "", "is no folder of pictures", str(folder))])

    def part(path: Path) -> str:
        name = str(path.relative_to(folder))
        found = pattern.search(name) if pattern else None
        return (found[1] if found.re.groups and found[1] else found[0]) if found else name

    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if any(path.suffix == ".json" for path in files):
        samples, kind = _polygons(files, part, problems), REGIONS
    elif (folder / "train").is_dir() and (folder / "test").is_dir():
        samples, kind = _mvtec(folder, files, part, problems)
    else:
        samples, kind = _folders(folder, part, problems), CLASSES
    labels, good_labels = _labels(samples, kind, tuple(good), folder, problems)
    return PictureSet(tuple(samples), kind, labels, good_labels), problems


# --- the three layouts


def _pictures(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def _folders(folder: Path, part: Callable[[Path], str], problems: list[Problem]) -> list[Sample]:
    samples = []
    for each in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        pictures = _pictures(sorted(each.rglob("*")))
        if not os.access(each, os.R_OK | os.X_OK):
            problems.append(Problem(0, "", "the class cannot be read: not allowed", str(each)))
        elif not pictures:
            problems.append(Problem(0, "", "the class has no picture (JPEG or PNG)", str(each)))
        samples += [Sample(path, each.name, part(path)) for path in pictures]
    problems += [Problem(0, "", "has no class: put it into a folder", str(p)) for p in _pictures(folder.iterdir())]
    return samples


def _mvtec(
    folder: Path, files: list[Path], part: Callable[[Path], str], problems: list[Problem]
) -> tuple[list[Sample], str]:
    masks = {path for path in files if path.is_relative_to(folder / "ground_truth")}
    samples, used = [], set()
    for path in _pictures(files):
        place = path.relative_to(folder).parts
        if place[0] not in ("train", "test") or len(place) < 3:
            continue
        mask = folder / "ground_truth" / place[1] / f"{path.stem}_mask.png"
        used.add(mask)
        samples.append(Sample(path, place[1], part(path), mask=mask if mask in masks else None))
    problems += [Problem(0, "", "is a mask without a picture", str(path)) for path in sorted(masks - used)]
    good = {sample.label for sample in samples if sample.label in GOOD_NAMES}
    bare = [sample for sample in samples if sample.label not in good and sample.mask is None]
    if masks:
        problems += [Problem(0, "", "is a defect without a mask", str(sample.path)) for sample in bare]
    return samples, REGIONS if masks else CLASSES


def _polygons(files: list[Path], part: Callable[[Path], str], problems: list[Problem]) -> list[Sample]:
    labels: dict[str, Path] = {}
    for path in files:
        if path.suffix == ".json":
            if path.stem in labels:
                problems.append(Problem(0, "", f"labels the same picture as {labels[path.stem]}", str(path)))
            labels[path.stem] = path
    samples, seen = [], set()
    for path in _pictures(files):
        if path.stem in seen:
            problems.append(Problem(0, "", "another picture has the same name: whose label is it?", str(path)))
        seen.add(path.stem)
        regions, size = _labelme(labels[path.stem], problems) if path.stem in labels else ((), None)
        names = [region.label for region in regions if region.label != IGNORE]
        samples.append(Sample(path, names[0] if names else "good", part(path), regions, size=size))
    problems += [
        Problem(0, "", "is a label without a picture", str(path))
        for stem, path in sorted(labels.items())
        if stem not in seen
    ]
    return samples


def _labelme(path: Path, problems: list[Problem]) -> tuple[tuple[Region, ...], tuple[int, int] | None]:
    try:
        data: Any = json.loads(path.read_bytes())
        regions = tuple(Region(str(shape["label"]), _points(shape)) for shape in data["shapes"])
        size = (int(data["imageWidth"]), int(data["imageHeight"])) if data.get("imageWidth") else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        problems.append(Problem(0, "", f"is no labelme file: {type(error).__name__}: {error}", str(path)))
        return (), None
    if size is not None:
        problems += [
            Problem(0, "", f"its {region.label!r} lies outside of the picture", str(path))
            for region in regions
            if any(not (-1 <= x <= size[0] + 1 and -1 <= y <= size[1] + 1) for x, y in region.points)
        ]
    return regions, size


def _points(shape: dict[str, Any]) -> Points:
    """The outline of a labelme shape; raises ValueError for those without an area or a place."""
    points = tuple((float(x), float(y)) for x, y in shape["points"])
    if not all(map(isfinite, chain(*points))):
        raise ValueError("a point is nowhere: its place is no finite number")
    kind = shape.get("shape_type", "polygon")
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return ((left, top), (right, top), (right, bottom), (left, bottom))
    if kind == "circle":
        (x, y), (ex, ey) = points
        radius = ((ex - x) ** 2 + (ey - y) ** 2) ** 0.5
        return tuple((x + radius * cos(pi * k / 12), y + radius * sin(pi * k / 12)) for k in range(24))
    if kind != "polygon" or len(points) < 3:
        raise ValueError(f"a {kind} of {len(points)} points has no area")
    return points


# --- what is good


def _labels(
    samples: list[Sample], kind: str, wanted: tuple[str, ...], folder: Path, problems: list[Problem]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = Counter(sample.label for sample in samples)
    good = wanted or tuple(name for name in found if name.lower() in GOOD_NAMES)
    strange = [name for name in good if name not in found]
    if not samples:
        problems.append(Problem(0, "", "has no picture (JPEG or PNG)", str(folder)))
    elif strange:
        problems.append(Problem(0, "--good", f"there is no {', '.join(strange)}; there is {', '.join(found)}"))
    elif len(found) < 2:
        problems.append(Problem(0, "", f"has one class only, {next(iter(found))!r}: show good and bad", str(folder)))
    elif not good or len(good) == len(found):
        names = ", ".join(sorted(found))
        problems.append(Problem(0, "--good", f"say which of the classes are good: {names}"))
    if kind == REGIONS:  # one network output: suspicious or not, whatever the defect is called
        return (*good, *sorted(set(found) - set(good))), tuple(good)
    return (*sorted(good), *sorted(set(found) - set(good))), tuple(sorted(good))
