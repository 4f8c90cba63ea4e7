"""One epoch of AdamW over units, on one device or several (METHOD 8)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from serving.llava.sight import Pixels
from storage.errors import UsageError
from training.descent import REMEDY, Descent, groups_of
from training.losses import Losses
from training.pictures import augmented
from training.rate import rate_after
from training.recipe import Recipe
from training.samples import Pair, Sample, Unit

AT_ONCE = 64
"""Images that a device sees in one pass: where the tower is trained, they are what takes the memory."""
Report = Callable[[int, int, Mapping[str, float]], None]
"""Called after every step with (steps done in the epoch, steps of the epoch, what the step measured)."""
_STEEPEST = math.log(100) - 1e-5
"""Of logit_scale: β is at most 100 (METHOD 2), and where it is cut off nothing would lead it back."""


@dataclass
class Progress:
    """Where a training stands."""

    epoch: int = 0
    """Epochs done."""
    done: int = 0
    """Steps done in the epoch after those."""
    step: int = 0
    """Steps done in all."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of this epoch's losses, and how many units each is of."""


def kind_of(unit: Unit) -> str:
    """`pair`, `caption` or `assessment`: a batch is of one kind."""
    return "pair" if isinstance(unit, Pair) else unit.kind


def samples_of(unit: Unit) -> tuple[Sample, ...]:
    """Both captions of a pair, or the one sample."""
    return (unit.first, unit.second) if isinstance(unit, Pair) else (unit,)


def batches(units: Sequence[Unit], size: int, seed: int, epoch: int) -> list[list[Unit]]:
    """An epoch's batches of at most `size` units of one kind, the kinds spread evenly over the epoch.

    The order follows from seed and epoch. Batches of a kind are of like size, so that none weighs one unit as much as
    another weighs thirty-two.
    """
    rng = np.random.default_rng([seed, epoch])
    placed: list[tuple[float, str, list[Unit]]] = []
    for kind in ("pair", "caption", "assessment"):
        own = [unit for unit in units if kind_of(unit) == kind]
        if own:
            parts = np.array_split(rng.permutation(len(own)), -(-len(own) // size))
            placed += [
                ((i + 0.5) / len(parts), kind, [own[int(place)] for place in part]) for i, part in enumerate(parts)
            ]
    return [batch for _, _, batch in sorted(placed, key=lambda told: told[:2])]


def pieces_of(units: Sequence[Unit], size: int) -> list[list[Unit]]:
    """Micro batches: at most `size` units that show at most AT_ONCE images, or one that shows more."""
    pieces: list[list[Unit]] = []
    seen = 0
    for unit in units:
        shown = sum(len(sample.question.items) for sample in samples_of(unit))
        if not pieces or len(pieces[-1]) == size or seen + shown > AT_ONCE:
            pieces.append([])
            seen = 0
        pieces[-1].append(unit)
        seen += shown
    return pieces


class Loop:
    """Steps of the optimiser. What is random in a step follows from seed, step and process alone."""

    def __init__(
        self,
        accelerator: Accelerator,
        losses: Losses,
        trained: Sequence[nn.Parameter],
        recipe: Recipe,
        pixels: Callable[[str], Pixels],
        augment: bool,
    ) -> None:
        self._accelerator, self._recipe, self._pixels, self._augment = accelerator, recipe, pixels, augment
        self._module: Any = accelerator.prepare(losses)
        self._scale = losses.head.logit_scale
        self._descent = Descent(groups_of(trained, recipe.weight_decay), recipe.rate, clip=recipe.clip)
        self.optimizer = self._descent.optimizer

    def epoch(self, units: Sequence[Unit], progress: Progress, train: Callable[[], None], after: Report) -> None:
        """The steps of the epoch that `progress` stands in which are not done yet.

        Args:
            train: puts the model into training; `after`, called when a step is done, may have left it otherwise.

        Raises:
            UsageError: a loss is no number, or the device's memory does not suffice.
        """
        planned = batches(units, self._recipe.batch, self._recipe.seed, progress.epoch)
        for batch in planned[progress.done :]:
            begun = time.monotonic()
            share = (progress.epoch + (progress.done + 0.5) / len(planned)) / self._recipe.epochs
            train()
            measured = self._measure(batch, progress.step)
            rate = self._descent.step(rate_after(share, self._recipe.warm_up), progress.step)
            with torch.no_grad():
                self._scale.clamp_(max=_STEEPEST)
            for name, (total, count) in measured.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + total
                progress.sums[f"{name} of"] = progress.sums.get(f"{name} of", 0.0) + count
            progress.done += 1
            progress.step += 1
            told = {name: total / count for name, (total, count) in measured.items() if count}
            after(progress.done, len(planned), {**told, "rate": rate, "seconds": time.monotonic() - begun})

    def _measure(self, batch: Sequence[Unit], step: int) -> dict[str, tuple[float, float]]:
        """The gradient of a batch; by loss its sum over the batch and the number of units that it is of."""
        world, rank = self._accelerator.num_processes, self._accelerator.process_index
        seed = int(np.random.SeedSequence([self._recipe.seed, step, rank]).generate_state(1)[0])
        torch.manual_seed(seed)
        drawn = torch.Generator().manual_seed(seed)
        # Units of like length stand together, so that little is padding, and every process has some of each.
        mine = sorted(batch, key=_length)[rank::world]
        # A process without a unit takes part all the same: the others wait for its gradient.
        pieces = pieces_of(mine, self._recipe.micro_batch)
        labelled = sum(isinstance(unit, Pair) and unit.same is not None for unit in batch)
        self._descent.clear()
        sums = torch.zeros(2)
        for number, piece in enumerate(pieces or [list(batch[:1])], 1):
            last = number >= len(pieces)
            with contextlib.nullcontext() if last else self._accelerator.no_sync(self._module):
                sums += self._learn(piece, world * bool(pieces), len(batch), labelled, drawn)
        told: Tensor = self._accelerator.reduce(sums.to(self._accelerator.device))
        words, alike = told.tolist()
        if not (math.isfinite(words) and math.isfinite(alike)):
            raise UsageError(f"the loss of step {step + 1} is no number: {REMEDY}")
        kind = kind_of(batch[0])
        found = {"assessment" if kind == "assessment" else "caption": (words, float(len(batch)))}
        return found | ({"alike": (alike, float(labelled))} if kind == "pair" else {})

    def _learn(self, piece: Sequence[Unit], times: int, units: int, labelled: int, drawn: torch.Generator) -> Tensor:
        """Forward and backward pass of some units; the sums of both losses, (2,). Gradients of processes are averaged,
        hence `times`."""
        samples = [sample for unit in piece for sample in samples_of(unit)]
        paired = isinstance(piece[0], Pair)
        try:
            words, affinity = self._module(samples, self._look(samples, drawn), paired)
            written = words.sum()
            same = [unit.same for unit in piece if isinstance(unit, Pair)]
            # Pairs without a label weigh nothing, yet stay: processes must agree on what has a gradient.
            truth, known = (affinity.new_tensor([float(f(one)) for one in same]) for f in (bool, _is_known))
            alike = F.binary_cross_entropy_with_logits(affinity, truth, known, reduction="sum")
            loss = times * (written / units + alike / max(1, labelled))
            self._accelerator.backward(loss)
        except torch.OutOfMemoryError:
            raise UsageError(
                f"the device's memory does not suffice for {len(piece)} units at once: lower `micro_batch`, or set "
                "`gradient_checkpointing: true`; the same command then goes on from the last checkpoint"
            ) from None
        return bool(times) * torch.stack([written.detach(), alike.detach()]).float().cpu()

    def _look(self, samples: Sequence[Sample], drawn: torch.Generator) -> dict[str, Pixels]:
        names = list(dict.fromkeys(item for sample in samples for _, item in sample.question.items))
        images = [self._pixels(name) for name in names]
        return dict(zip(names, augmented(images, drawn) if self._augment else images, strict=True))


def _is_known(same: bool | None) -> bool:
    return same is not None


def _length(unit: Unit) -> tuple[int, int]:
    shown = samples_of(unit)
    return sum(len(s.question.items) for s in shown), sum(len(s.reply) for s in shown)
