"""Every number that the training of partita-mini depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class MiniConfig:
    """One run. Two runs with equal configurations and the same machine make the same model."""

    seed: int = 0
    """Seed of every stream: renders, conversations, initial weights."""
    threads: int = 2
    """Threads that torch computes with."""

    image_size: int = 128
    """Side of the tower's input in pixels."""
    tower_trunk: str = "efficientnet-lite0"
    """The tower's convolutions: 'efficientnet-lite0', from published weights, or 'residual', from nothing."""
    tower_widths: tuple[int, ...] = (32, 64, 128, 192)
    """Channels of a residual trunk after each halving."""
    tower_blocks: tuple[int, ...] = (0, 1, 1, 1)
    """Residual blocks of a residual trunk at each resolution."""
    tower_width: int = 192
    """Width of an image token."""
    image_tokens: int = 6
    """Tokens an image becomes."""

    vision_steps: int = 1_200
    """Optimiser steps of the vision stage."""
    vision_batch: int = 64
    """Images in one step."""
    vision_rate: float = 1.5e-3
    """Peak learning rate, reached after a short warm-up and followed by a cosine to zero."""
    vision_frozen: int = 3
    """First blocks of a published trunk that keep their weights; they see edges and blots, and cost the most."""
    vision_trunk_rate: float = 0.5
    """Learning rate of the rest of a published trunk, as a share of that of the readout."""
    vision_smoothing: float = 0.05
    """Label smoothing: some wild cards cannot be read."""
    vision_reuse: float = 3.0
    """How often a render is seen on average."""
    shard: int = 2048
    """Images rendered at a time."""
    window: int = 6
    """Shards that a step draws from; the window slides over the stream."""
    held_out: int = 2000
    """Images on which a stage is measured; they belong to another stream than any training image."""
    vision_gate: float = 0.93
    """Accuracy that every attribute must reach before the next stage starts."""

    text_width: int = 192
    """Width of the language model."""
    text_layers: int = 4
    """Layers of the language model."""
    text_heads: int = 6
    """Attention heads of the language model."""
    text_inner: int = 512
    """Width of its feed-forward layers."""
    vocabulary: int = 1024
    """Most entries the tokenizer may have."""
    language_images: int = 40_000
    """Renders whose tower features the language stage draws from; none was seen by the tower in training."""
    language_steps: int = 1_000
    """Optimiser steps of the language stage."""
    language_batch: int = 48
    """Conversations in one step."""
    drill_batch: int = 96
    """Replies without question and images in one step, on which only what follows from their own words is trained."""
    language_rate: float = 1.2e-3
    """Peak learning rate."""
    caption_share: float = 0.3
    """Share of describe questions among the conversations; half of the others are membership, the rest merge."""
    noisy_share: float = 0.2
    """Share of questions in which one of three representatives is of another class."""
    paraphrase_share: float = 0.3
    """Share of conversations whose instruction is reworded or cut."""
    value_weight: float = 4.0
    """Weight of value words and conclusions in the loss."""
    verdict_weight: float = 12.0
    """Weight of `agree` and `differ`: the one word of a reply that is a comparison."""
    language_gate: float = 0.90
    """Accuracy that captions and verdicts must reach before the next stage starts."""

    embedding_width: int = 64
    """Width of H(u), METHOD 2."""
    head_items: int = 1_200
    """Descriptions of each criterion that the head learns from."""
    head_steps: int = 2_500
    """Optimiser steps of the embedding head."""
    head_batch: int = 256
    """Items in one step; every pair of one criterion in it is a sample."""
    head_rate: float = 3e-3
    """Peak learning rate of the head."""
    threshold: float = 0.6
    """tau of METHOD 3."""
    head_gate: float = 0.90
    """Share of same-value pairs joined, and of different-value pairs kept apart, that the graph must reach."""

    evaluation: int = 500
    """Renders, and questions of each kind and criterion together, in the evaluation."""
    evaluation_seed: int = 2026
    """Seed of the evaluation's stream."""
    checkpoint_seconds: float = 60.0
    """Time between two checkpoints."""

    def key(self, stage: str) -> str:
        """Hash of what a stage's weights and data depend on, its length and gate aside; a checkpoint of another key
        is refused."""
        after = {"vision": 1, "language": 2, "head": 3}[stage]
        prefixes = tuple(prefix for group in _DEPENDS[:after] for prefix in group)
        free = {f"{name}_{what}" for name in ("vision", "language", "head") for what in ("steps", "gate")}
        told = {k: v for k, v in asdict(self).items() if k.startswith(prefixes) and k not in free}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


_DEPENDS = (
    ("seed", "image_", "tower_", "shard", "window", "vision_"),
    ("text_", "vocabulary", "language_", "caption_", "noisy_", "paraphrase_", "value_", "verdict_", "drill_"),
    ("embedding_", "head_"),
)
"""Beginnings of the fields that each stage adds to what its checkpoint depends on."""

TINY = MiniConfig(
    threads=1, image_size=32,
    tower_trunk="residual", tower_widths=(8, 8, 16, 16), tower_blocks=(0, 0, 0, 0), tower_width=16,
    vision_steps=6, vision_batch=8, shard=32, window=2, held_out=16, vision_gate=0.0,
    text_width=64, text_layers=1, text_heads=2, text_inner=64, language_images=48, language_steps=6,
    language_batch=4, drill_batch=4,
    language_gate=0.0, embedding_width=16, head_steps=4, head_batch=16, head_gate=0.0, evaluation=8,
    checkpoint_seconds=0.0,
)  # fmt: skip
"""Runs every stage in seconds and learns nothing: for tests."""
