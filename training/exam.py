"""How good a model is on held-out items, where no teacher helps it; and which epoch was the best. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from agents.conclusions import read_conclusions
from training.samples import Pair, Sample, Unit

LOSSES = ("caption", "alike", "assessment")
"""What is minimised."""
ANSWERED = 192
"""Assessments that the model concludes by itself, at most, when an epoch is measured."""
_RIGHT = 0.98
"""Share of verdicts that a good epoch has right, about."""

Rows = npt.NDArray[np.float32]


def near_and_far(vectors: Rows, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """At most `count` pairs i < j to be measured on: half of them the most alike, the others drawn at random."""
    first, second = np.triu_indices(len(vectors), 1)
    alike = (vectors @ vectors.T)[first, second]
    near = np.argsort(-alike, kind="stable")[: count // 2]
    far = rng.permutation(np.setdiff1d(np.arange(len(first)), near))[: count - len(near)]
    return sorted((int(first[k]), int(second[k])) for k in (*near, *far))


def told_apart(pairs: Sequence[Pair], vectors: Mapping[str, Rows], beta: float, threshold: float) -> dict[str, float]:
    """How well H(u) (d,) of the model's own descriptions, by content hash, tells labelled pairs apart.

    `auc`: how far β cos tells pairs that are alike from others, where there are both; `edges`: the share of pairs that
    τ tells rightly (METHOD 3).
    """
    alike = beta * np.array([vectors[_item(pair.first)] @ vectors[_item(pair.second)] for pair in pairs])
    same = np.array([pair.same for pair in pairs])
    found = {"edges": float(np.mean((alike >= math.log(threshold / (1 - threshold))) == same))}
    if same.any() and not same.all():
        found["auc"] = float(roc_auc_score(same, alike))
    return found


def assessments(units: Sequence[Unit]) -> list[Sample]:
    """The assessments that the model is to conclude by itself: ANSWERED at most, of every kind."""
    asked = [unit for unit in units if isinstance(unit, Sample)]
    return asked[:: max(1, -(-len(asked) // ANSWERED))]


def verdicts(asked: Sequence[Sample], replies: Sequence[str]) -> float:
    """The share of assessments that the model concludes as the teacher did."""
    told = zip(replies, asked, strict=True)
    right = [read_conclusions(mine).conclusions == read_conclusions(one.reply).conclusions for mine, one in told]
    return float(np.mean(right))


def chance_of(units: Sequence[Unit]) -> float:
    """By how much what an epoch is measured by comes out otherwise for no reason: the standard error of as many
    verdicts as are asked for, or pairs, nearly all right."""
    answered = len(assessments(units)) or sum(isinstance(unit, Pair) and unit.same is not None for unit in units)
    return math.sqrt(_RIGHT * (1 - _RIGHT) / max(1, answered))


def best_of(epochs: Sequence[Mapping[str, float]], chance: float) -> int:
    """The place of the best of what epochs measured: the latest that is no worse than the best by more than chance.

    Held-out items come from the collection that is learnt: what they no longer tell apart, training longer still helps
    on others.
    """
    return _as_good_as_any(epochs, chance)[-1]


def first_of(epochs: Sequence[Mapping[str, float]], chance: float) -> int:
    """The place from which on none was better by more than chance."""
    return _as_good_as_any(epochs, chance)[0]


def _as_good_as_any(epochs: Sequence[Mapping[str, float]], chance: float) -> list[int]:
    """Places, by what the model does by itself; where that was not measured, that of the least losses."""
    found = [_done(measured) for measured in epochs]
    if any(done is None for done in found):
        losses = [sum(measured[name] for name in LOSSES if name in measured) for measured in epochs]
        return [min(range(len(losses)), key=losses.__getitem__)]
    done = [one for one in found if one is not None]
    return [place for place, one in enumerate(done) if one >= max(done) - chance]


def _done(measured: Mapping[str, float]) -> float | None:
    done = [measured[name] for name in ("auc", "verdicts") if name in measured]
    return sum(done) / len(done) if done else None


def _item(sample: Sample) -> str:
    return sample.question.items[0][1]
