"""Labelled pictures, ready to be learned from: decoded, checked, copies found, parts known."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from edge_agent.errors import ConfigError, Problem
from models.train import parts, pictures, pixels
from models.train.pictures import REGIONS, PictureSet, Sample
from models.train.pixels import Pixels
from models.train.recipe import Recipe

_LONGEST_SIDE: Final = 640

Stage = Callable[[str, int, int, dict[str, float]], None]
"""``stage(name, done, of, live metrics)``."""


class Prepared(NamedTuple):
    """Everything that is ready to be learned from. ``remarks``: what people should know about their pictures."""

    samples: tuple[Sample, ...]
    pixels: Pixels
    groups: list[str]
    truth: Any
    labels: tuple[str, ...]
    good: frozenset[int]
    kind: str
    recipe: Recipe
    remarks: tuple[str, ...]

    def sides(self) -> tuple[Any, Any]:
        """Pictures that may examine, and those that are only learned from."""
        pattern = re.compile(self.recipe.only_train) if self.recipe.only_train else None
        only = np.array([bool(pattern and pattern.search(sample.path.name)) for sample in self.samples], bool)
        return np.flatnonzero((self.truth >= 0) & ~only), np.flatnonzero((self.truth >= 0) & only)

    @property
    def bad(self) -> Any:
        return ~np.isin(self.truth, list(self.good))


def prepare(folder: Path, recipe: Recipe, scratch: Path, stage: Stage) -> Prepared:
    """Read, decode, check; raises ConfigError with everything that is wrong with the pictures."""
    found, problems = pictures.find(folder, recipe.groups, recipe.good)
    if recipe.task == "locate" and found.kind != REGIONS:
        problems.append(Problem(0, "task", "to locate needs polygons or masks", str(folder)))
    size = recipe.size or _fitting(pixels.sizes(found.samples) or (_LONGEST_SIDE, _LONGEST_SIDE))
    recipe = recipe.model_copy(update={"size": size})
    try:
        loaded = pixels.load(
            found.samples, size, recipe.colour, recipe.resize, scratch, lambda done, of: stage("read", done, of, {})
        )
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    copies = parts.copies(parts.look(loaded.small), loaded.thumbs)
    return _without_contradictions(found, loaded, copies, recipe)


def _without_contradictions(found: PictureSet, loaded: Pixels, copies: parts.Copies, recipe: Recipe) -> Prepared:
    samples = found.samples
    names = [sample.label for sample in samples]
    out = {index for each in copies.contradictions(names) for index in each}
    groups = [sample.group for sample in samples]
    across = [each for each in copies.sets if len({groups[index] for index in each}) > 1]
    groups = parts.joined(groups, copies)
    remarks = [f"copies, kept together: {', '.join(str(samples[index].path) for index in each[:4])}" for each in across]
    remarks += [f"left out, a copy has another label: {samples[index].path}" for index in sorted(out)]
    dark = np.flatnonzero((loaded.thumbs < pixels.DARK).mean(axis=(1, 2)) > 0.99)
    remarks += [f"almost black, and kept as it is: {samples[index].path}" for index in dark]
    labels = found.labels
    truth = np.array([labels.index(name) for name in names], np.int64)
    truth[sorted(out)] = -1
    good = frozenset(labels.index(name) for name in found.good)
    kind = "locate" if found.kind == REGIONS and recipe.task != "classify" else "classify"
    return Prepared(samples, loaded, groups, truth, labels, good, kind, recipe, tuple(remarks))


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _LONGEST_SIDE / max(size))
    width, height = (max(32, round(side * scale / 8) * 8) for side in size)
    return width, height
