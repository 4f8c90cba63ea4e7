"""LLaVA-Qwen2 as its authors ship it, before transformers had a class for it: other names, other settings.

Such a folder has `mm_vision_tower` in its config.json and holds the tower's weights beside the language model's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from serving.llava.names import ORIGINAL, renamed
from storage.errors import UsageError

_HEAD_WIDTH = 72
"""Of SigLIP so400m's attention, the one tower that these models are published with."""
_UNREAD = "model.vision_tower.vision_tower.vision_model.head."
"""The tower's pooling head."""


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of this kind."""
    return isinstance(config.get("mm_vision_tower"), str)


def in_memory(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of transformers' LLaVA-OneVision, without what nobody reads."""
    return {renamed(name, ORIGINAL): tensor for name, tensor in weights.items() if not name.startswith(_UNREAD)}


def config_of(original: Mapping[str, Any], weights: Mapping[str, Tensor]) -> LlavaOnevisionConfig:
    """The config that the original's settings and the shapes of its weights (named as `in_memory` does) amount to.

    Raises UsageError for another vision tower, projector or way to cut images than LLaVA-OneVision's.
    """
    tower, projector = str(original["mm_vision_tower"]), original.get("mm_projector_type", "mlp2x_gelu")
    aspect = str(original.get("image_aspect_ratio", "anyres_max_9"))
    if "siglip" not in tower.lower() or projector != "mlp2x_gelu" or not aspect.startswith("anyres"):
        raise UsageError(
            f"this LLaVA has the vision tower {tower[:80]!r}, the projector {projector!r} and cuts images by "
            f"{aspect[:40]!r}: only SigLIP with mlp2x_gelu and anyres (LLaVA-OneVision) can be read; take a folder "
            "that transformers can load"
        )
    own = set(Qwen2Config().to_dict()) - {"architectures", "model_type", "transformers_version"}
    text = Qwen2Config(**{name: value for name, value in original.items() if name in own})
    text.vocab_size = weights["model.language_model.embed_tokens.weight"].shape[0]
    patches = weights["model.vision_tower.embeddings.patch_embedding.weight"]
    side = _side(tower, patches.shape[-1], weights["model.vision_tower.embeddings.position_embedding.weight"].shape[0])
    layers = {name.split(".")[4] for name in weights if name.startswith("model.vision_tower.encoder.layers.")}
    vision = SiglipVisionConfig(
        hidden_size=patches.shape[0],
        intermediate_size=weights["model.vision_tower.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, patches.shape[0] // _HEAD_WIDTH),
        patch_size=patches.shape[-1],
        image_size=side,
        vision_use_head=False,
    )
    grid = original.get("image_grid_pinpoints")
    if not isinstance(grid, list):  # "(1x1),...,(6x6)" in some: so many tiles high and wide
        grid = [[side * high, side * wide] for high in range(1, 7) for wide in range(1, 7)]
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_grid_pinpoints=grid,
        vision_aspect_ratio=aspect if aspect.startswith("anyres_max_") else "anyres_max_9",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings="lm_head.weight" not in weights,
    )


def _side(tower: str, patch: int, places: int) -> int:
    """Side of the tower's square images in pixels: its name ends in it, and it need be no multiple of the patch."""
    found = re.search(r"(\d+)\D*$", tower)
    side = int(found[1]) if found else 0
    if not patch or side // patch != math.isqrt(places):
        raise UsageError(
            f"the vision tower {tower[:80]!r} is not the one of these weights ({places} patches of {patch})"
        )
    return side
