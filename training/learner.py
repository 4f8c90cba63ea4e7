"""A model that learns: it describes, embeds and answers as it stands, is trained for an epoch, measured and saved."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object
from PIL import Image

from agents.descriptions import read_description
from agents.questions import Question
from serving.llava.about import About
from serving.llava.model import LlavaQwen2
from storage.errors import UsageError
from training.checkpoint import fill_moments, moments_of, read_tensors, write_tensors
from training.lesson import Lesson
from training.loop import Loop, Progress, Report, kind_of, samples_of
from training.losses import Losses
from training.memory import check_memory
from training.pictures import Pictures
from training.recipe import MAY_CHANGE, Recipe
from training.samples import Pair, Unit
from training.saving import complete, save
from training.trainable import read_trainable

T = TypeVar("T")
STATE = Path("training") / "state.safetensors"
"""What a killed training goes on from, in its folder."""
_PATIENCE = timedelta(weeks=4)
"""For so long a process waits for the leading one, which may be waiting for the teacher."""


class Learner:
    """A model in training, on one device or on several (started by `accelerate launch`; every process calls the same).

    Attributes:
        progress: where the training stands.
        notes: whatever its caller wants to find again after a kill; stored with the state. JSON.
        main: whether this process is the one that writes.
        processes: how many share the work.
    """

    def __init__(
        self,
        base: Path,
        recipe: Recipe,
        out: Path,
        image: Callable[[str], Image.Image],
        *,
        name: str = "",
        criteria: Sequence[str] = (),
        one_candidate: bool = True,
    ) -> None:
        """Read the model and, where `out` holds a training that was begun, its state.

        Args:
            base: a folder of any form that `serving.llava.checkpoint` reads.
            image: the picture of a content hash.
            name: of the trained model; "": the folder's.
            criteria: what the model is trained to see.
            one_candidate: whether the assessments it is trained on show one candidate each (METHOD 4).

        Raises:
            UsageError: `base` holds no such model, the memory will not suffice, or `out` holds another training.
        """
        if base.resolve() == out.resolve():
            raise UsageError(f"{out} holds the base model, which training must leave as it is: give another --out")
        self._recipe, self._out = recipe, out
        slow = DistributedDataParallelKwargs(find_unused_parameters=True)  # assessments leave the head alone
        patient = InitProcessGroupKwargs(timeout=_PATIENCE)
        # Several processes without a GPU are several only for an accelerator that was told to be a CPU's.
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[slow, patient])
        device = self._accelerator.device
        self._bfloat16 = _bfloat16(recipe, device)
        check_memory(base, recipe, device, self._bfloat16, self._accelerator.num_processes)
        self._model = read_trainable(base, recipe, self._bfloat16)
        read = self._model.checkpoint
        self.about = About(name or out.resolve().name, tuple(criteria), recipe.threshold, one_candidate)
        self._pictures = Pictures(image, read.process, self._model.built_in, self._model.network.dtype)
        lesson = Lesson(read.vocabulary, recipe.emphasis)
        self._losses = Losses(read, lesson, self._bfloat16)
        augment = recipe.augment and self._model.built_in
        parameters = list(self._model.parameters().values())
        self._loop = Loop(self._accelerator, self._losses, parameters, recipe, self._pictures, augment)
        self.progress = Progress()
        self.notes: dict[str, Any] = {}
        self.main: bool = self._accelerator.is_main_process
        self.processes: int = self._accelerator.num_processes
        self._key = _key(base, recipe)
        self._restore()
        if self.main:
            complete(out)
        self._saved = time.monotonic()

    def describe(self, questions: Sequence[Question], longest: int = 256) -> list[str]:
        """The model's own descriptions, decoded greedily, of at most `longest` tokens; without `<embedding>`."""
        return [read_description(reply) for reply in self.reply(questions, longest)]

    def reply(self, questions: Sequence[Question], longest: int = 512) -> list[str]:
        """The model's replies, decoded greedily, of at most `longest` tokens. Raises MessageError as serving does."""

        def work(asked: Sequence[Question], model: LlavaQwen2) -> list[str]:
            return [made.text for made in model.generate([q.messages(_part) for q in asked], longest)]

        return self._as_served(questions, work)

    def embed(self, questions: Sequence[Question], descriptions: Sequence[str]) -> np.ndarray:
        """H(u) of METHOD 2, (n, width) float32 with unit rows, of items described so."""

        def work(told: Sequence[tuple[Question, str]], model: LlavaQwen2) -> list[np.ndarray]:
            chats = [[*q.messages(_part), {"role": "assistant", "content": text}] for q, text in told]
            return list(model.embed(chats))

        rows = self._as_served(list(zip(questions, descriptions, strict=True)), work)
        return np.stack(rows) if rows else np.zeros((0, self._losses.head.projection.shape[1]), np.float32)

    @property
    def beta(self) -> float:
        """β of METHOD 2 as it stands."""
        return float(self._losses.head.beta.detach())

    def train_epoch(self, units: Sequence[Unit], report: Report = lambda *_: None) -> dict[str, float]:
        """Train on an epoch's units, from where the epoch stands; the mean of every loss: caption, alike, assessment.

        The state is written every `checkpoint_seconds` and at the end. A training that was killed and goes on with the
        same units ends, on a CPU, with the very same weights.

        Raises:
            UsageError: a loss is no number, the memory does not suffice, or the state can't be written.
        """

        def after(done: int, steps: int, measured: Mapping[str, float]) -> None:
            report(done, steps, measured)
            if done < steps and time.monotonic() - self._saved >= self._recipe.checkpoint_seconds:
                self.keep()

        try:
            self._loop.epoch(units, self.progress, lambda: self._model.train(True), after)
        finally:
            self._model.train(False)
        sums = self.progress.sums
        means = {name: total / sums[f"{name} of"] for name, total in sums.items() if sums.get(f"{name} of")}
        self.progress = Progress(self.progress.epoch + 1, 0, self.progress.step, {})
        self.keep()
        return means

    def evaluate(self, units: Sequence[Unit], report: Callable[[int], None] = lambda _: None) -> dict[str, float]:
        """Losses on units that were not trained on, as in `train_epoch`; `report` is told how many are done, of all
        processes together, and may raise."""
        self._model.train(False)

        def work(mine: Sequence[Unit], _: LlavaQwen2) -> list[tuple[float, float]]:
            order = sorted(range(len(mine)), key=lambda i: kind_of(mine[i]))
            found: dict[int, tuple[float, float]] = {}
            for at in range(0, len(order), self._recipe.micro_batch):
                for kind in ("assessment", "caption", "pair"):
                    places = [i for i in order[at : at + self._recipe.micro_batch] if kind_of(mine[i]) == kind]
                    found |= zip(places, self._measure([mine[i] for i in places]), strict=True) if places else ()
                report(min(len(units), len(found) * self._accelerator.num_processes))
            return [found[i] for i in range(len(mine))]

        return _summary(units, self._as_served(units, work))

    def save(self, folder: Path | None = None, tag: str = "") -> None:
        """Write the model as it stands to `folder`, or to the training's own: whole or not at all, beside whatever else
        lies there. Serving and export read it. `tag` is put to its name: other weights have another name, since answers
        are known by it. Raises UsageError where it can't be written."""
        if self.main:
            about = replace(self.about, name=f"{self.about.name}-{tag}") if tag else self.about
            save(self._model, folder or self._out, about)
        self._accelerator.wait_for_everyone()

    def keep(self) -> None:
        """Write the state that a killed training goes on from."""
        if self.main:
            told = {"key": self._key, "progress": json.dumps(asdict(self.progress)), "notes": json.dumps(self.notes)}
            write_tensors(self._out / STATE, {**self._model.tensors(), **moments_of(self._loop.optimizer)}, told)
        self._saved = time.monotonic()

    def close(self) -> None:
        """Part from the other processes, when all are at their end. Nothing is learnt after it.

        A process that exits while threads of its group are still about is aborted now and then (seen with gloo).
        """
        self._accelerator.end_training()
        self._accelerator.free_memory()

    def _restore(self) -> None:
        if (read := read_tensors(self._out / STATE, self._key)) is None:
            return
        tensors, about = read
        self._model.fill(tensors)
        fill_moments(self._loop.optimizer, tensors)
        self.progress = Progress(**json.loads(about["progress"]))
        self.notes = json.loads(about["notes"])

    def _measure(self, units: Sequence[Unit]) -> list[tuple[float, float]]:
        """Cross-entropy, and β cos for pairs, of units of one kind."""
        samples = [sample for unit in units for sample in samples_of(unit)]
        pixels = {item: self._pictures(item) for sample in samples for _, item in sample.question.items}
        paired = isinstance(units[0], Pair)
        words, affinity = self._losses(samples, pixels, paired)
        if paired:
            words = words[::2] + words[1::2]
        return list(zip(words.tolist(), affinity.tolist() if paired else [0.0] * len(units), strict=True))

    def _as_served(self, asked: Sequence[Any], work: Callable[[Sequence[Any], LlavaQwen2], list[T]]) -> list[T]:
        """What `work` makes of each thing asked, in order, with the model as the server runs it; processes share the
        work, and all get all of it."""
        world, rank = self._accelerator.num_processes, self._accelerator.process_index
        device = self._accelerator.device
        self._model.train(False)
        # Made anew each time: it remembers what images look like, and that changes as the tower or projector does.
        model = LlavaQwen2(self._model.checkpoint, device, pixels=self._pictures)
        with torch.inference_mode(), self._products(device):
            mine = work(asked[rank::world], model)
        if world == 1:
            return mine
        told: list[tuple[int, list[T]]] = gather_object([(rank, mine)])
        by_rank = dict(told)
        return [by_rank[i % world][i // world] for i in range(len(asked))]

    def _products(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self._bfloat16)


def _part(item: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": item}}


def _bfloat16(recipe: Recipe, device: torch.device) -> bool:
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bfloat16"


def _key(base: Path, recipe: Recipe) -> str:
    """What a state belongs to: the recipe, and the settings of the model that it began with."""
    about = [
        path.read_text(encoding="utf-8")
        for name in ("config.json", "partita.json", "adapter_config.json")
        if (path := base / name).is_file()
    ]
    told = json.dumps([recipe.model_dump(exclude=set(MAY_CHANGE)), *about], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _summary(units: Sequence[Unit], measured: Sequence[tuple[float, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, kinds in (("caption", ("pair", "caption")), ("assessment", ("assessment",))):
        words = [told[0] for unit, told in zip(units, measured, strict=True) if kind_of(unit) in kinds]
        if words:
            found[name] = float(np.mean(words))
    known = [
        (told[1], unit.same)
        for unit, told in zip(units, measured, strict=True)
        if isinstance(unit, Pair) and unit.same is not None
    ]
    if known:
        affinity, same = np.array([a for a, _ in known]), np.array([s for _, s in known])
        found["alike"] = float(np.mean(np.logaddexp(0, affinity) - same * affinity))  # cross-entropy of the sigmoid
    return found
