"""Two small networks of our own. Torch is for workstations: nobody but ``models.train`` imports it.

::

    Locator     picture ─▶ trunk (stride 8) ─▶ 1 × 1 ─▶ heat map (logits) ─▶ largest = suspicion of the picture
    Classifier  picture ─▶ residual blocks (stride 4) ─▶ mean ─▶ linear ─▶ one logit per class

Plain 3 × 3 convolutions, batch norm and ReLU: what int8 runtimes are fastest at, and what quantises without loss. Among
classes small differences decide: there ReLU ends at 6, so that the 256 steps of int8 are fine ones.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

SUSPICION: Final = "suspicion"
HEAT: Final = "heat"
FEATURES: Final = "features"
LOGITS: Final = "logits"
_PLACE_GAIN: Final = 120.0  # its coefficients are much larger than weights, and learn at the same rate
_FINE: Final = 3  # layers of a locator's trunk before its last halving
STRIDE: Final = 8
"""Pixels per cell of a heat map, in both directions."""


def _convolution(inside: int, outside: int, stride: int = 1, *, bounded: bool = False) -> nn.Sequential:
    activation = nn.ReLU6() if bounded else nn.ReLU()
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), activation)


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int = 1, dilation: int = 1, *, bounded: bool = False) -> None:
        super().__init__()
        self.activation = functional.relu6 if bounded else functional.relu
        self.one = nn.Conv2d(inside, outside, 3, stride, dilation, dilation, bias=False)
        self.one_norm = nn.BatchNorm2d(outside)
        self.two = nn.Conv2d(outside, outside, 3, 1, dilation, dilation, bias=False)
        self.two_norm = nn.BatchNorm2d(outside)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Any) -> Any:
        y = self.activation(self.one_norm(self.one(x)))
        return self.activation(self.two_norm(self.two(y)) + self.short(x))


class Locator(nn.Module):
    """Logits of suspicion, n × 1 × height/8 × width/8.

    ``place``: under a camera that does not move, defects have their places. How likely each place is, is learned
    as well, as a second-degree polynomial of row and column: six numbers, so that it knows bands and middles, and
    can learn no single spot by heart.
    """

    def __init__(self, channels: int, width: int = 48, *, place: bool = False) -> None:
        super().__init__()
        self.place: Any = nn.Parameter(torch.zeros(6)) if place else None
        half = width // 2
        self.trunk = nn.Sequential(
            _convolution(channels, width // 3, 2),
            _convolution(width // 3, half, 2),
            _Residual(half, half),
            _convolution(half, width, 2),
            _Residual(width, width),
            _Residual(width, width, dilation=2),
        )
        self.head = nn.Conv2d(width, 1, 1)
        nn.init.constant_(self.head.bias, -4.0)  # a defect is rare: begin with that

    def forward(self, x: Any, where: Any = None) -> Any:
        """``where``: n × 3 × rows × columns: row and column of each cell (−1 to 1), and whether that means anything."""
        return self.judged(self.trunk(x), where)

    def judged(self, seen: Any, where: Any = None) -> Any:
        """From what the trunk has seen."""
        heat = self.head(seen)
        if self.place is None:
            return heat
        return heat + self.likely(grid(*seen.shape[2:]) if where is None else where)

    def likely(self, where: Any) -> Any:
        """What the place alone adds to the logit, n × 1 × rows × columns."""
        row, column, counts = where[:, :1], where[:, 1:2], where[:, 2:]
        terms = torch.cat([torch.ones_like(row), row, column, row * row, row * column, column * column], 1)
        return _PLACE_GAIN * counts * (terms * self.place[None, :, None, None]).sum(1, keepdim=True)


def grid(rows: int, columns: int) -> Any:
    """Row and column of each cell of a whole picture, as :meth:`Locator.forward` wants them."""
    row = ((torch.arange(rows) + 0.5) * 2 / rows - 1)[:, None].expand(rows, columns)
    column = ((torch.arange(columns) + 0.5) * 2 / columns - 1)[None, :].expand(rows, columns)
    return torch.stack([row, column, torch.ones(rows, columns)])[None]


class Classifier(nn.Module):
    """Logits, n × classes."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _convolution(channels, width, bounded=True),
            _Residual(width, width, bounded=True),
            _Residual(width, 2 * width, 2, bounded=True),
            _Residual(2 * width, 2 * width, bounded=True),
            _Residual(2 * width, 4 * width, 2, bounded=True),
            _Residual(4 * width, 4 * width, bounded=True),
        )
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Any) -> Any:
        return self.head(self.drop(self.trunk(x).mean((2, 3))))


class Shipped(nn.Module):
    """A network as it is exported: what a locator says of the whole picture, and where; or a classifier.

    ``mirrored``: a classifier looks at the picture both ways round and upside down, too, and says the mean.
    ``features``: a locator gives what it sees in each cell as well, for others to decide on.
    """

    def __init__(self, network: nn.Module, *, mirrored: bool = False, features: bool = False) -> None:
        super().__init__()
        self.network = network
        self.locates = isinstance(network, Locator)
        self.mirrored = mirrored and not self.locates
        self.features = features and self.locates

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs, in their order."""
        if not self.locates:
            return (LOGITS,)
        return (SUSPICION, HEAT, FEATURES) if self.features else (SUSPICION, HEAT)

    def forward(self, x: Any) -> Any:
        if self.mirrored:
            x = torch.cat([x, torch.flip(x, (3,))])
            x = torch.cat([x, torch.flip(x, (2,))])
            return self.network(x).mean(0, keepdim=True)
        if not self.locates:
            return self.network(x)
        fine = self.network.trunk[:_FINE](x)
        coarse = self.network.trunk[_FINE:](fine)
        heat = self.network.judged(coarse)
        said = (torch.amax(heat, dim=(2, 3)), heat)
        return (*said, torch.cat([functional.avg_pool2d(fine, 2), coarse], 1)) if self.features else said


def parameters(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())
