"""What the three stages of partita-mini have in common: their steps, and going on where they were killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from torch import nn

from training.checkpoint import load_checkpoint, save_checkpoint
from training.descent import Descent
from training.mini.config import MiniConfig
from training.rate import rate_at

Report = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a line about the state)."""
_REPORTED = 25
"""Steps between two reports."""


class Averages(dict[str, float]):
    """Running means of what the steps measure; written out, a line for `Report`."""

    def follow(self, name: str, value: float) -> None:
        self[name] = 0.98 * self.get(name, value) + 0.02 * value

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in self.items())


class Stage:
    """A stage in training; what is random in a step of it follows from seed and step alone."""

    def __init__(
        self, config: MiniConfig, name: str, out: Path, modules: dict[str, nn.Module], descent: Descent
    ) -> None:
        """Fill `modules` and the optimiser from the stage's checkpoint in `out`, where there is one.

        Raises:
            CheckpointError: it was made with another configuration, or is damaged.
        """
        self._path, self._key = out / f"{name}.safetensors", config.key(name)
        self._modules, self._descent = modules, descent
        self._steps: int = getattr(config, f"{name}_steps")
        self._seconds = config.checkpoint_seconds
        self.begin = load_checkpoint(self._path, self._key, modules, descent.optimizer)

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.begin >= self._steps

    def run(self, learn: Callable[[int], Averages], report: Report) -> None:
        """Take the steps that are left.

        Args:
            learn: makes the gradient of a step, by its number, and tells the means so far.

        Raises:
            UsageError: the gradient is no number.
        """
        saved = time.monotonic()
        for step in range(self.begin, self._steps):
            self._descent.clear()
            averages = learn(step)
            self._descent.step(rate_at(step, self._steps), step)
            done = step + 1
            if done % _REPORTED == 0 or done == self._steps:
                report(done, self._steps, str(averages))
            if done == self._steps or time.monotonic() - saved > self._seconds:
                save_checkpoint(self._path, done, self._key, self._modules, self._descent.optimizer)
                saved = time.monotonic()
