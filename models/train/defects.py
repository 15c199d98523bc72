"""Learning to tell good from bad, and finding out how well it was learned.

::

    read ─▶ decode ─▶ copies ─▶ whole parts: train · validation · test     (or folds: each part held out in turn)
                                    │            │            │
                                 network ─▶ four files ─▶ threshold ─▶ examination ─▶ card, golden, report
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_agent.errors import ConfigError, Problem
from models.train import examine, metrics, parts
from models.train.examine import Result, Said
from models.train.packing import Made, draft
from models.train.prepared import Prepared, Stage
from models.train.recipe import Recipe

if TYPE_CHECKING:
    from models.train.loop import Progress, Task

_CALIBRATION: Final = (128, 768)  # pictures that the ranges of int8 are found with: at least, of small ones at most
_CALIBRATION_PIXELS: Final = 64_000_000


def make(prepared: Prepared, stage: Stage) -> Made:
    """Learn and examine. Raises ConfigError where there are too few parts."""
    usable, only = prepared.sides()
    if prepared.recipe.folds:
        return _by_folds(prepared, usable, only, stage)
    train, validation, test = _split(prepared, usable, only)
    network, files = learn(prepared, train, validation, stage)
    trial = draft(prepared, files, 0.5, 0)
    said = examine.ask(trial, examine.EXAMINED, prepared.pixels, validation)
    threshold = _threshold(said.scores, prepared.bad[validation], prepared.recipe)
    said = examine.ask(trial, examine.EXAMINED, prepared.pixels, test)
    return _examined(prepared, network, files, threshold, int((~prepared.bad[validation]).sum()), (test, said), test)


def check(prepared: Prepared) -> None:
    """Raises ConfigError where there are too few parts to learn from and to examine with."""
    usable, only = prepared.sides()
    _fold_numbers(prepared, usable, only) if prepared.recipe.folds else _split(prepared, usable, only)


def _split(prepared: Prepared, usable: Any, only: Any) -> tuple[Any, Any, Any]:
    groups = [prepared.groups[index] for index in usable]
    names = [prepared.labels[prepared.truth[index]] for index in usable]
    sides = parts.split(groups, names, prepared.recipe.shares, prepared.recipe.seed)
    train, validation, test = (usable[sides == side] for side in (parts.TRAIN, parts.VALIDATION, parts.TEST))
    train = np.concatenate([train, only])
    _check_sides(prepared, {"train": train, "validation": validation, "test": test})
    return train, validation, test


def _by_folds(prepared: Prepared, usable: Any, only: Any, stage: Stage) -> Made:
    """Each set of parts held out in turn; the model that ships has then learned from all of them."""
    held, said = held_out(prepared, usable, only, stage)
    threshold = _threshold(said.scores, prepared.bad[held], prepared.recipe)
    network, files = learn(prepared, np.concatenate([usable, only]), usable[:0], stage)
    return _examined(prepared, network, files, threshold, int((~prepared.bad[held]).sum()), (held, said), usable)


def held_out(prepared: Prepared, usable: Any, only: Any, stage: Stage) -> tuple[Any, Said]:
    """What int8 models say of the parts that they never saw: indices and answers."""
    count = prepared.recipe.folds
    numbers = _fold_numbers(prepared, usable, only)
    order, answers = [], []
    for number in range(count):
        inside, outside = usable[numbers == number], np.concatenate([usable[numbers != number], only])

        def tell(name: str, done: int, of: int, live: dict[str, float], number: int = number) -> None:
            stage(f"fold {number + 1} of {count}: {name}", done, of, live)

        _, files = learn(prepared, outside, usable[:0], tell, everything=False)
        order.append(inside)
        answers.append(examine.ask(draft(prepared, files, 0.5, 0), examine.EXAMINED, prepared.pixels, inside))
    return np.concatenate(order), Said(*(np.concatenate(each) for each in zip(*answers, strict=True)))


def _fold_numbers(prepared: Prepared, usable: Any, only: Any) -> Any:
    groups = [prepared.groups[index] for index in usable]
    names = [prepared.labels[prepared.truth[index]] for index in usable]
    count = prepared.recipe.folds
    if len(set(groups)) < count:
        raise ConfigError([Problem(0, "folds", f"{count} folds need {count} parts; there are {len(set(groups))}")])
    numbers = parts.folds(groups, names, count, prepared.recipe.seed)
    _check_sides(prepared, {f"fold {k + 1}": np.concatenate([usable[numbers != k], only]) for k in range(count)})
    return numbers


def _check_sides(prepared: Prepared, sides: dict[str, Any]) -> None:
    problems = []
    for name, chosen in sides.items():
        bad = prepared.bad[chosen]
        if not len(chosen) or bad.all() or not bad.any():
            kinds = "good and bad" if not len(chosen) else "bad" if not bad.any() else "good"
            why = f"has no {kinds} pictures: more parts are needed, or other --groups, or another --seed"
            problems.append(Problem(0, name, why))
    if problems:
        without = [prepared.samples[index].path for index in np.flatnonzero(prepared.truth < 0)]
        problems += [Problem(0, "", "is left out: a copy has another label", str(path)) for path in without]
        raise ConfigError(problems)


def learn(
    prepared: Prepared, train: Any, validation: Any, stage: Stage, *, everything: bool = True
) -> tuple[Any, dict[str, bytes]]:
    """One network and its four files, or only the one that is examined."""
    from models.train import exported, loop, networks  # noqa: PLC0415 - torch is heavy, and most only read pictures

    def tell(progress: Progress) -> None:
        live = {"loss": progress.loss} | ({"validation": progress.value} if progress.value is not None else {})
        stage("train", progress.step, progress.steps, live)

    recipe = prepared.recipe
    classes = len(prepared.labels)
    task: Task = loop.Task(
        prepared.pixels, prepared.truth, prepared.good, classes, train, validation, prepared.sides()[1]
    )
    network = loop.train(task, recipe, prepared.kind, tell)
    stage("export", 0, 1, {})
    export = exported.variants if everything else exported.preferred
    shipped = networks.Shipped(network, mirrored=recipe.mirrored, features=recipe.features)
    return network, export(shipped, _calibration(prepared, train))


def _calibration(prepared: Prepared, train: Any) -> Any:
    """Real pictures of both kinds, scaled."""
    random = np.random.default_rng(prepared.recipe.seed)
    bad = prepared.bad[train]
    least, most = _CALIBRATION
    count = min(most, max(least, _CALIBRATION_PIXELS // prepared.pixels.images[0].size))
    chosen = np.concatenate([random.permutation(side)[: count // 2] for side in (train[bad], train[~bad])])
    images = prepared.pixels.images[np.sort(chosen)].astype(np.float32)
    return ((images - prepared.recipe.mean) / prepared.recipe.std).transpose(0, 3, 1, 2).copy()


def _threshold(scores: Any, bad: Any, recipe: Recipe) -> float:
    value = metrics.threshold_for(scores, bad, recipe.false_rejects)
    return min(1.0, max(1e-4, round(value, 5)))


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
    drafted = draft(prepared, files, threshold, samples)
    return Made(drafted, network, result, examine.parity(drafted, prepared.pixels, same_on, threshold), prepared)
