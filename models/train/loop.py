"""The training loops. Deterministic for a seed on one machine: one thread, own random generators.

::

    draw batch ─▶ augment ─▶ network ─▶ loss ─▶ step ─▶ moving average of the weights (what is kept)
                                         every now and then: look at the validation part, tell, stop early
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.train import augment
from models.train.cutouts import Cutouts
from models.train.metrics import auroc
from models.train.networks import STRIDE, Classifier, Locator
from models.train.pixels import Pixels
from models.train.recipe import Recipe

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Indices = npt.NDArray[np.int64]

LOOKS: Final = 12
"""So often the validation part is looked at."""
_FASTEST: Final = 0.995  # of the moving average
_COVERED: Final = 0.12  # share of a cell that a defect must cover
_MINED: Final = 150  # good pictures that are searched for the worst mistakes


class Progress(NamedTuple):
    """``value``: of the validation part (AUROC or accuracy), where it was just looked at."""

    step: int
    steps: int
    loss: float
    value: float | None


Tell = Callable[[Progress], None]


class Task(NamedTuple):
    """What one training works on. ``truth``: class of each picture; ``good``: classes that are.

    ``elsewhere``: pictures that another camera made: where something is in them, means nothing.
    """

    pixels: Pixels
    truth: Indices
    good: frozenset[int]
    classes: int
    train: Indices
    validation: Indices
    elsewhere: Indices


def train(task: Task, recipe: Recipe, kind: str, tell: Tell) -> nn.Module:
    """A network that has learned; ``kind``: ``locate`` or ``classify``."""
    with _one_thread():
        if kind == "locate":
            return _locator(task, recipe, tell)
        return _classifier(task, recipe, tell)


def _locator(task: Task, recipe: Recipe, tell: Tell) -> nn.Module:
    torch.manual_seed(recipe.seed)
    network = Locator(task.pixels.images.shape[3], recipe.width, place=recipe.place)
    return _learn(network, _located(task, recipe, network), task, recipe, tell)


def _classifier(task: Task, recipe: Recipe, tell: Tell) -> nn.Module:
    torch.manual_seed(recipe.seed)
    network = Classifier(task.pixels.images.shape[3], task.classes, recipe.width)
    learned = _learn(network, _classified(task, recipe, network), task, recipe, tell)
    counts = np.bincount(task.truth[task.train], minlength=task.classes).clip(min=1)
    return leaning(learned, counts, recipe.prior)


def leaning(network: Any, counts: Indices, prior: float) -> Any:
    """Rare classes are learned with more weight than they occur with; this takes a part of that back."""
    with torch.no_grad():
        network.head.bias += prior * torch.from_numpy(np.log(counts / counts.sum())).float()
    return network


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def narrow() -> Any:
    """bfloat16 where the processor has it: three times as fast."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(has))


def _learn(network: nn.Module, batches: Iterator[Any], task: Task, recipe: Recipe, tell: Tell) -> nn.Module:
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.steps + 1, pct_start=min(0.15, 0.5)
    )
    every = max(1, recipe.steps // LOOKS)
    best, best_at, kept = -1.0, 0, average
    smooth = 0.0
    for step in range(1, recipe.steps + 1):
        network.train()
        loss = next(batches)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        _follow(average, network, min(_FASTEST, (1 + step) / (10 + step)))
        smooth = float(loss.detach()) if step == 1 else 0.95 * smooth + 0.05 * float(loss.detach())
        value = None
        if step % every == 0 and len(task.validation) and recipe.patience:
            value = look(average, task, recipe)
            if value > best:
                best, best_at, kept = value, step, copy.deepcopy(average)
        tell(Progress(step, recipe.steps, smooth, value))
        if recipe.patience and step - best_at >= recipe.patience * every:
            break
    return kept if recipe.patience else average


def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)


# --- batches: each yields the loss of the next one


def _located(task: Task, recipe: Recipe, network: nn.Module) -> Iterator[Any]:
    cutouts = Cutouts(task.pixels, task.train, task.truth, task.good, recipe.crop, recipe.seed)
    draw = torch.Generator().manual_seed(recipe.seed)
    black = -recipe.mean / recipe.std
    mine = {recipe.steps // 4, recipe.steps // 2, recipe.steps * 3 // 4}
    step = 0
    while True:
        if step in mine:
            cutouts.mine(lambda chosen: heats(network, task.pixels, recipe, chosen), _MINED)
        step += 1
        images, masks, cuts = cutouts.draw(recipe.batch)
        labels = torch.cat([torch.from_numpy(masks).float()[:, None], _places(cuts, masks.shape[1:], task)], 1)
        seen, labels = augment.moved(
            scaled(images, recipe), labels, cutouts.out, draw, zoom=recipe.zoom, turn=recipe.turn, shift=recipe.shift
        )
        seen = augment.unsharp(augment.lit(seen, draw, strength=recipe.light, black=black), draw, 0.2)
        network.train()
        with narrow():
            places = functional.avg_pool2d(labels[:, 1:], STRIDE)
            heat = network(seen.contiguous(memory_format=torch.channels_last), places)
        yield locate_loss(heat.float()[:, 0], labels[:, :1])


def _places(cuts: Array, shape: tuple[int, ...], task: Task) -> Any:
    """Row and column in the whole picture (−1 to 1) of every pixel that was cut, and whether its place counts."""
    height, width = task.pixels.images.shape[1:3]
    rows = (torch.from_numpy(cuts[:, 1, None]) + torch.arange(shape[0]) + 0.5) * 2 / height - 1
    columns = (torch.from_numpy(cuts[:, 2, None]) + torch.arange(shape[1]) + 0.5) * 2 / width - 1
    counts = torch.from_numpy(~np.isin(cuts[:, 0], task.elsewhere))
    full = (len(cuts), *shape)
    parts = (
        rows[:, :, None].expand(full),
        columns[:, None, :].expand(full),
        counts[:, None, None].expand(full).float(),
    )
    return torch.stack(parts, 1).float()


def locate_loss(heat: Any, masks: Any) -> Any:
    """Every cell by itself, hard ones most (focal loss), and the cut-out as a whole by its hottest cell.

    A cell that a defect only touches teaches nothing; the best cell of a small defect is one all the same.
    """
    defect, ignored = (masks == 1).float(), (masks == 2).float()
    covered = functional.avg_pool2d(defect, STRIDE)[:, 0]
    touched = functional.max_pool2d(torch.maximum(defect, ignored), STRIDE)[:, 0] > 0
    truth = (covered > _COVERED).float()
    for index in range(len(truth)):
        if covered[index].any() and not truth[index].any():
            truth[index].view(-1)[int(covered[index].argmax())] = 1
    skipped = touched & (truth == 0)
    each = functional.binary_cross_entropy_with_logits(heat, truth, reduction="none")
    hard = (1 - torch.exp(-each)) ** 1.5 * torch.where(truth > 0, 4.0, 1.0) * ~skipped
    cells = (hard * each).sum() / (2 * truth.sum() + 2 * len(truth))
    hottest = torch.where(skipped, torch.full_like(heat, -20.0), heat).flatten(1).amax(1)
    is_bad = truth.flatten(1).amax(1)
    counts = (is_bad > 0) | ~skipped.flatten(1).any(1)
    whole = functional.binary_cross_entropy_with_logits(hottest, is_bad, reduction="none")
    return cells + 0.3 * (whole * counts).mean()


def _classified(task: Task, recipe: Recipe, network: nn.Module) -> Iterator[Any]:
    draw = torch.Generator().manual_seed(recipe.seed)
    shape = task.pixels.images.shape[1:3]
    black = -recipe.mean / recipe.std
    truth = torch.from_numpy(task.truth[task.train])
    counts = torch.bincount(truth, minlength=task.classes).clamp(min=1).float()
    weights = (counts.sum() / counts) ** recipe.weight
    weights = (weights * counts.sum() / (weights * counts).sum()).clamp(max=4.0)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        if len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(len(truth), generator=draw)])
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        labels = truth[chosen]
        images = scaled(task.pixels.images[task.train[chosen.numpy()]], recipe)
        seen, _ = augment.moved(
            images, None, shape, draw, zoom=recipe.zoom, turn=recipe.turn, shift=recipe.shift
        )  # fmt: skip
        seen = augment.lit(seen, draw, strength=recipe.light, black=black)
        other, share = torch.arange(len(labels)), torch.ones(len(labels))
        if float(torch.rand((), generator=draw)) < recipe.mix:
            seen, other, share = augment.mixed(seen, draw)
        network.train()
        with narrow():
            logits = network(seen.contiguous(memory_format=torch.channels_last))
        yield sum(
            (part * functional.cross_entropy(
                logits.float(), target, weight=weights, label_smoothing=0.05, reduction="none"
            )).mean()
            for part, target in ((share, labels), (1 - share, labels[other]))
        )  # fmt: skip


# --- looking


def scaled(images: Array, recipe: Recipe) -> Any:
    """Pixels, n × h × w × c, as the network wants them: n × c × h × w, real."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return (tensor.float() - recipe.mean) / recipe.std


def heats(network: nn.Module, pixels: Pixels, recipe: Recipe, chosen: Indices) -> Array:
    """What the network says of whole pictures: heat maps, or logits."""
    network.eval()
    said = []
    with torch.no_grad(), narrow():
        for at in range(0, len(chosen), recipe.batch if pixels.images[0].size < 1 << 14 else 1):
            block = chosen[at : at + (recipe.batch if pixels.images[0].size < 1 << 14 else 1)]
            images = scaled(pixels.images[block], recipe).contiguous(memory_format=torch.channels_last)
            said.append(network(images).float().numpy())
    return np.concatenate(said)


def suspicion(said: Array, good: frozenset[int]) -> Array:
    """Heat maps → the hottest cell (a logit); logits of classes → the share of those that are not good."""
    if said.ndim == 4:
        hottest: Array = said.max(axis=(1, 2, 3))
        return hottest
    powers = np.exp(said - said.max(axis=1, keepdims=True))
    bad = [k for k in range(said.shape[1]) if k not in good]
    shares: Array = powers[:, bad].sum(axis=1) / powers.sum(axis=1)
    return shares


def look(network: nn.Module, task: Task, recipe: Recipe) -> float:
    """How good it is on the validation part: AUROC, or accuracy over the classes."""
    said = heats(network, task.pixels, recipe, task.validation)
    truth = task.truth[task.validation]
    if said.ndim == 2:
        return float((said.argmax(axis=1) == truth).mean())
    return auroc(suspicion(said, task.good), ~np.isin(truth, list(task.good)))
