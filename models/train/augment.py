"""What may happen to a part in front of a camera, and what may not.

It may lie the other way round, a little turned, moved, nearer or farther; the light may be brighter, darker,
warmer, the lens less sharp, the sensor noisy. Nothing here invents or hides a defect.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def moved(
    images: Any, masks: Any, out: tuple[int, int], draw: Any, *, zoom: float, turn: float, shift: float
) -> tuple[Any, Any]:
    """Turned, mirrored, scaled and moved at random; ``out``: height and width of what is cut out.

    ``images``: n × c × h × w, ``masks``: n × m × h × w (they go the same way), or None. ``zoom``, ``shift``: shares,
    ``turn``: radians. ``draw``: torch.Generator.
    """
    count, _, height, width = images.shape

    def uniform(limit: float) -> Any:
        return (torch.rand(count, generator=draw) * 2 - 1) * limit

    flips = torch.randint(0, 2, (2, count), generator=draw) * 2.0 - 1.0
    scale, angle = torch.exp(uniform(zoom)), uniform(turn)
    across, along = out[1] / width, out[0] / height
    grid = torch.zeros(count, 2, 3)
    grid[:, 0, 0] = across * scale * torch.cos(angle) * flips[0]
    grid[:, 0, 1] = -along * scale * torch.sin(angle) * (height / width)
    grid[:, 1, 0] = across * scale * torch.sin(angle) * (width / height)
    grid[:, 1, 1] = along * scale * torch.cos(angle) * flips[1]
    grid[:, 0, 2] = uniform(shift)
    grid[:, 1, 2] = uniform(shift)
    where = functional.affine_grid(grid, [count, 1, *out], align_corners=False)
    seen = functional.grid_sample(images, where, padding_mode="reflection", align_corners=False)
    if masks is None:
        return seen, None
    return seen, functional.grid_sample(masks, where, mode="nearest", padding_mode="reflection", align_corners=False)


def lit(images: Any, draw: Any, *, strength: float, black: float) -> Any:
    """Under another light. ``images``: scaled, ``black``: what a black pixel is in them; ``strength``: 0 to 1."""
    count, channels = images.shape[:2]

    def uniform(*shape: int) -> Any:
        return torch.rand(count, *shape, 1, 1, generator=draw) * 2 - 1

    gain = 1 + uniform(1) * 0.25 * strength
    tint = 1 + uniform(channels) * 0.08 * strength
    offset = uniform(1) * 0.2 * strength
    noise = torch.rand(count, 1, 1, 1, generator=draw) * 0.06 * strength
    grain = torch.randn(images.shape, generator=draw)
    return (images - black) * gain * tint + black + offset + grain * noise


def unsharp(images: Any, draw: Any, share: float) -> Any:
    """A share of the pictures slightly out of focus (3 × 3 binomial)."""
    chosen = torch.nonzero(torch.rand(len(images), generator=draw) < share)[:, 0]
    if not len(chosen):
        return images
    wide = functional.pad(images[chosen], (1, 1, 1, 1), mode="replicate")
    high = (wide[..., :-2] + wide[..., 2:] + 2 * wide[..., 1:-1]) / 4
    soft = (high[..., :-2, :] + high[..., 2:, :] + 2 * high[..., 1:-1, :]) / 4
    return images.index_copy(0, chosen, soft)


def mixed(images: Any, draw: Any) -> tuple[Any, Any, Any]:
    """Two pictures as one, or a window of another in each, so that a classifier is less sure of what it has not seen.

    Returns the pictures, who was mixed in, and the share (n) of the first.
    """
    count, _, height, width = images.shape
    other = torch.randperm(count, generator=draw)
    if torch.rand((), generator=draw) < 0.5:
        share = float(torch.rand((), generator=draw)) ** 2 * 0.5
        return images * (1 - share) + images[other] * share, other, torch.full((count,), 1 - share)
    high = int(torch.randint(height // 8, height * 3 // 4, (), generator=draw))
    wide = int(torch.randint(width // 8, width * 3 // 4, (), generator=draw))
    top = int(torch.randint(0, height - high + 1, (), generator=draw))
    left = int(torch.randint(0, width - wide + 1, (), generator=draw))
    images = images.clone()
    images[:, :, top : top + high, left : left + wide] = images[other][:, :, top : top + high, left : left + wide]
    return images, other, torch.full((count,), 1 - high * wide / (height * width))
