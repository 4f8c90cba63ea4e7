"""One training on several devices: the process that asks the teacher leads, the others do as it does.

Started by `accelerate launch -m partita train …` or `torchrun`; with one process there is nobody to lead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list

from agents.questions import Question
from training.learner import Learner
from training.loop import Progress, Report
from training.samples import Unit


class Crew:
    """The learners of all processes. The leading process calls; whatever is work for all is announced to the others."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._busy = False
        self.notes: dict[str, Any] = learner.notes

    @property
    def leads(self) -> bool:
        """Whether this process is the one that calls."""
        return self._learner.main

    @property
    def progress(self) -> Progress:
        return self._learner.progress

    @property
    def beta(self) -> float:
        return self._learner.beta

    def describe(self, questions: Sequence[Question]) -> list[str]:
        with self._together("describe", questions):
            return self._learner.describe(questions)

    def reply(self, questions: Sequence[Question]) -> list[str]:
        with self._together("reply", questions):
            return self._learner.reply(questions)

    def embed(self, questions: Sequence[Question], descriptions: Sequence[str]) -> np.ndarray:
        with self._together("embed", questions, descriptions):
            return self._learner.embed(questions, descriptions)

    def train_epoch(self, units: Sequence[Unit], report: Report) -> dict[str, float]:
        with self._together("train_epoch", units):
            return self._learner.train_epoch(units, report)

    def evaluate(self, units: Sequence[Unit], report: Callable[[int], None]) -> dict[str, float]:
        with self._together("evaluate", units):
            return self._learner.evaluate(units, report)

    def call(self, name: str) -> None:
        """Give the model that is trained its name, which only the leading process writes."""
        self._learner.about = replace(self._learner.about, name=name)

    def save(self, tag: str) -> None:
        with self._together("save", None, tag):
            self._learner.save(None, tag)

    def keep(self) -> None:
        """Only the leading process writes a state."""
        self._learner.keep()

    def dismiss(self) -> None:
        """Send the others home. Those that are in the middle of work that we have left end with us: their launcher
        sees to it."""
        if not self._busy:
            self._announce("")
            self._learner.close()

    def follow(self) -> None:
        """Do what the leading process announces until it sends us home."""
        while (order := self._heard())[0]:
            name, *given = order
            getattr(self._learner, name)(*given)
        self._learner.close()

    @contextmanager
    def _together(self, *order: object) -> Iterator[None]:
        self._announce(*order)
        self._busy = True
        yield
        self._busy = False

    def _announce(self, *order: object) -> None:
        if self._learner.processes > 1:
            broadcast_object_list([list(order)])

    def _heard(self) -> list[Any]:
        heard: list[Any] = broadcast_object_list([None])[0]
        return heard
