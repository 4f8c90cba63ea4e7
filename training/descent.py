"""A step of AdamW, as every training here takes it: partita-mini's stages and `partita train` alike (METHOD 8)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from storage.errors import UsageError

REMEDY = "train with a lower rate in another --out, or look at the labels"
"""What to do about a loss or a gradient that is no number."""


def groups_of(
    parameters: Iterable[nn.Parameter], weight_decay: float = 0.0, share: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for `Descent`: matrices decay, norms, biases and scales don't; all learn at `share` of its rate."""
    every = list(parameters)
    halves = ([p for p in every if p.ndim > 1], weight_decay), ([p for p in every if p.ndim <= 1], 0.0)
    return [{"params": half, "weight_decay": decay, "share": share} for half, decay in halves if half]


class Descent:
    """AdamW at a rate that its caller says step by step, with a bound on the gradient's norm."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        rate: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        clip: float = math.inf,
        fused: bool = True,
    ) -> None:
        """`rate` is the peak of the learning rate, `clip` the largest norm of the gradient of all parameters.

        `fused` steps are faster where there is much to step, and round otherwise: a training stays with one kind.
        """
        self._rate, self._clip = rate, clip
        self._parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(list(groups), lr=rate, betas=betas, fused=fused)

    def clear(self) -> None:
        """Forget the gradient, before the next is summed up."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, share: float, number: int) -> float:
        """Follow the gradient as it stands; the rate that was taken.

        Args:
            share: of the peak rate.
            number: of the step, from 0, for the message.

        Raises:
            UsageError: the gradient is no number; the weights are as they were.
        """
        rate = self._rate * share
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip)
        if not math.isfinite(float(norm)):
            raise UsageError(f"the gradient of step {number + 1} is no number: {REMEDY}")
        self.optimizer.step()
        return rate
