"""A model with the parts of it that are trained (METHOD 8): LoRA and what goes beside it, or the whole network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from serving.llava.checkpoint import Checkpoint, read_checkpoint, read_unmerged
from serving.llava.lite import EfficientNetLite0
from serving.llava.network import Network
from serving.llava.tower import TowerConfig
from storage.errors import UsageError
from training.recipe import Recipe

LINEAR = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
"""What LoRA goes on: the language model's linear layers, never the vision tower's or the projector's."""
WHOLE = ("lm_head", "embed_tokens", "multi_modal_projector")
"""Trained in full beside LoRA; the embedding head is, too."""


@dataclass(frozen=True)
class Trainable:
    """A model in training."""

    checkpoint: Checkpoint
    """The network has LoRA's layers inside, where there are any."""
    adapter: Any = None
    """peft's model around the network; None where the whole network is trained."""
    base: Path | None = None
    """The folder that LoRA is over."""
    still: tuple[nn.Module, ...] = ()
    """Parts of the vision tower that stay as they are although the rest is trained."""

    @property
    def network(self) -> Network:
        return self.checkpoint.network

    @property
    def built_in(self) -> bool:
        """Whether it has partita-mini's tower."""
        return isinstance(self.network.config.vision_config, TowerConfig)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, all of it float32, in an order that does not change."""
        return {name: p for name, p in self._named() if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """What training changes: the parameters, and the statistics of batch norm where the tower is trained."""
        found: dict[str, Tensor] = {name: p.data for name, p in self.parameters().items()}
        if self.adapter is None:
            kept = self.network.state_dict().keys()
            found |= {f"network/{name}": b for name, b in self.network.named_buffers() if name in kept}
        return found

    def fill(self, tensors: dict[str, Tensor]) -> None:
        """Give it the values that `tensors` told."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def train(self, on: bool) -> None:
        """Dropout and batch norm as in training, or as in serving; a frozen tower is as in serving always."""
        self.network.train(on)
        self.checkpoint.head.train(on)
        if self.adapter is not None:
            self.network.model.vision_tower.train(False)
        for part in self.still:
            part.train(False)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.network.named_parameters():
            yield f"network/{name}", parameter
        for name, parameter in self.checkpoint.head.named_parameters():
            yield f"head/{name}", parameter


def read_trainable(base: Path, recipe: Recipe, bfloat16: bool) -> Trainable:
    """The model in a folder of any form that `serving.llava.checkpoint` reads, ready to be trained as `recipe` says.

    What is new in it (LoRA, a head, rows of token embeddings) depends on the recipe's seed only. A LoRA checkpoint is
    trained further when the recipe has its rank and alpha.

    Args:
        bfloat16: what is frozen is kept in that, not in float32.

    Raises:
        UsageError: the folder holds no such model, or LoRA of another size.
    """
    frozen = torch.bfloat16 if bfloat16 and recipe.rank else torch.float32
    torch.manual_seed(recipe.seed)
    if recipe.rank and (base / "adapter_config.json").is_file():
        made = _continued(base, recipe, frozen)
    else:
        read = read_checkpoint(base, dtype=frozen, seed=recipe.seed)
        made = _under_lora(read, base, recipe) if recipe.rank else Trainable(read, still=_first(read, recipe.still))
    if made.adapter is None:
        made.network.requires_grad_(True)
        for part in made.still:
            part.requires_grad_(False)
    made.checkpoint.head.requires_grad_(True)
    for parameter in made.parameters().values():
        parameter.data = parameter.data.float()
    module: Any
    for module in made.network.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False  # autocast does it, and keeps no copy in float32
    if recipe.gradient_checkpointing:
        _compute_twice(made)
    if made.built_in:
        tower: Any = made.network.model.vision_tower
        tower.to(memory_format=torch.channels_last)
    return made


def _first(read: Checkpoint, blocks: int) -> tuple[nn.Module, ...]:
    """The first blocks of a published trunk, which see edges and spots whatever the collection."""
    trunk = getattr(read.network.model.vision_tower, "trunk", None)
    return tuple(trunk.first(blocks)) if isinstance(trunk, EfficientNetLite0) and blocks else ()


def _under_lora(read: Checkpoint, base: Path, recipe: Recipe) -> Trainable:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=recipe.rank, lora_alpha=_whole(recipe.alpha), lora_dropout=recipe.dropout, bias="none",
        target_modules=LINEAR, modules_to_save=list(WHOLE),
    )  # fmt: skip
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tied token embeddings come apart here, and readers expect them to
        adapter: Any = get_peft_model(read.network, settings)
    return Trainable(read, adapter, base)


def _continued(base: Path, recipe: Recipe, frozen: torch.dtype) -> Trainable:
    read = read_unmerged(base, dropout=recipe.dropout, dtype=frozen)
    settings = read.adapter.peft_config["default"]
    if (settings.r, settings.lora_alpha) != (recipe.rank, recipe.alpha) or set(settings.modules_to_save or ()) != set(
        WHOLE
    ):
        raise UsageError(
            f"{base} holds LoRA of rank {settings.r} and alpha {settings.lora_alpha:g}, and the recipe says "
            f"{recipe.rank} and {recipe.alpha:g}: change the recipe, or `partita serve export {base} MERGED` and "
            "train MERGED"
        )
    return Trainable(read.checkpoint, read.adapter, read.base)


def _whole(alpha: float) -> Any:
    """Alpha as peft writes it down: an integer where it is one."""
    return int(alpha) if alpha == int(alpha) else alpha


def _compute_twice(made: Trainable) -> None:
    parts: list[Any] = [made.network.model.language_model]
    if made.adapter is None:
        parts.append(made.network.model.vision_tower)
    for part in parts:
        if part.supports_gradient_checkpointing:
            # The newer name; the older one warns from transformers 5.24 on.
            new = getattr(part, "activation_checkpointing_enable", None)
            (new or part.gradient_checkpointing_enable)({"use_reentrant": False})
