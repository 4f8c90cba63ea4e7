"""A small world to learn from: pictures named by numbers, pairs and assessments about their colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from agents import questions
from agents.prompt_sets import shipped_set
from training.recipe import Recipe
from training.samples import Pair, Sample, Unit

COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (40, 60, 200)}
NAMES = list(COLOURS)
PROMPTS = shipped_set("color")
RECIPE = Recipe(
    epochs=2, batch=4, micro_batch=2, rank=4, rate=3e-3, warm_up=0.1, gradient_checkpointing=False, emphasis=2.0,
    checkpoint_seconds=1e9,
)  # fmt: skip


def colour(item: str) -> str:
    return NAMES[int(item) % len(NAMES)]


def image(item: str) -> Image.Image:
    """A noisy patch; every third one is wide."""
    number = int(item)
    shape = (40, 90, 3) if number % 3 == 2 else (60, 60, 3)
    noise = np.random.default_rng(number).normal(0, 12, shape) + np.array(COLOURS[colour(item)])
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def caption(item: str) -> Sample:
    return Sample(questions.describe(PROMPTS, item), f"The fruit is {colour(item)}.")


def pair(first: int, second: int, same: bool | None = None) -> Pair:
    alike = colour(str(first)) == colour(str(second)) if same is None else same
    return Pair(caption(str(first)), caption(str(second)), alike)


def assessment(shown: list[int], candidate: int) -> Sample:
    alike = colour(str(shown[0])) == colour(str(candidate))
    reply = (
        f"The representatives are {colour(str(shown[0]))}. The candidate is {colour(str(candidate))}. They "
        f"{'agree' if alike else 'differ'}. <CONCLUSION> {'YES' if alike else 'NO'} </CONCLUSION>"
    )
    return Sample(questions.membership(PROMPTS, [str(i) for i in shown], [str(candidate)]), reply)


def units(pairs: int, assessments: int) -> list[Unit]:
    """Pairs, the second of which nobody labelled, and assessments."""
    made: list[Unit] = [pair(i, i + (3 if i % 2 else 1)) for i in range(pairs)]
    if pairs > 1:
        first = made[1]
        assert isinstance(first, Pair)
        made[1] = Pair(first.first, first.second, None)
    return [*made, *(assessment([i, i + 3][: 1 + i % 2], i + (6 if i % 2 else 1)) for i in range(assessments))]


def chat(sample: Sample, told: str | None = None) -> list[dict[str, object]]:
    """A sample's question with real pictures in it, and the assistant's words."""
    from tests.serving.test_llava import url_of

    asked = sample.question.messages(lambda i: {"type": "image_url", "image_url": {"url": url_of(image(i))}})
    return [*asked, *([{"role": "assistant", "content": told}] if told is not None else [])]


def trained(base: Path, out: Path, recipe: Recipe = RECIPE, stop_at: int = 0) -> dict[str, float]:
    """A whole training in `out`, on from its state; raises KeyboardInterrupt after `stop_at` steps in all."""
    from training.learner import Learner

    learner = Learner(base, recipe, out, image)

    def report(done: int, steps: int, measured: object) -> None:
        if stop_at and learner.progress.step == stop_at:
            raise KeyboardInterrupt

    means: dict[str, float] = {}
    while learner.progress.epoch < recipe.epochs:
        means = learner.train_epoch(units(6, 5 + learner.progress.epoch), report)
    learner.save()
    return means
