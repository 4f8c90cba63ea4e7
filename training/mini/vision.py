"""Stage 1: the vision tower learns to name attributes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serving.llava.network import to_tensor
from serving.llava.tower import Tower, TowerConfig
from training.checkpoint import load_checkpoint, save_checkpoint
from training.mini.config import MiniConfig
from training.mini.shards import ATTRIBUTES, Shard, ShardStream, views
from training.rate import rate_at
from training.world import Purpose

Report = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a line about the state)."""


class AttributeHeads(nn.Module):
    """One linear classifier on each of the first tokens; they exist in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in ATTRIBUTES.values())

    def forward(self, tokens: Tensor) -> list[Tensor]:
        return [head(tokens[:, i]) for i, head in enumerate(self.heads)]


def new_tower(config: MiniConfig) -> Tower:
    """An untrained tower of the configured size."""
    torch.manual_seed(config.seed)
    tower = Tower(
        TowerConfig(
            image_size=config.image_size, widths=config.tower_widths, blocks=config.tower_blocks,
            hidden_size=config.tower_width, tokens=config.image_tokens,
        )
    )  # fmt: skip
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    return tower


def train_vision(config: MiniConfig, out: Path, report: Report) -> Tower:
    """Train the tower, or go on from its checkpoint in `out`."""
    tower, heads = new_tower(config), AttributeHeads(config.tower_width)
    modules: dict[str, nn.Module] = {"tower": tower, "heads": heads}
    weights = [p for m in modules.values() for p in m.parameters() if p.ndim > 1]
    others = [p for m in modules.values() for p in m.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.vision_rate, betas=(0.9, 0.98), fused=True)
    path = out / "vision.safetensors"
    start = load_checkpoint(path, config.key("vision"), modules, optimizer)
    if start >= config.vision_steps:
        return tower
    per_shard = max(1, int(config.shard * config.vision_reuse / config.vision_batch))
    saved, average = time.monotonic(), 0.0
    with ShardStream(out / "shards", Purpose.VISION, config.seed, config.shard, config.image_size) as stream:
        window: list[Shard] = []
        first = -1
        for step in range(start, config.vision_steps):
            if first != step // per_shard:
                stream.drop(first - 1)
                first = step // per_shard
                window = window[1:] if window else [stream.get(first + k) for k in range(config.window - 1)]
                window.append(stream.get(first + config.window - 1))
            images, attributes = _draw(window, config, step)
            for group in optimizer.param_groups:
                group["lr"] = config.vision_rate * rate_at(step, config.vision_steps)
            tower.train()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                answers = heads(tower(images).last_hidden_state)
            loss = torch.stack([F.cross_entropy(a.float(), attributes[:, i]) for i, a in enumerate(answers)]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([*weights, *others], 5.0)
            optimizer.step()
            average = loss.item() if step == start else 0.98 * average + 0.02 * loss.item()
            done = step + 1
            if done % 50 == 0 or done == config.vision_steps:
                report(done, config.vision_steps, f"loss {average:.3f}")
            if done == config.vision_steps or time.monotonic() - saved > config.checkpoint_seconds:
                save_checkpoint(path, done, config.key("vision"), modules, optimizer)
                saved = time.monotonic()
    return tower


def measure_vision(config: MiniConfig, out: Path) -> dict[str, float]:
    """Accuracy of every attribute on held-out images, from the checkpoint in `out`."""
    tower, heads = new_tower(config), AttributeHeads(config.tower_width)
    load_checkpoint(out / "vision.safetensors", config.key("vision"), {"tower": tower, "heads": heads})
    images, attributes = views(Purpose.VISION_HELD_OUT, config.seed, 0, config.held_out, config.image_size)
    tower.train(False)
    right: list[Tensor] = []
    with torch.inference_mode():
        for at in range(0, len(images), 100):
            answers = heads(tower(to_tensor(images[at : at + 100])).last_hidden_state)
            truth = torch.from_numpy(attributes[at : at + 100])
            right.append(torch.stack([a.argmax(1) == truth[:, i] for i, a in enumerate(answers)], 1))
    hits = torch.cat(right).numpy()
    # An attribute is judged where it applies: the rank of a fruit is no achievement.
    return {
        name: float(hits[attributes[:, i] > 0, i].mean())
        for i, name in enumerate(ATTRIBUTES)
        if (attributes[:, i] > 0).any()
    }


def _draw(window: list[Shard], config: MiniConfig, step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step, which depends on seed and step alone: images moved by a few pixels, with changed
    contrast."""
    rng = np.random.default_rng([config.seed, int(Purpose.VISION), step])
    shards = rng.integers(len(window), size=config.vision_batch)
    places = rng.integers(config.shard, size=config.vision_batch)
    images = np.stack(
        [np.roll(window[s][0][p], rng.integers(-2, 3, 2), (0, 1)) for s, p in zip(shards, places, strict=True)]
    )
    attributes = np.stack([window[s][1][p] for s, p in zip(shards, places, strict=True)])
    pixels = to_tensor(images)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (config.vision_batch, 1, 1, 1)).astype(np.float32))
    return pixels * gain, torch.from_numpy(attributes)
