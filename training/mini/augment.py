"""One render seen in several ways: moved, stretched, turned, lit otherwise, a batch at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augmented(pixels: Tensor, recolor: Tensor, generator: torch.Generator) -> Tensor:
    """The batch (N, 3, S, S) in -1..1, every image changed by chance; what is drawn follows from the generator.

    `recolor` (N, bool) names the images whose colours carry no label: their channels shift, and a few are inverted.
    """
    n = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    def chance(share: float) -> Tensor:
        return torch.rand(n, generator=generator) < share

    pixels = _moved(pixels, uniform(-1, 1, 8), chance(0.08))
    sign = torch.where(chance(0.07) & recolor, -1.0, 1.0).view(n, 1, 1, 1)
    tint = uniform(-0.1, 0.1, 3, 1, 1) * torch.where(recolor, 1.0, 0.2).view(n, 1, 1, 1)
    lift = uniform(-0.15, 0.15, 1, 1, 1) + tint
    pixels = torch.addcmul(sign * lift, pixels, sign * uniform(0.75, 1.25, 1, 1, 1))
    soft = chance(0.12).nonzero().flatten()
    if len(soft):
        pixels[soft] = F.avg_pool2d(F.pad(pixels[soft], (1, 1, 1, 1), "replicate"), 3, 1)
    noisy = chance(0.3).nonzero().flatten()
    noise = torch.randn((len(noisy), 1, *pixels.shape[2:]), generator=generator)
    pixels[noisy] += noise * uniform(0, 0.1, 1, 1, 1)[noisy]
    return pixels


def _moved(pixels: Tensor, draws: Tensor, upside_down: Tensor) -> Tensor:
    """A small affine change: turn, stretch in either direction, shear, shift; some stand on their head."""
    angle = draws[:, 0] * math.radians(8) + math.pi * upside_down
    wide, high = torch.exp(draws[:, 1] * 0.15), torch.exp(draws[:, 2] * 0.15)
    shear = draws[:, 3] * 0.06
    rows = torch.stack(
        [
            torch.stack([angle.cos() * wide, (shear - angle.sin()) * high, draws[:, 4] * 0.08], 1),
            torch.stack([angle.sin() * wide, angle.cos() * high, draws[:, 5] * 0.08], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
