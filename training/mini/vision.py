"""Stage 1: the vision tower learns to name attributes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from serving.llava.images import to_pixels
from serving.llava.lite import EfficientNetLite0
from serving.llava.network import to_tensor
from serving.llava.tower import Tower, TowerConfig
from training.checkpoint import load_checkpoint
from training.descent import Descent, groups_of
from training.mini.augment import augmented
from training.mini.config import MiniConfig
from training.mini.pretrained import efficientnet_lite0
from training.mini.shards import ATTRIBUTES, Shard, ShardStream, views
from training.mini.stage import Averages, Report, Stage
from training.world import RANKS, SUITS, Purpose


class AttributeHeads(nn.Module):
    """One linear classifier on each of the first tokens; they exist in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in ATTRIBUTES.values())

    def forward(self, tokens: Tensor) -> list[Tensor]:
        return [head(tokens[:, i]) for i, head in enumerate(self.heads)]


def new_tower(config: MiniConfig) -> Tower:
    """An untrained tower of the configured size; a published trunk's weights are taken over by `train_vision`."""
    torch.manual_seed(config.seed)
    tower = Tower(
        TowerConfig(
            image_size=config.image_size, trunk=config.tower_trunk, widths=config.tower_widths,
            blocks=config.tower_blocks, hidden_size=config.tower_width, tokens=config.image_tokens,
        )
    )  # fmt: skip
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    return tower


def train_vision(config: MiniConfig, out: Path, report: Report) -> Tower:
    """Train the tower, or go on from its checkpoint in `out`. Raises PretrainedMissing when a published trunk is
    asked for whose package is not installed."""
    tower, heads = new_tower(config), AttributeHeads(config.tower_width)
    path = out / "vision.safetensors"
    published = isinstance(tower.trunk, EfficientNetLite0)
    if isinstance(tower.trunk, EfficientNetLite0) and not path.exists():
        tower.trunk.take_over(efficientnet_lite0())
    frozen = _frozen(tower, config)
    modules: dict[str, nn.Module] = {"tower": tower, "heads": heads}
    groups = _groups(tower, heads, config.vision_trunk_rate if published else 1.0)
    stage = Stage(config, "vision", out, modules, Descent(groups, config.vision_rate, betas=(0.9, 0.98), clip=5.0))
    if stage.done:
        return tower
    per_shard = max(1, int(config.shard * config.vision_reuse / config.vision_batch))
    averages = Averages()
    with ShardStream(out / "shards", Purpose.VISION, config.seed, config.shard, config.image_size) as stream:
        window: list[Shard] = []
        first = -1

        def learn(step: int) -> Averages:
            nonlocal window, first
            if first != step // per_shard:
                stream.drop(first - 1)
                first = step // per_shard
                window = window[1:] if window else [stream.get(first + k) for k in range(config.window - 1)]
                window.append(stream.get(first + config.window - 1))
            images, attributes = _draw(window, config, step)
            tower.train()
            for part in frozen:
                part.train(False)
            # On CPUs, convolutions of single channels are slower in bfloat16.
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not published):
                answers = heads(tower(images).last_hidden_state)
            loss = torch.stack(
                [
                    F.cross_entropy(a.float(), attributes[:, i], label_smoothing=config.vision_smoothing)
                    for i, a in enumerate(answers)
                ]
            ).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            averages.follow("loss", loss.item())
            return averages

        stage.run(learn, report)
    return tower


def _frozen(tower: Tower, config: MiniConfig) -> list[nn.Module]:
    """The parts of a published trunk that are not trained; their parameters ask for no gradient."""
    parts = tower.trunk.first(config.vision_frozen) if isinstance(tower.trunk, EfficientNetLite0) else []
    for part in parts:
        part.requires_grad_(False)
    return parts


def _groups(tower: Tower, heads: AttributeHeads, share: float) -> list[dict[str, Any]]:
    """What is trained, by decay and by rate: the trunk at `share` of the rate, norms and biases without decay."""
    trunk = list(tower.trunk.parameters())
    known = {id(p) for p in trunk}
    rest = [p for p in (*tower.parameters(), *heads.parameters()) if id(p) not in known]
    return groups_of((p for p in trunk if p.requires_grad), 0.03, share) + groups_of(rest, 0.03)


def measure_vision(config: MiniConfig, out: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy of every attribute on held-out images, from the checkpoint in `out`: (clean renders, wild cards)."""
    tower, heads = _finished(config, out)
    told: list[dict[str, float]] = []
    for wild in (0.0, 1.0):
        images, truth = views(Purpose.VISION_HELD_OUT, config.seed, 0, config.held_out, config.image_size, wild)
        told.append(_accuracy(_answers(tower, heads, images), truth))
    clean, rough = told
    return clean, {name: rough[name] for name in ("rank", "suit") if name in rough}


def measure_photos(config: MiniConfig, out: Path, folder: Path) -> dict[str, float]:
    """Accuracy and NMI of rank and suit on photographs with a `labels.csv` (`file,order,suits`); none is trained on."""
    from sklearn.metrics import normalized_mutual_info_score

    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images = np.stack([_pixels(folder / row["file"], config.image_size) for row in rows])
    told = _answers(*_finished(config, out), images)
    measured: dict[str, float] = {}
    for place, (name, column, values) in enumerate((("rank", "order", RANKS), ("suit", "suits", SUITS))):
        truth = np.array([1 + values.index(row[column]) for row in rows])
        measured[name] = float((told[:, place] == truth).mean())
        measured[f"{name} NMI"] = float(normalized_mutual_info_score(truth, told[:, place]))
    return measured


def _pixels(path: Path, size: int) -> np.ndarray:
    with Image.open(path) as image:
        return to_pixels(image, size)


def _finished(config: MiniConfig, out: Path) -> tuple[Tower, AttributeHeads]:
    tower, heads = new_tower(config), AttributeHeads(config.tower_width)
    load_checkpoint(out / "vision.safetensors", config.key("vision"), {"tower": tower, "heads": heads})
    return tower, heads


@torch.inference_mode()
def _answers(tower: Tower, heads: AttributeHeads, images: np.ndarray) -> np.ndarray:
    """The value that every head gives for every image, (n, 5)."""
    tower.train(False)
    told = [
        torch.stack([a.argmax(1) for a in heads(tower(to_tensor(images[at : at + 100])).last_hidden_state)], 1)
        for at in range(0, len(images), 100)
    ]
    return torch.cat(told).numpy()


def _accuracy(told: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Share of right answers; an attribute is judged where it applies: the rank of a fruit is no achievement."""
    return {
        name: float((told == truth)[truth[:, i] > 0, i].mean())
        for i, name in enumerate(ATTRIBUTES)
        if (truth[:, i] > 0).any()
    }


def _draw(window: list[Shard], config: MiniConfig, step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step, which depends on seed and step alone."""
    rng = np.random.default_rng([config.seed, int(Purpose.VISION), step])
    shards = rng.integers(len(window), size=config.vision_batch)
    places = rng.integers(config.shard, size=config.vision_batch)
    images = np.stack([window[s][0][p] for s, p in zip(shards, places, strict=True)])
    attributes = torch.from_numpy(np.stack([window[s][1][p] for s, p in zip(shards, places, strict=True)]))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    # The colour of a fruit is a label; that of a card says nothing.
    recolor = attributes[:, list(ATTRIBUTES).index("color")] == 0
    return augmented(to_tensor(images), recolor, generator), attributes
