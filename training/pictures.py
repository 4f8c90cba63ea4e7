"""The images of a training as pixels, kept as long as there is room; and small changes of them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from serving.llava.sight import Pixels, Processor

ROOM = 2**30
"""Bytes of pixels that are kept."""


class Pictures:
    """From content hashes to pixels, as serving would make them of the same image."""

    def __init__(
        self, image: Callable[[str], Image.Image], process: Processor, whole: bool, dtype: torch.dtype
    ) -> None:
        """
        Args:
            image: gives the picture of a content hash.
            whole: the processor gives one tile in -1..1 that was 8 bits a channel, and can be kept as that.
            dtype: what the tower takes; kept pixels need be no better.
        """
        self._image, self._process, self._whole, self._dtype = image, process, whole, dtype
        self._kept: OrderedDict[str, Pixels] = OrderedDict()
        self._bytes = 0

    def __call__(self, name: str) -> Pixels:
        """The pixels of an image; (tiles, 3, S, S)."""
        if (kept := self._kept.get(name)) is None:
            made = self._process(self._image(name))
            kept = Pixels(_bytes(made.values) if self._whole else made.values.to(self._dtype), made.size)
            self._kept[name] = kept
            self._bytes += kept.values.nbytes
            while self._bytes > ROOM and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].values.nbytes
        else:
            self._kept.move_to_end(name)
        if not self._whole:
            return kept
        return Pixels(kept.values.float().div_(127.5).sub_(1.0), kept.size)  # as `to_tensor` makes them


def _bytes(values: Tensor) -> Tensor:
    return values.add(1.0).mul_(127.5).round_().to(torch.uint8)


def augmented(images: Sequence[Pixels], drawn: torch.Generator) -> list[Pixels]:
    """Images of one tile and size moved, scaled, stretched, turned by up to 8 degrees and relit, each in its own way.

    Never mirrored: a mirrored digit is none.
    """
    values = torch.cat([image.values for image in images])
    n = len(values)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=drawn)

    turn, scale = between(-8, 8) * math.pi / 180, torch.exp(between(-0.16, 0.16))
    stretch = torch.exp(between(-0.1, 0.1))
    across, down = scale * stretch, scale / stretch
    # What stands here maps places of the new image to places of the old one, both -1..1.
    moves = torch.stack(
        [
            torch.stack([across * turn.cos(), -down * turn.sin(), between(-0.12, 0.12)], 1),
            torch.stack([across * turn.sin(), down * turn.cos(), between(-0.12, 0.12)], 1),
        ],
        1,
    )
    grid = F.affine_grid(moves, list(values.shape), align_corners=False)
    moved = F.grid_sample(values, grid, padding_mode="border", align_corners=False)
    contrast, light = between(0.75, 1.25).view(n, 1, 1, 1), between(-0.15, 0.15).view(n, 1, 1, 1)
    lit = (moved * contrast + light).clamp_(-1.0, 1.0)
    return [Pixels(one[None], image.size) for one, image in zip(lit, images, strict=True)]
