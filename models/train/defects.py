"""From labelled pictures to a signed bundle for the task ``defect``, and a report that people look at.

::

    read ─▶ decode ─▶ copies ─▶ whole parts: train · validation · test     (or folds: each part held out in turn)
                                    │            │            │
                                 network ─▶ four files ─▶ threshold ─▶ examination ─▶ card, golden, report
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge_agent.errors import ConfigError, Problem
from models import bundle, golden, judge
from models.bundle import Bundle
from models.train import examine, metrics, parts, pictures, pixels
from models.train.examine import Parity, Result, Said
from models.train.pictures import REGIONS, PictureSet, Sample
from models.train.pixels import Pixels
from models.train.recipe import Recipe

if TYPE_CHECKING:
    from models.train.loop import Progress, Task

    Array = Any

_CALIBRATION: Final = 128  # pictures that the ranges of int8 are found with
_GOLDEN: Final = 4
_LONGEST_SIDE: Final = 640
_MOST_GOLDEN_BYTES: Final = 700_000


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


@dataclass
class Made:
    """``draft``: a bundle without golden samples and signature, with all four variants."""

    draft: Bundle
    network: Any
    result: Result
    parity: Parity
    prepared: Prepared
    golden: bytes = b""
    extra: dict[str, float | str] = field(default_factory=dict)


Stage = Callable[[str, int, int, dict[str, float]], None]
"""``stage(name, done, of, live metrics)``."""


def prepare(folder: Path, recipe: Recipe, scratch: Path, stage: Stage) -> Prepared:
    """Read, decode, check; raises ConfigError with everything that is wrong with the pictures."""
    found = pictures.read(folder, recipe.groups, recipe.good)
    if recipe.task == "locate" and found.kind != REGIONS:
        raise ConfigError([Problem(0, "task", "to locate needs polygons or masks", str(folder))])
    recipe = recipe.model_copy(update={"size": recipe.size or _fitting(pixels.sizes(found.samples))})
    size = recipe.size or (0, 0)
    loaded = pixels.load(found.samples, size, recipe.colour, scratch, lambda done, of: stage("read", done, of, {}))
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


def make(prepared: Prepared, stage: Stage) -> Made:
    """Learn and examine. Raises ConfigError where there are too few parts."""
    usable, only = prepared.sides()
    if prepared.recipe.folds:
        return _by_folds(prepared, usable, only, stage)
    groups = [prepared.groups[index] for index in usable]
    names = [prepared.labels[prepared.truth[index]] for index in usable]
    sides = parts.split(groups, names, prepared.recipe.shares, prepared.recipe.seed)
    train, validation, test = (usable[sides == side] for side in (parts.TRAIN, parts.VALIDATION, parts.TEST))
    train = np.concatenate([train, only])
    _check_sides(prepared, {"train": train, "validation": validation, "test": test})
    network, files = learn(prepared, train, validation, stage)
    trial = _draft(prepared, files, 0.5, 0)
    said = examine.ask(trial, "int8-onnx", prepared.pixels, validation)
    threshold = _threshold(said.scores, prepared.bad[validation], prepared.recipe)
    said = examine.ask(trial, "int8-onnx", prepared.pixels, test)
    return _examined(prepared, network, files, threshold, len(validation), (test, said), test)


def _by_folds(prepared: Prepared, usable: Any, only: Any, stage: Stage) -> Made:
    """Each set of parts held out in turn; the model that ships has then learned from all of them."""
    held, said = held_out(prepared, usable, only, stage)
    threshold = _threshold(said.scores, prepared.bad[held], prepared.recipe)
    network, files = learn(prepared, np.concatenate([usable, only]), usable[:0], stage)
    return _examined(prepared, network, files, threshold, len(held), (held, said), usable)


def held_out(prepared: Prepared, usable: Any, only: Any, stage: Stage) -> tuple[Any, Said]:
    """What int8 models say of the parts that they never saw: indices and answers."""
    groups = [prepared.groups[index] for index in usable]
    names = [prepared.labels[prepared.truth[index]] for index in usable]
    count = prepared.recipe.folds
    if len(set(groups)) < count:
        raise ConfigError([Problem(0, "folds", f"{count} folds need {count} parts; there are {len(set(groups))}")])
    numbers = parts.folds(groups, names, count, prepared.recipe.seed)
    order, scores, classes = [], [], []
    for number in range(count):
        inside, outside = usable[numbers == number], np.concatenate([usable[numbers != number], only])
        _check_sides(prepared, {f"fold {number + 1}": outside})

        def tell(name: str, done: int, of: int, live: dict[str, float], number: int = number) -> None:
            stage(f"fold {number + 1} of {count}: {name}", done, of, live)

        _, files = learn(prepared, outside, usable[:0], tell)
        answer = examine.ask(_draft(prepared, files, 0.5, 0), "int8-onnx", prepared.pixels, inside)
        order.append(inside)
        scores.append(answer.scores)
        classes.append(answer.classes)
    return np.concatenate(order), Said(np.concatenate(scores), np.concatenate(classes))


def _check_sides(prepared: Prepared, sides: dict[str, Any]) -> None:
    problems = []
    for name, chosen in sides.items():
        bad = prepared.bad[chosen]
        if not len(chosen) or bad.all() or not bad.any():
            kinds = "good and bad" if not len(chosen) else "bad" if not bad.any() else "good"
            why = f"has no {kinds} pictures: more parts are needed, or other --groups, or another --seed"
            problems.append(Problem(0, name, why))
    if problems:
        raise ConfigError(problems)


def learn(prepared: Prepared, train: Any, validation: Any, stage: Stage) -> tuple[Any, dict[str, bytes]]:
    """One network and its four files."""
    from models.train import exported, loop  # noqa: PLC0415 - torch is heavy, and most only read pictures

    def tell(progress: Progress) -> None:
        live = {"loss": progress.loss} | ({"validation": progress.value} if progress.value is not None else {})
        stage("train", progress.step, progress.steps, live)

    recipe = prepared.recipe
    classes = len(prepared.labels)
    task: Task = loop.Task(prepared.pixels, prepared.truth, prepared.good, classes, train, validation)
    network = loop.train(task, recipe, prepared.kind, tell)
    stage("export", 0, 1, {})
    return network, exported.variants(network, _calibration(prepared, train))


def _calibration(prepared: Prepared, train: Any) -> Any:
    """Real pictures of both kinds, scaled."""
    random = np.random.default_rng(prepared.recipe.seed)
    bad = prepared.bad[train]
    chosen = np.concatenate([random.permutation(side)[: _CALIBRATION // 2] for side in (train[bad], train[~bad])])
    images = prepared.pixels.images[np.sort(chosen)].astype(np.float32)
    return ((images - prepared.recipe.mean) / prepared.recipe.std).transpose(0, 3, 1, 2).copy()


def _threshold(scores: Any, bad: Any, recipe: Recipe) -> float:
    value = metrics.threshold_for(scores, bad, recipe.false_rejects)
    return min(1.0, max(1e-4, round(value, 5)))


def _draft(
    prepared: Prepared, files: dict[str, bytes], threshold: float, samples: int, numbers: dict[str, Any] | None = None
) -> Bundle:
    """The bundle with these files; small ones first."""
    recipe = prepared.recipe
    locates = prepared.kind == "locate"
    good = [label for number, label in enumerate(prepared.labels) if number in prepared.good]
    outputs: dict[str, Any] = (
        {"name": "suspicion", "activation": "sigmoid"}
        if locates
        else {"name": "logits", "activation": "softmax", "labels": list(prepared.labels), "good": good}
    )
    set_for = "the fewest mistakes" if recipe.false_rejects is None else f"false-reject rate {recipe.false_rejects:.2%}"
    ranked = sorted(files, key=lambda name: (not name.startswith("int8"), not name.endswith("onnx")))
    width, height = recipe.size or (0, 0)
    card: dict[str, Any] = {
        "name": recipe.name,
        "version": recipe.version,
        "task": "defect",
        "description": recipe.description,
        "input": {
            "kind": "picture",
            "size": f"{width}x{height}",
            "colour": recipe.colour,
            "mean": [recipe.mean],
            "std": [recipe.std],
        },
        "outputs": outputs,
        **({"parameters": {"heat": "heat"}} if locates else {}),
        "threshold": {"value": threshold, "set_for": set_for, **({"samples": samples} if samples else {})},
        "files": [{"name": name, "format": name.split(".")[1], "precision": name.split(".")[0]} for name in ranked],
        "data": [each.model_dump(exclude_defaults=True) for each in recipe.data],
        "metrics": numbers or {},
    }
    return bundle.draft(card, files)


def _examined(
    prepared: Prepared,
    network: Any,
    files: dict[str, bytes],
    threshold: float,
    samples: int,
    answers: tuple[Any, Said],
    same_on: Any,
) -> Made:
    """``answers``: of int8 on pictures never seen; ``same_on``: pictures on which the variants are compared."""
    chosen, said = answers
    result = Result(chosen, said, prepared.truth[chosen], prepared.bad[chosen], prepared.labels, threshold)
    draft = _draft(prepared, files, threshold, samples)
    return Made(draft, network, result, examine.parity(draft, prepared.pixels, same_on, threshold), prepared)


def finish(made: Made, command: str, *, small: bool = True) -> Bundle:
    """The bundle as it ships: figures on the card, golden samples recorded. ``small``: int8 only."""
    numbers: dict[str, Any] = {
        key: value
        for key, value in made.result.numbers().items()
        if not (isinstance(value, float) and math.isnan(value))
    }
    numbers |= {
        "int8_agrees_onnx": round(made.parity.quantised_onnx, 5),
        "int8_agrees_tflite": round(made.parity.quantised_tflite, 5),
        "onnx_agrees_tflite": round(made.parity.runtimes_int8, 5),
        "command": command,
        **made.extra,
    }
    names = [file.name for file in made.draft.card.files if not small or file.precision == "int8"]
    threshold = made.draft.card.threshold
    drafted = _draft(
        made.prepared,
        {name: made.draft.files[name] for name in names},
        threshold.value if threshold else 0.5,
        (threshold.samples or 0) if threshold else 0,
        numbers,
    )
    made.golden = _golden(made, drafted)
    return drafted


def _golden(made: Made, drafted: Bundle) -> bytes:
    """The clearest good and bad pictures that were never seen, as few as fit."""
    scores, bad = made.result.said.scores, made.result.bad
    order = np.argsort(scores)
    right = order[(scores[order] >= made.result.threshold) == bad[order]]
    clear = np.concatenate([right[: _GOLDEN // 2], right[-(_GOLDEN // 2) :]])
    images = np.stack([examine.picture(made.prepared.pixels, int(made.result.chosen[each])) for each in clear])
    return golden.record(judge.build(drafted), drafted.card, images)
