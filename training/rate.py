"""The learning rate over a training: a linear warm-up, then a cosine to zero (METHOD 8). No torch here."""

from __future__ import annotations

import math


def rate_at(step: int, steps: int, warm_up: float = 0.03) -> float:
    """Share of the peak learning rate at a step of a training whose number of steps is known."""
    begin = max(1, int(steps * warm_up))
    if step < begin:
        return (step + 1) / begin
    return _cosine((step - begin) / max(1, steps - begin))


def rate_after(share: float, warm_up: float) -> float:
    """Share of the peak learning rate when `share` (0..1) of a training is done.

    For trainings whose epochs differ in steps: how many a later one has isn't known when an earlier one runs.
    """
    if share < warm_up:
        return share / warm_up
    return _cosine((share - warm_up) / (1 - warm_up))


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
