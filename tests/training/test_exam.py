"""What an epoch is measured on, and which epoch is kept."""

from __future__ import annotations

import numpy as np
import pytest

from agents import questions
from agents.conclusions import Conclusion, ending
from agents.prompt_sets import set_for_criterion
from training.exam import ANSWERED, assessments, best_of, chance_of, first_of, near_and_far, told_apart, verdicts
from training.samples import Pair, Sample, Unit

PROMPTS = set_for_criterion("suit")


def caption(item: str) -> Sample:
    return Sample(questions.describe(PROMPTS, item), f"It is {item}.")


def assessment(item: str, verdict: Conclusion) -> Sample:
    return Sample(questions.membership(PROMPTS, ["a"], [item]), f"So it is. {ending(verdict)}")


def test_half_of_the_pairs_are_the_most_alike_and_none_comes_twice() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = near_and_far(rows, 30, np.random.default_rng(1))
    assert len(set(pairs)) == 30 and all(i < j for i, j in pairs)
    every = sorted(((i, j) for i in range(20) for j in range(i + 1, 20)), key=lambda p: -rows[p[0]] @ rows[p[1]])
    assert set(every[:15]) <= set(pairs)
    assert len(near_and_far(rows[:4], 30, np.random.default_rng(1))) == 6


def test_pairs_are_told_apart_by_affinity_and_by_the_threshold() -> None:
    rows = {"a": [1, 0], "b": [1, 0], "c": [0, 1], "d": [0.6, 0.8]}
    vectors = {name: np.array(row, dtype=np.float32) for name, row in rows.items()}

    def pair(a: str, b: str, same: bool) -> Pair:
        return Pair(caption(a), caption(b), same)

    told = told_apart([pair("a", "b", True), pair("a", "c", False), pair("a", "d", False)], vectors, 10.0, 0.6)
    assert told == {"edges": 2 / 3, "auc": 1.0}  # sigmoid(10 * 0.6) makes an edge that should not be
    assert told_apart([pair("a", "b", True)], vectors, 10.0, 0.6) == {"edges": 1.0}


def test_verdicts_are_counted_and_what_is_no_conclusion_is_wrong() -> None:
    asked = [assessment("b", Conclusion.YES), assessment("c", Conclusion.NO), assessment("d", Conclusion.NO)]
    assert verdicts(asked, [ending(Conclusion.YES), ending(Conclusion.YES), "Perhaps."]) == 1 / 3
    many = assessments([Pair(caption("a"), caption("b"), None), *asked * 200])
    assert len(many) <= ANSWERED and {sample.question.items[-1][1] for sample in many} == {"b", "c", "d"}
    assert assessments([]) == []


def test_the_epoch_that_is_kept_is_the_latest_that_is_as_good_as_any() -> None:
    epochs = [
        {"auc": 0.9, "verdicts": 0.8, "caption": 0.1},
        {"auc": 0.9, "verdicts": 0.9, "caption": 0.5},
        {"auc": 0.91, "verdicts": 0.9, "caption": 0.4},
        {"auc": 0.9, "verdicts": 0.895, "caption": 0.9},
        {"auc": 0.9, "verdicts": 0.85, "caption": 0.1},
    ]
    assert (first_of(epochs, 0.01), best_of(epochs, 0.01)) == (1, 3)
    better = [*epochs, {"auc": 1.0, "verdicts": 1.0}]
    assert first_of(better, 0.01) == best_of(better, 0.01) == 5
    assert first_of([epochs[1], epochs[3]], 0.01) == 0  # nothing was gained
    assert best_of(better, 0.1) == 5 and first_of(better, 0.1) == 1
    assert best_of([*better, epochs[1]], 0.1) == 6  # of few verdicts one makes the difference


def test_few_verdicts_leave_more_to_chance() -> None:
    asked = [assessment("b", Conclusion.YES), assessment("c", Conclusion.NO)]
    pairs: list[Unit] = [Pair(caption("a"), caption("b"), True), Pair(caption("a"), caption("c"), None)]
    assert chance_of(asked * 96) == pytest.approx(0.0101, abs=1e-4)
    assert chance_of([*pairs, *asked * 5]) == pytest.approx(0.0443, abs=1e-4)
    assert chance_of(pairs) == pytest.approx(0.14)


def test_where_only_losses_are_known_the_least_is_kept() -> None:
    told = [{"caption": 0.3}, {"caption": 0.2}, {"caption": 0.2, "assessment": 0.1}]
    assert first_of(told, 0.01) == best_of(told, 0.01) == 1
