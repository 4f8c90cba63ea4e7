"""A training from its first epoch to its last: what to learn next, learning it, and what it was good for (METHOD 8).

Everything that a killed run needs to go on stands in `OUT/training`: the units of the epoch that is under way, what is
measured on, the learner's state. The teacher's answers are in its ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agents import questions
from agents.questions import Question
from graphs.progress import Progress
from storage.artefacts import write_file
from storage.errors import UsageError
from training.crew import Crew
from training.curves import Curves, append
from training.exam import Rows, assessments, best_of, chance_of, first_of, near_and_far, told_apart, verdicts
from training.mining import hardest, random_pairs
from training.recipe import Recipe, What, held_out_of
from training.samples import Pair, Sample, Unit, from_json, to_json
from training.teacher import Teacher
from training.traversal import traverse

_AT_ONCE = 64
"""Questions put to the model between two looks at whether to stop."""

T = TypeVar("T")


@dataclass(slots=True)
class Watcher:
    """Whom a course tells how far it is."""

    progress: Progress = field(default_factory=Progress)
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None
    """Called after every epoch: its number from 1, what was measured, whether it is the best so far, and whether it is
    better than the base, whose number is 0."""
    check: Callable[[], None] = lambda: None
    """Raises when the training is to stop."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a training."""

    epochs: int
    """Epochs done."""
    best: int
    """The epoch whose model is kept, from 1."""
    measured: Mapping[str, float]
    """Of that epoch, on held-out items."""
    before: Mapping[str, float]
    """Of the base, on the same."""
    gained: bool
    """Whether that epoch was better than the base, by more than chance."""


class Course:
    """One training."""

    def __init__(
        self, what: What, recipe: Recipe, crew: Crew, teacher: Teacher, items: Sequence[str], folder: Path,
        watcher: Watcher,
    ) -> None:  # fmt: skip
        """
        Args:
            items: content hashes of what there is to learn from, all of the teacher's session, none twice.
            folder: `OUT/training`.
        """
        self._what, self._recipe, self._crew, self._teacher = what, recipe, crew, teacher
        self._folder, self._watch = folder, watcher
        self._held_out = self._set_aside(items)
        # One thread for all that the model does: each that did some would keep the memory that it once needed.
        self._worker = ThreadPoolExecutor(1)
        self._items = sorted(set(items) - set(self._held_out))
        self._measured: list[dict[str, float]] = self._crew.notes.setdefault("measured", [])
        self._before: dict[str, float] = {}
        self._chance = 0.0

    async def run(self) -> Outcome:
        """Train until the last epoch, or until there was no better one for a while.

        Raises:
            Paused: the budget is used up or the run was told to stop; the same command goes on.
        """
        with self._worker:
            return await self._run()

    async def _run(self) -> Outcome:
        exam = await self._exam()
        self._chance = chance_of(exam)
        epochs = len(self._measured) if self._is_compared else -1
        with Curves(self._folder, self._crew.progress.step, epochs) as curves:
            self._before = await self._compared(exam, curves)
            while True:
                if self._crew.progress.epoch > len(self._measured):
                    self._watch.progress.part = f"epoch {self._crew.progress.epoch}"
                    await self._measure(exam, curves)
                if self._crew.progress.epoch >= self._recipe.epochs or self._is_past_its_best():
                    break
                self._watch.progress.part = f"epoch {self._crew.progress.epoch + 1}"
                await self._learn(await self._units(self._crew.progress.epoch), curves)
        best = self._best
        return Outcome(len(self._measured), best + 1, self._measured[best], self._before, self._gained(best))

    @property
    def _best(self) -> int:
        """The epoch, from 0, that is kept: the best on held-out items."""
        return best_of(self._measured, self._chance)

    def _gained(self, epoch: int) -> bool:
        """Whether an epoch is better than the base, by more than chance."""
        return first_of([self._before, self._measured[epoch]], self._chance) == 1

    def _is_past_its_best(self) -> bool:
        if not self._measured:
            return False
        return len(self._measured) - 1 - first_of(self._measured, self._chance) >= self._recipe.patience

    def _set_aside(self, items: Sequence[str]) -> list[str]:
        """The held-out items: drawn once, so that none is ever learnt from, however the collection grows."""
        path = self._folder / "held_out_items.json"
        if (kept := _kept(path, _hashes)) is not None:
            return kept
        drawn = [str(name) for name in self._rng(1).permutation(sorted(items))[: held_out_of(len(items), self._recipe)]]
        write_file(path, json.dumps(drawn).encode())
        return drawn

    async def _exam(self) -> list[Unit]:
        """What every epoch is measured on: chosen once."""
        path = self._folder / "held_out.json"
        if (kept := _kept(path, from_json)) is not None:
            return kept
        rng, units = self._rng(2), list[Unit]()
        vectors = await self._embedded(self._held_out)
        if self._what != "agent":
            pairs = near_and_far(vectors, self._recipe.held_out_pairs, rng)
            units += await self._captioned(pairs, self._held_out)
        if self._what != "embedder":
            units += await self._traversed(self._held_out, vectors, rng, None)
        if not units:
            raise UsageError(
                f"the teacher said nothing of the {len(self._held_out)} held-out items that an epoch could be measured "
                "on: raise `held_out`, or give more items"
            )
        write_file(path, to_json(units).encode())
        return units

    async def _units(self, epoch: int) -> list[Unit]:
        """What an epoch trains on: as it was begun, or chosen by the model as it stands."""
        path = self._folder / "epoch.json"
        if (kept := _kept(path, partial(_units_of, epoch))) is not None:
            return kept
        recipe, rng, units = self._recipe, self._rng(3, epoch), list[Unit]()
        most = {"embedder": recipe.pool, "agent": recipe.nodes, "both": max(recipe.pool, recipe.nodes)}[self._what]
        pool = [str(name) for name in rng.permutation(self._items)[:most]]
        vectors = await self._embedded(pool)
        if self._what != "agent":
            mined = await self._apart(hardest, vectors[: recipe.pool], self._crew.beta, recipe.pairs)
            drawn = random_pairs(min(len(pool), recipe.pool), recipe.random_pairs, rng)
            units += await self._captioned([*mined, *(pair for pair in drawn if pair not in set(mined))], pool)
            seen = [str(name) for name in rng.permutation(self._items)[: recipe.captions]]
            units += self._taught(await self._teacher.captions(seen)).values()
        if self._what == "both":
            few = mined[:: max(1, -(-len(mined) // recipe.nodes))]
            units += self._teacher.judged((pool[a], pool[b]) for a, b in few).values()
        if self._what != "embedder":
            known = {unit.question for unit in units if isinstance(unit, Sample)}
            walked = await self._traversed(pool[: recipe.nodes], vectors[: recipe.nodes], rng, epoch)
            units += [sample for sample in walked if sample.question not in known]
        write_file(path, json.dumps({"epoch": epoch, "units": to_json(units)}).encode())
        return units

    async def _embedded(self, hashes: Sequence[str]) -> Rows:
        """H(u) (n, d) by the model as it stands, of its own descriptions."""
        asked = [questions.describe(self._teacher.prompts, name) for name in hashes]
        return np.stack(
            await self._looked("look", asked, lambda part: list(self._crew.embed(part, self._crew.describe(part))))
        )

    async def _looked(
        self, stage: str, asked: Sequence[Question], work: Callable[[Sequence[Question]], list[T]]
    ) -> list[T]:
        """What the model makes of questions, a few at a time: so it can be stopped, and few images are in memory."""

        def parts() -> list[T]:
            found: list[T] = []
            for at in range(0, len(asked), _AT_ONCE):
                self._watch.check()
                found += work(asked[at : at + _AT_ONCE])
                self._watch.progress.done = len(found)
            return found

        with self._own(stage, len(asked)):
            return await self._apart(parts)

    async def _captioned(self, pairs: Sequence[tuple[int, int]], hashes: Sequence[str]) -> list[Unit]:
        """Pairs with the teacher's captions and labels; those that it could not caption are left out."""
        named = [(hashes[a], hashes[b]) for a, b in pairs]
        said = await self._teacher.captions(name for pair in named for name in pair)
        named = [pair for pair in named if pair[0] in said and pair[1] in said]
        same = await self._teacher.same(named)
        taught = self._taught(said)
        return [Pair(taught[a], taught[b], same.get((a, b))) for a, b in named]

    def _taught(self, said: Mapping[str, str]) -> dict[str, Sample]:
        return {name: Sample(questions.describe(self._teacher.prompts, name), text) for name, text in said.items()}

    async def _traversed(
        self, hashes: Sequence[str], vectors: Rows, rng: np.random.Generator, epoch: int | None
    ) -> list[Sample]:
        """What the teacher says on its way through the graph of some items; `epoch`: None for those held out."""
        recipe = self._recipe
        found = await traverse(
            self._teacher, hashes, vectors, beta=self._crew.beta, threshold=recipe.threshold,
            representatives=recipe.representatives, merges=recipe.merges, noisy=recipe.noisy,
            refused=recipe.refused, rehearsals=recipe.rehearsals, rng=rng,
        )  # fmt: skip
        append(
            self._folder / "traversals.jsonl",
            {
                "epoch": epoch,
                "yes": found.memberships.yes,
                "no": found.memberships.no,
                "noisy": found.noisy.yes + found.noisy.no,
                "noisy_changed": found.noisy_changed,
                "strangers": found.strangers.yes + found.strangers.no,
                "merges": found.merges.yes + found.merges.no,
                "clusters": len(found.clusters),
                "items": len(hashes),
                "threshold": found.threshold,
                "calibrated": found.calibrated,
            },
        )
        return found.samples

    async def _learn(self, units: Sequence[Unit], curves: Curves) -> None:
        crew, progress = self._crew, self._watch.progress

        def report(done: int, total: int, measured: Mapping[str, float]) -> None:
            progress.done, progress.total = done, total
            curves.step(crew.progress.step, crew.progress.epoch, measured)
            try:
                self._watch.check()
            except BaseException:
                crew.keep()
                raise

        with self._own("learn", 0):
            await self._apart(crew.train_epoch, units, report)

    @property
    def _is_compared(self) -> bool:
        """Whether the base was measured, or never will be: the training began before bases were."""
        return "before" in self._crew.notes or bool(self._crew.progress.step)

    async def _compared(self, exam: Sequence[Unit], curves: Curves) -> dict[str, float]:
        """What the base comes to, measured once: a training may be worse than what it began with."""
        notes = self._crew.notes
        if not self._is_compared:
            notes["before"] = await self._taken(exam)
            curves.epoch(0, -1, notes["before"], best=False)
            await self._apart(self._crew.keep)
            if self._watch.on_epoch:
                self._watch.on_epoch({"epoch": 0, **notes["before"], "best": False, "gained": False})
        before: dict[str, float] = notes.get("before", {})
        return before

    async def _taken(self, exam: Sequence[Unit]) -> dict[str, float]:
        """What the model as it stands comes to."""

        def report(done: int) -> None:
            self._watch.progress.done = done
            self._watch.check()

        with self._own("measure", len(exam)):
            measured = await self._apart(self._crew.evaluate, exam, report)
        return measured | await self._by_itself(exam)

    async def _measure(self, exam: Sequence[Unit], curves: Curves) -> None:
        """Measure the epoch just done, and keep its model if it is the best."""
        measured = await self._taken(exam)
        self._measured.append(measured)
        epoch = len(self._measured) - 1
        best = self._best == epoch
        if best:
            tag = hashlib.sha256(json.dumps([epoch, measured]).encode()).hexdigest()[:8]
            await self._apart(self._crew.save, tag)
        curves.epoch(self._crew.progress.step, epoch, measured, best)
        await self._apart(self._crew.keep)
        if self._watch.on_epoch:
            self._watch.on_epoch({"epoch": epoch + 1, **measured, "best": best, "gained": self._gained(epoch)})

    async def _by_itself(self, exam: Sequence[Unit]) -> dict[str, float]:
        """What the model does where no teacher helps it, as in a session."""
        found: dict[str, float] = {}
        if pairs := [unit for unit in exam if isinstance(unit, Pair) and unit.same is not None]:
            vectors = dict(zip(self._held_out, await self._embedded(self._held_out), strict=True))
            found |= told_apart(pairs, vectors, self._crew.beta, self._recipe.threshold)
        if asked := assessments(exam):
            replies = await self._looked("measure", [sample.question for sample in asked], self._crew.reply)
            found["verdicts"] = verdicts(asked, replies)
        return found

    @contextmanager
    def _own(self, stage: str, total: int) -> Iterator[None]:
        """A stage in which the model works and the teacher rests."""
        progress, begun = self._watch.progress, time.monotonic()
        progress.stage, progress.done, progress.total = stage, 0, total
        try:
            yield
        finally:
            progress.seconds[stage] = progress.seconds.get(stage, 0.0) + time.monotonic() - begun

    async def _apart(self, work: Callable[..., T], *given: Any) -> T:
        """What the model does, beside the teacher's event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *given)

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self._recipe.seed, *what])


def _kept(path: Path, read: Callable[[str], T]) -> T | None:
    """What an earlier run wrote down; None where there is nothing."""
    if not path.exists():
        return None
    try:
        return read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}): train into another --out; what the teacher has "
            "said is in the database, and is asked no second time"
        ) from None


def _hashes(text: str) -> list[str]:
    told = json.loads(text)
    if not isinstance(told, list) or not all(isinstance(name, str) for name in told):
        raise ValueError("no list of content hashes")
    return told


def _units_of(epoch: int, text: str) -> list[Unit] | None:
    """The units of an epoch, where the text is of that one."""
    told = json.loads(text)
    return from_json(told["units"]) if told["epoch"] == epoch else None
