"""Whether the memory will suffice for a training, told from config.json before anything large is read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)
from transformers.image_processing_utils import select_best_resolution

from serving.llava import published
from serving.llava.checkpoint import EMBEDDING_WIDTH
from serving.llava.tower import TowerConfig
from storage.errors import UsageError
from training.loop import AT_ONCE
from training.recipe import Recipe
from training.trainable import LINEAR, WHOLE

SIDE = 768
"""Pixels of the longer side of an image, as sessions send it."""
_TEXT, _REPLY = 400, 160
"""Tokens of a question's words with its reply, and of the reply."""


@dataclass(frozen=True)
class Need:
    """Bytes that a device needs to train a model."""

    frozen: int
    """Weights that stay as they are."""
    trained: int
    """Weights that are trained, their gradients and AdamW's two moments, float32 each."""
    activations: int
    """What is kept between the forward and the backward pass of one micro batch."""

    @property
    def total(self) -> int:
        return self.frozen + self.trained + self.activations


def needed(config: LlavaConfig | LlavaOnevisionConfig, recipe: Recipe, bfloat16: bool, processes: int = 1) -> Need:
    """An estimate, good to a fifth or so, for the longest questions: two clusters with K representatives each.

    Args:
        bfloat16: what products are computed in, and what is frozen is kept in.
        processes: over which gradients are exchanged.
    """
    kind: Any = (
        LlavaOnevisionForConditionalGeneration
        if isinstance(config, LlavaOnevisionConfig)
        else LlavaForConditionalGeneration
    )
    with torch.device("meta"):
        network: nn.Module = kind(config)
    every = sum(p.numel() for p in network.parameters())
    head = int(config.get_text_config().hidden_size) * (EMBEDDING_WIDTH + 1)
    if recipe.rank:
        frozen, trained = every * (2 if bfloat16 else 4), head + sum(_trained(network, recipe.rank))
    else:
        frozen, trained = 0, head + every
    # AdamW: weight, gradient, two moments; processes have a copy of the gradients to exchange them, and products in
    # bfloat16 a copy of the weights.
    each = 16 + 4 * (processes > 1) + 2 * bfloat16
    return Need(frozen, trained * each, _activations(config, recipe, bfloat16))


def check_memory(base: Path, recipe: Recipe, device: torch.device, bfloat16: bool, processes: int = 1) -> None:
    """Raise UsageError when training `base` needs more memory than the device has free; it says what to change."""
    config, free = config_of(base), free_memory(device)
    if config is None or free is None:
        return
    need = needed(config, recipe, bfloat16, processes)
    if device.type == "cpu":
        free //= processes
    if need.total <= free:
        return
    gb = [f"{n / 1e9:,.1f} GB" for n in (need.total, free, need.frozen + need.trained, need.activations)]
    raise UsageError(
        f"training {base} takes about {gb[0]} of memory ({gb[2]} for weights, gradients and moments, {gb[3]} for the "
        f"activations of a micro batch of {recipe.micro_batch}) and {device} has {gb[1]} free: "
        + _way_out(config, recipe, bfloat16, processes, free)
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that a device has free; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        told = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        return None
    return int(told[1]) * 1024 if told else None


def config_of(base: Path) -> LlavaConfig | LlavaOnevisionConfig | None:
    """The settings of a model, of the one below where it is a LoRA checkpoint; None where they can't be read: reading
    the model says why."""
    try:
        if (base / "adapter_config.json").is_file():
            base = base / json.loads((base / "partita.json").read_text(encoding="utf-8"))["base"]
        told = json.loads((base / "config.json").read_text(encoding="utf-8"))
        if published.is_original(told):
            return published.config_of(told, published.in_memory(_shapes(base)))
        kind: Any = {"llava": LlavaConfig, "llava_onevision": LlavaOnevisionConfig}[told["model_type"]]
        made: LlavaConfig | LlavaOnevisionConfig = kind.from_pretrained(str(base))
        return made
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return None


def _shapes(folder: Path) -> dict[str, Tensor]:
    """Weights without their values."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                found[name] = torch.empty(file.get_slice(name).get_shape(), device="meta")
    return found


def _trained(network: nn.Module, rank: int) -> list[int]:
    """Numbers of parameters that are trained beside the head: LoRA's, and those of what is trained in full."""
    found: list[int] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and re.fullmatch(LINEAR, name):
            found.append(rank * (module.in_features + module.out_features))
        elif name.rpartition(".")[2] in WHOLE:
            found.append(sum(p.numel() for p in module.parameters()))
    return found


def _activations(config: LlavaConfig | LlavaOnevisionConfig, recipe: Recipe, bfloat16: bool) -> int:
    text: Any = config.get_text_config()
    width, inner, layers = int(text.hidden_size), int(text.intermediate_size), int(text.num_hidden_layers)
    images, tiles = 2 * recipe.representatives, _tiles(config)
    of_image = _image_tokens(config)
    # A micro batch of pairs has two rows an image each; one of assessments has long rows.
    longest = max(1, min(recipe.micro_batch, AT_ONCE // images))
    rows, shown = max(((2 * recipe.micro_batch, 1), (longest, images)), key=lambda c: c[0] * (_TEXT + c[1] * of_image))
    tokens, one = rows * (_TEXT + shown * of_image), 2 if bfloat16 else 4
    # Of a token in a layer: the inputs of its products, two norms in float32, queries, keys, values, the inner layer
    # four times; LoRA keeps every input once more, behind dropout.
    layer = tokens * (width * (8 * one + 16) + inner * 4 * one)
    if recipe.rank:
        layer += tokens * (6 * width + inner) * (one + 1)
    kept = layers * tokens * width * one + 2 * layer if recipe.gradient_checkpointing else layers * layer
    logits = rows * _REPLY * int(text.vocab_size) * (one + 12)
    return int(kept + logits) + _tower(config, recipe, rows * shown * tiles, one)


def _tower(config: Any, recipe: Recipe, tiles: int, one: int) -> int:
    vision = config.vision_config
    if isinstance(vision, TowerConfig):
        return int(tiles * vision.image_size**2 * 256)  # maps of every layer, in bytes for a pixel: measured
    places, width = (vision.image_size // vision.patch_size) ** 2, int(vision.hidden_size)
    layer = tiles * places * (width * (8 * one + 16) + int(vision.intermediate_size) * 2 * one)
    if recipe.rank:
        return int(layer)  # frozen: nothing is kept
    layers = int(vision.num_hidden_layers)
    kept = layers * tiles * places * width * one
    return int(kept + 2 * layer if recipe.gradient_checkpointing else layers * layer)


def _tiles(config: Any) -> int:
    """Tiles that a square image is cut into, the whole among them."""
    if not isinstance(config, LlavaOnevisionConfig):
        return 1
    vision: Any = config.vision_config
    side = int(vision.image_size)
    high, wide = select_best_resolution((SIDE, SIDE), config.image_grid_pinpoints or [[side, side]])
    return 1 + int(high // side) * int(wide // side)


def _image_tokens(config: Any) -> int:
    vision = config.vision_config
    if isinstance(vision, TowerConfig):
        return int(vision.tokens)
    return int(_tiles(config) * (vision.image_size // vision.patch_size) ** 2)


def _way_out(config: Any, recipe: Recipe, bfloat16: bool, processes: int, free: int) -> str:
    def fits(**changes: Any) -> bool:
        return needed(config, recipe.model_copy(update=changes), bfloat16, processes).total <= free

    sizes = [size for size in (64, 32, 16, 8, 4, 2, 1) if size < recipe.micro_batch]
    for change, words in (({}, ""), ({"gradient_checkpointing": True}, "`gradient_checkpointing: true` and ")):
        for size in (recipe.micro_batch, *sizes):
            if fits(micro_batch=size, **change):
                return f"set {words}`micro_batch: {size}`"
    if not recipe.rank and fits(micro_batch=1, gradient_checkpointing=True, rank=64):
        return "set `rank: 64`, so that LoRA is trained and not the whole network, and `micro_batch: 1`"
    return (
        "`micro_batch: 1` and a lower `rank` won't do; take a smaller base model or a device with more memory (several "
        "GPUs share the batch, not the model)"
    )
