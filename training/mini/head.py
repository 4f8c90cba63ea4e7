"""Stage 3: the embedding head of METHOD 2 learns which descriptions mean the same value; everything else is frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from agents.prompt_sets import shipped_set
from serving.llava.network import EmbeddingHead, project, states_at
from serving.llava.prompt import Vocabulary
from training.descent import Descent, groups_of
from training.mini.config import MiniConfig
from training.mini.conversations import CRITERIA, Conversations, Sample, reworded
from training.mini.language import Seen, answer, embedding_prompt
from training.mini.stage import Averages, Report, Stage
from training.replies import NOTHING


@dataclass(frozen=True)
class States:
    """Hidden states at `<embedding>` under one criterion."""

    hidden: Tensor
    """(n, width) float32."""
    values: np.ndarray
    """(n,) true values as numbers."""


@torch.inference_mode()
def embedding_states(
    model: LlavaForConditionalGeneration,
    words: Vocabulary,
    config: MiniConfig,
    seen: Seen,
    samples: list[Sample],
    told: list[str] | None,
) -> Tensor:
    """States (n, width) for descriptions `told`, or for the right ones when None."""
    out: list[Tensor] = []
    for at in range(0, len(samples), 64):
        part = samples[at : at + 64]
        prompts = [embedding_prompt(s, words, config, told[at + i] if told else None) for i, s in enumerate(part)]
        images = [int(url.removeprefix("render:")) for p in prompts for url in p.image_urls]
        out.append(states_at(model, [p.ids for p in prompts], project(model, seen.features[images]), words.pad))
    return torch.cat(out).clone()


def collect_states(
    model: LlavaForConditionalGeneration,
    words: Vocabulary,
    config: MiniConfig,
    seen: Seen,
    each: int,
    plain: bool,
    seed: int,
) -> dict[str, States]:
    """States of up to `each` items for every criterion; half of the descriptions are the model's own, all of them
    if `plain`."""
    conversations = Conversations(seen.attributes, config)
    rng = np.random.default_rng([config.seed, 51, seed])
    found: dict[str, States] = {}
    for criterion in CRITERIA:
        names = sorted(set(conversations.values[criterion]))
        images = rng.permutation(len(seen.attributes))[: 4 * each]
        apply = [int(i) for i in images if conversations.value(criterion, int(i)) != NOTHING][:each]
        if not plain:
            apply += [int(i) for i in images if conversations.value(criterion, int(i)) == NOTHING][: each // 30]
        if len(apply) < 2:
            continue
        share = 0.0 if plain else config.paraphrase_share
        samples = [
            conversations.describe(criterion, i, reworded(criterion, rng, share) if share else shipped_set(criterion))
            for i in apply
        ]
        own = answer(model, words, config, seen, samples)
        if not plain:
            own = [reply if rng.random() < 0.5 else sample.reply for reply, sample in zip(own, samples, strict=True)]
        hidden = embedding_states(model, words, config, seen, samples, own)
        found[criterion] = States(hidden, np.array([names.index(conversations.value(criterion, i)) for i in apply]))
    return found


def train_head(
    config: MiniConfig, out: Path, model: LlavaForConditionalGeneration, words: Vocabulary, seen: Seen, report: Report
) -> EmbeddingHead:
    """BCE(beta cos, same value) over all pairs of one criterion in a batch, METHOD 8."""
    torch.manual_seed(config.seed + 2)
    head = EmbeddingHead(config.text_width, config.embedding_width)
    # The scale has far to go, from 1/0.07 towards 100, and is one number: it takes larger steps.
    groups = groups_of([head.logit_scale], share=10.0) + groups_of([head.projection, *head.norm.parameters()])
    stage = Stage(config, "head", out, {"head": head}, Descent(groups, config.head_rate, fused=False))
    if stage.done:
        return head.eval().requires_grad_(False)
    each = min(config.head_items, len(seen.attributes) // 2)
    states = collect_states(model, words, config, seen, each, plain=False, seed=0)
    averages = Averages()

    def learn(step: int) -> Averages:
        rng = np.random.default_rng([config.seed, 52, step])
        losses = []
        for known in states.values():
            chosen = rng.integers(len(known.values), size=config.head_batch)
            values = torch.from_numpy(known.values[chosen])
            rows = head(known.hidden[torch.from_numpy(chosen)])
            logits = head.beta * (rows @ rows.T)
            pairs = torch.triu(torch.ones_like(logits, dtype=torch.bool), 1)
            same = (values[:, None] == values[None, :]).float()
            losses.append(F.binary_cross_entropy_with_logits(logits[pairs], same[pairs]))
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        averages.follow("loss", loss.item())
        averages["beta"] = float(head.beta.detach())
        return averages

    stage.run(learn, report)
    return head.eval().requires_grad_(False)


def graph_quality(rows: np.ndarray, values: np.ndarray, beta: float, threshold: float) -> dict[str, float]:
    """How well the edges of METHOD 3 fit the true values: pairs joined, pairs kept apart, components, their purity."""
    # sigmoid(beta cos) >= tau, solved for the cosine
    edges = rows @ rows.T >= math.log(threshold / (1 - threshold)) / beta
    same = values[:, None] == values[None, :]
    off = ~np.eye(len(values), dtype=bool)
    component = _components(edges)
    common = sum(int(np.bincount(values[component == c]).max()) for c in np.unique(component))
    return {
        "pairs joined": float(edges[same & off].mean()) if (same & off).any() else 1.0,
        "pairs kept apart": float((~edges[~same]).mean()) if (~same).any() else 1.0,
        "components": float(len(np.unique(component))),
        "classes": float(len(np.unique(values))),
        "purity": common / len(values),
    }


def _components(edges: np.ndarray) -> np.ndarray:
    """Number of the connected component of every node."""
    component = np.full(len(edges), -1)
    for start in range(len(edges)):
        if component[start] >= 0:
            continue
        border = np.array([start])
        component[start] = start
        while len(border):
            near = edges[border].any(0) & (component < 0)
            component[near] = start
            border = np.flatnonzero(near)
    return component


def measure_head(
    config: MiniConfig, model: LlavaForConditionalGeneration, head: EmbeddingHead, words: Vocabulary, seen: Seen
) -> dict[str, float]:
    """Share of pairs that the graph treats rightly, by criterion, with the model's own descriptions of held-out
    images."""
    measured: dict[str, float] = {}
    for criterion, known in collect_states(model, words, config, seen, 500, plain=True, seed=1).items():
        with torch.inference_mode():
            rows = head(known.hidden).numpy()
        quality = graph_quality(rows, known.values, float(head.beta.detach()), config.threshold)
        measured[f"joined {criterion}"] = quality["pairs joined"]
        measured[f"apart {criterion}"] = quality["pairs kept apart"]
    return measured
