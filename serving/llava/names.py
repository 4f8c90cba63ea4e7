"""What weights are called: in transformers' memory, in published folders, and in LLaVA-Qwen2's first publication."""

from __future__ import annotations

Names = tuple[tuple[str, str], ...]
"""Beginnings of names, and what stands for them; the first that fits holds."""

PUBLISHED: Names = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.", ""),
)
"""From memory to the folders that transformers and vLLM read."""

ORIGINAL: Names = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("lm_head.", "lm_head."),
    ("model.", "model.language_model."),
)
"""From the first publication to memory."""


def renamed(name: str, names: Names) -> str:
    """The name with its beginning exchanged."""
    old, new = next((pair for pair in names if name.startswith(pair[0])), ("", ""))
    return new + name.removeprefix(old)
