"""The values that the rendered world knows, and the seeds that its images are drawn from."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import numpy as np

Kind = Literal["cards", "fruit"]

RANKS = (
    "ace", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "jack", "queen", "king",
)  # fmt: skip
SUITS = ("hearts", "diamonds", "clubs", "spades")
SPECIES = ("apple", "banana", "pear", "cherry", "grapes", "strawberry")
COLORS = ("red", "orange", "yellow", "green", "purple")

CRITERIA: dict[str, tuple[str, ...]] = {"suit": SUITS, "rank": RANKS, "species": SPECIES, "color": COLORS}
CRITERIA_OF: dict[Kind, tuple[str, ...]] = {"cards": ("suit", "rank"), "fruit": ("species", "color")}


class Purpose(IntEnum):
    """What an image is for. Images of different purposes never share a seed."""

    EXAMPLES = 1
    VISION = 2
    VISION_HELD_OUT = 3
    LANGUAGE = 4
    EVALUATION = 5


def image_seed(purpose: Purpose, seed: int, index: int) -> int:
    """Seed of image `index` of a stream. The purpose stands in the top bits, so streams of two purposes are
    disjoint."""
    state = np.random.SeedSequence([int(purpose), seed, index]).generate_state(1, np.uint64)
    return (int(purpose) << 58) | (int(state[0]) & ((1 << 58) - 1))
