"""The vision tower: a small convolution network read out by learned queries, registered with transformers.

An image becomes a handful of tokens. Token i belongs to query i, and the first queries are
trained to answer one attribute question each, so that the language model finds "the suit" always at the same place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from serving.llava.lite import COARSE, FINE, EfficientNetLite0


class TowerConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes of the tower."""

    model_type = "partita_tower"

    image_size: int = 96
    """Side of the square input in pixels."""
    trunk: str = "residual"
    """The convolutions: 'residual', of the widths and blocks below, or 'efficientnet-lite0'."""
    widths: list[int] | tuple[int, ...] = (32, 64, 128, 192)
    """Channels after each halving of the resolution; the map ends at image_size / 2**len(widths)."""
    blocks: list[int] | tuple[int, ...] = (0, 1, 1, 1)
    """Residual blocks at each resolution."""
    hidden_size: int = 192
    """Width of a token."""
    heads: int = 4
    """Attention heads of the readout."""
    tokens: int = 6
    """Tokens (queries) an image becomes."""


class _Unit(nn.Sequential):
    """Convolution, batch norm and optionally ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, relu: bool = True) -> None:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if relu else []))


class _Block(nn.Module):
    """A basic residual block of two 3 x 3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_Unit(width, width), _Unit(width, width, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _residual(config: TowerConfig) -> nn.Sequential:
    """The trunk of residual convolutions, halving the resolution before every stage."""
    stages: list[nn.Module] = []
    inputs = 3
    for width, depth in zip(config.widths, config.blocks, strict=True):
        stages.append(_Unit(inputs, width, stride=2))
        stages.extend(_Block(width) for _ in range(depth))
        inputs = width
    return nn.Sequential(*stages)


class Tower(PreTrainedModel):  # type: ignore[no-untyped-call]
    """pixel_values (N, 3, S, S) in -1..1 -> last_hidden_state (N, tokens, hidden_size)."""

    config_class = TowerConfig
    config: TowerConfig
    main_input_name = "pixel_values"
    base_model_prefix = "tower"

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        if config.trunk == "efficientnet-lite0":
            self.trunk: nn.Module = EfficientNetLite0()
            inputs = config.hidden_size
            self.levels = nn.ModuleList(
                nn.Sequential(nn.Linear(width, inputs), nn.LayerNorm(inputs)) for width in (FINE, COARSE)
            )
            places = sum(math.ceil(config.image_size / step) ** 2 for step in (16, 32))
        else:
            self.trunk = _residual(config)
            inputs = config.widths[-1]
            places = math.ceil(config.image_size / 2 ** len(config.widths)) ** 2
        self.position = nn.Parameter(torch.zeros(1, places, inputs))
        self.query = nn.Parameter(torch.zeros(config.heads, config.tokens, config.hidden_size // config.heads))
        self.key = nn.Linear(inputs, config.hidden_size)
        self.value = nn.Linear(inputs, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            for name, buffer in module.named_buffers():
                (init.ones_ if name == "running_var" else init.zeros_)(buffer)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Tower):
            init.normal_(module.position, std=0.1)
            init.normal_(module.query, std=1.0)

    def _places(self, pixels: Tensor) -> Tensor:
        """What the trunk sees at every place of its maps, (N, places, width)."""
        if self.config.trunk == "efficientnet-lite0":
            maps = [m.flatten(2).transpose(1, 2) for m in self.trunk(pixels)]
            return torch.cat([level(m) for level, m in zip(self.levels, maps, strict=True)], 1)
        places: Tensor = self.trunk(pixels).flatten(2).transpose(1, 2)
        return places

    def forward(self, pixel_values: Tensor, return_dict: bool = True, **_: object) -> BaseModelOutput:
        x = self._places(pixel_values.contiguous(memory_format=torch.channels_last))
        n, places, _width = x.shape
        heads = self.config.heads
        keys = self.key(x + self.position).view(n, places, heads, -1).transpose(1, 2)
        values = self.value(x + self.position).view(n, places, heads, -1).transpose(1, 2)
        queries = self.query.unsqueeze(0).expand(n, -1, -1, -1).to(keys.dtype)
        read = F.scaled_dot_product_attention(queries, keys, values)
        tokens = self.norm(self.out(read.transpose(1, 2).reshape(n, self.config.tokens, -1)))
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


AutoConfig.register("partita_tower", TowerConfig, exist_ok=True)
AutoModel.register(TowerConfig, Tower, exist_ok=True)
