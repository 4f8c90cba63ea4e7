"""How a training is done: every constant of METHOD 8, as YAML that a user may change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.errors import UsageError

What = Literal["embedder", "agent", "both"]


class Recipe(BaseModel):
    """One training. The defaults are the published ones, for a LLaVA over Qwen2-7B."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the order of samples, dropout, the nodes drawn, the held-out items."""
    epochs: int = Field(default=50, ge=1)
    pairs: int = Field(default=1024, ge=2)
    """Pairs of items that an epoch of the embedder trains on: those whose similarity has the highest entropy."""
    random_pairs: int = Field(default=0, ge=0)
    """Pairs drawn at random beside those. A likeness that is surely wrong is never in doubt, and what pushes the
    doubtful apart pushes others together: without these a small model that can embed unlearns it."""
    captions: int = Field(default=0, ge=0)
    """Items, drawn at random, whose captions an epoch of the embedder trains on beside those of the pairs. The pairs
    most in doubt are of few and odd items: a model that has to learn to see wants the others, too."""
    nodes: int = Field(default=1024, ge=2)
    """Items whose graph the teacher traverses in an epoch of the agent."""
    pool: int = Field(default=4096, ge=2)
    """Most items that are described and embedded anew in an epoch, drawn anew each time."""
    representatives: int = Field(default=3, ge=1, le=16)
    """K of METHOD 4."""
    noisy: float = Field(default=0.15, ge=0, le=1)
    """Share of assessments that are asked once more with a representative from another cluster."""
    refused: float = Field(default=0.33, ge=0, lt=1)
    """Share of assessments that should conclude NO; where a good graph gives fewer, strangers are put to clusters."""
    merges: int = Field(default=256, ge=0)
    """Most questions about two clusters in an epoch."""
    rehearsals: int = Field(default=64, ge=0)
    """Questions about two clusters in an epoch, at least: where few clusters leave few, halves of one and parts of two
    are compared."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the items that are never trained on; every epoch is measured on them."""
    held_out_pairs: int = Field(default=256, ge=2)
    """Pairs of held-out items that every epoch is measured on."""
    patience: int = Field(default=6, ge=1)
    """Epochs without a better one after which training stops; what is kept is the latest that is as good as any."""

    batch: int = Field(default=32, ge=1)
    """Pairs, or assessments, in one step of the optimiser, over all devices."""
    micro_batch: int = Field(default=1, ge=1)
    """Of these, how many a device takes at once; the rest is accumulated."""
    rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate of AdamW; a cosine falls to zero over all epochs."""
    warm_up: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps over which the rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    emphasis: float = Field(default=1.0, gt=0)
    """Weight of the words of a conclusion beside those of the reasoning."""

    rank: int = Field(default=64, ge=0)
    """Of LoRA; 0 trains the whole network, the vision tower too."""
    still: int = Field(default=3, ge=0)
    """Blocks of partita-mini's vision tower, the first ones, that stay as they are: half of the time is saved."""
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products; auto is bfloat16 on a GPU that has it, float32 elsewhere. What is trained is kept in float32."""
    gradient_checkpointing: bool = True
    """Compute activations twice instead of keeping them."""
    augment: bool = False
    """Move, scale, turn and relight the images of training a little; never mirrored."""
    threshold: float = Field(default=0.6, gt=0, lt=1)
    """τ of METHOD 3 that the trained embedder comes with."""
    checkpoint_seconds: float = Field(default=300, ge=0)
    """Between two checkpoints; one is written after every epoch in any case."""


MAY_CHANGE = frozenset({"micro_batch", "gradient_checkpointing", "checkpoint_seconds", "patience"})
"""Settings that may change between two runs of one training: they say how it is computed, or when it stops."""

FEWEST = 4
MOST = 256
"""Items held out at least, and at most: they are looked at after every epoch."""

SMALL: Mapping[str, Any] = {
    "epochs": 12, "pairs": 256, "random_pairs": 512, "captions": 2048, "nodes": 256, "merges": 64, "rehearsals": 192,
    "pool": 512, "patience": 8, "micro_batch": 32, "rate": 3e-4, "weight_decay": 0.02, "emphasis": 4.0, "rank": 0,
    "gradient_checkpointing": False, "augment": True, "checkpoint_seconds": 60,
}  # fmt: skip
"""What differs for partita-mini, which is small enough to be trained whole on a CPU."""


def held_out_of(items: int, recipe: Recipe) -> int:
    """How many of so many items are held out."""
    return min(items // 2, MOST, max(FEWEST, round(items * recipe.held_out)))


def read_recipe(
    path: Path | None, small: bool, changes: Mapping[str, Any] | None = None, beside: Collection[str] = ()
) -> Recipe:
    """The recipe of a training: the defaults for the size of its base, a YAML file over them, `changes` over both.

    Args:
        beside: what the file may hold that is no matter of the recipe.

    Raises:
        UsageError: the file is missing or no YAML, or holds something that is no setting.
    """
    told: dict[str, Any] = dict(SMALL) if small else {}
    if path is not None:
        told |= {name: value for name, value in read_settings(path).items() if name not in beside}
    told |= changes or {}
    try:
        return Recipe.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        known = ", ".join([*beside, *Recipe.model_fields])
        why = f"is no setting; there are {known}" if first["type"] == "extra_forbidden" else first["msg"]
        raise UsageError(f"{path or 'the training settings'}: {name}: {why}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """What a YAML file says, by name.

    Raises:
        UsageError: it is missing, or no YAML, or no mapping.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; `partita train --show-config` prints one to begin with") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        why = f"line {mark.line + 1}: {problem}" if mark and problem else " ".join(str(error).split())[:200]
        raise UsageError(f"{path} can't be read as YAML ({why}); compare with `partita train --show-config`") from None
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise UsageError(f"{path} is not a mapping of settings; compare with `partita train --show-config`")
    return told
