"""Stage 5: measures the stored weights through the interface that the server uses, on renders of a seed never
trained on."""

from __future__ import annotations

import base64
import csv
import io
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from agents.prompt_sets import PromptSet, shipped_set
from agents.questions import Question, describe, membership, merge
from serving.llava.model import LlavaQwen2
from serving.llava.prompt import Message
from training.mini.conversations import CRITERIA
from training.mini.conversations import reworded as reword
from training.mini.head import graph_quality
from training.mini.language import conclusion_is
from training.mini.stage import Report
from training.replies import common_value, describe_reply
from training.world import Kind, Purpose, image_seed, render

Metrics = dict[str, Any]
_BATCH = 32
_KIND: dict[str, Kind] = {"suit": "cards", "rank": "cards", "species": "fruit", "color": "fruit"}
_COLUMNS = {"order": "rank", "suits": "suit"}


def data_url(image: Image.Image, quality: int | None = None) -> str:
    """The image as a PNG, or as a JPEG of some quality, in a data: URL."""
    buffer = io.BytesIO()
    image.convert("RGB").save(
        buffer, "PNG" if quality is None else "JPEG", **({} if quality is None else {"quality": quality})
    )
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def fresh_images(kind: Kind, count: int, seed: int) -> tuple[list[str], list[dict[str, str]]]:
    """URLs and labels of `count` renders of the evaluation stream, half of them as JPEG."""
    urls: list[str] = []
    labels: list[dict[str, str]] = []
    for index in range(count):
        at = image_seed(Purpose.EVALUATION, seed, index)
        picture, told = render(kind, at)
        urls.append(data_url(picture, (None, 85, None, 60)[index % 4]))
        labels.append(told)
    return urls, labels


def evaluate(model: LlavaQwen2, count: int, seed: int, report: Report, speed: bool = True) -> Metrics:
    """Captions and graphs on `count` renders of each kind, verdicts on half as many questions of each kind."""
    rng = np.random.default_rng([seed, 61])
    metrics: Metrics = {
        "caption": {},
        "reworded caption": {},
        "membership": {},
        "merge": {},
        "noisy membership": {},
        "graph": {},
    }
    steps = len(CRITERIA) * 6
    for place, criterion in enumerate(CRITERIA):
        kind = _KIND[criterion]
        urls, labels = fresh_images(kind, count, seed)
        values = [told[criterion] for told in labels]
        prompts = shipped_set(criterion)
        asked = [describe(prompts, str(i)) for i in range(count)]
        told = _ask(model, asked, urls)
        metrics["caption"][criterion] = _share(
            t == describe_reply(criterion, v) for t, v in zip(told, values, strict=True)
        )
        report(place * 6 + 1, steps, f"captions by {criterion}")
        loose = [describe(reword(criterion, rng, 1.0), str(i)) for i in range(count // 2)]
        metrics["reworded caption"][criterion] = _share(
            t == describe_reply(criterion, v) for t, v in zip(_ask(model, loose, urls), values, strict=False)
        )
        report(place * 6 + 2, steps, f"reworded captions by {criterion}")
        each = max(4, count // 2)
        for step, (name, ask) in enumerate(
            (("membership", _membership(0.0)), ("merge", _merge()), ("noisy membership", _membership(1.0)))
        ):
            made = [ask(prompts, values, i % 2 == 0, rng) for i in range(each)]
            verdicts = _ask(model, [question for question, _ in made], urls)
            metrics[name][criterion] = _share(
                conclusion_is(text, agree) for text, (_, agree) in zip(verdicts, made, strict=True)
            )
            report(place * 6 + 3 + step, steps, f"{name} by {criterion}")
        chats = [
            [*m, {"role": "assistant", "content": f"{t} <embedding>"}]
            for m, t in zip(_chats(asked, urls), told, strict=True)
        ]
        rows = np.concatenate([model.embed(chats[at : at + _BATCH]) for at in range(0, count, _BATCH)])
        numbers = np.unique(values, return_inverse=True)[1]
        assert model.threshold is not None
        metrics["graph"][criterion] = graph_quality(rows, numbers, model.beta, model.threshold)
        report(place * 6 + 6, steps, f"graph by {criterion}")
    if speed:
        metrics["speed"] = measure_speed(model, seed)
    metrics["conditions"] = {
        "renders of each kind": count, "questions of each kind and criterion": max(4, count // 2), "seed": seed,
        "purpose": "EVALUATION: disjoint from every training seed",
        "image": "208 x 208 pixels; half PNG, a quarter each JPEG 85 and 60",
        "representatives": 3,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": str(torch.__version__),
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip
    return metrics


def measure_speed(model: LlavaQwen2, seed: int) -> dict[str, float]:
    """Milliseconds for one membership answer with four new images: alone, and each in a batch of 16; median of a
    few."""
    prompts = shipped_set("suit")
    urls, _ = fresh_images("cards", 64 + 20, seed + 1)
    alone: list[float] = []
    for i in range(5):
        begin = time.perf_counter()
        _ask(model, [membership(prompts, [str(4 * i + k) for k in range(3)], [str(4 * i + 3)])], urls)
        alone.append(time.perf_counter() - begin)
    batch: list[float] = []
    questions = [membership(prompts, [str(20 + 4 * i + k) for k in range(3)], [str(20 + 4 * i + 3)]) for i in range(16)]
    for _ in range(3):
        begin = time.perf_counter()
        _ask(model, questions, urls)
        batch.append((time.perf_counter() - begin) / 16)
    return {
        "membership alone, new images (ms)": round(float(np.median(alone)) * 1000, 1),
        "membership in a batch of 16, new images (ms each)": round(batch[0] * 1000, 1),
        "membership in a batch of 16, images seen before (ms each)": round(float(np.median(batch[1:])) * 1000, 1),
    }


def evaluate_photos(model: LlavaQwen2, folder: Path, report: Report, limit: int | None = None) -> Metrics:
    """Caption accuracy on photographs with a `labels.csv` (`file,order,suits`): outside the model's world, so
    without a bar."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:limit]
    right = dict.fromkeys(_COLUMNS.values(), 0)
    for at in range(0, len(rows), _BATCH):
        part = rows[at : at + _BATCH]
        urls = [data_url(Image.open(folder / row["file"]), 95) for row in part]
        for column, criterion in _COLUMNS.items():
            told = _ask(model, [describe(shipped_set(criterion), str(i)) for i in range(len(part))], urls)
            right[criterion] += sum(
                t == describe_reply(criterion, row[column]) for t, row in zip(told, part, strict=True)
            )
        report(min(len(rows), at + _BATCH), len(rows), "photographs")
    return {"photographs": len(rows), **{criterion: hits / len(rows) for criterion, hits in right.items()}}


Maker = Callable[[PromptSet, list[str], bool, np.random.Generator], tuple[Question, bool]]


def _membership(noise: float) -> Maker:
    """Makes questions with three representatives; with probability `noise` one of them is of another class."""

    def make(prompts: PromptSet, values: list[str], agree: bool, rng: np.random.Generator) -> tuple[Question, bool]:
        group, other = _two(values, agree, rng)
        shown = [_one(values, group, rng) for _ in range(3)]
        if rng.random() < noise:
            shown[int(rng.integers(3))] = _one(values, _two(values, False, rng, group)[1], rng)
        candidate = _one(values, other, rng)
        return membership(prompts, [str(i) for i in shown], [str(candidate)]), common_value(
            [values[i] for i in shown]
        ) == values[candidate]

    return make


def _merge() -> Maker:
    def make(prompts: PromptSet, values: list[str], agree: bool, rng: np.random.Generator) -> tuple[Question, bool]:
        a, b = ([str(_one(values, value, rng)) for _ in range(3)] for value in _two(values, agree, rng))
        return merge(prompts, a, b), agree

    return make


def _two(values: list[str], agree: bool, rng: np.random.Generator, first: str | None = None) -> tuple[str, str]:
    names = sorted(set(values))
    group = first if first is not None else str(rng.choice(names))
    return group, group if agree else str(rng.choice([v for v in names if v != group]))


def _one(values: list[str], value: str, rng: np.random.Generator) -> int:
    return int(rng.choice([i for i, v in enumerate(values) if v == value]))


def _chats(questions: list[Question], urls: list[str]) -> list[list[Message]]:
    return [
        list(q.messages(lambda number: {"type": "image_url", "image_url": {"url": urls[int(number)]}}))
        for q in questions
    ]


def _ask(model: LlavaQwen2, questions: list[Question], urls: list[str]) -> list[str]:
    chats = _chats(questions, urls)
    return [g.text for at in range(0, len(chats), _BATCH) for g in model.generate(chats[at : at + _BATCH], 128)]


def _share(hits: Any) -> float:
    return round(float(np.mean(list(hits))), 4)
