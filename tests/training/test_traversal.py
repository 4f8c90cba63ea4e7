"""Labelled items traversed by the program's own agents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from agents.conclusions import Conclusion, read_conclusions
from graphs.budget import Budget
from storage.errors import Paused
from tests.training.teachers import Book, items, teacher_of
from training.samples import from_json, to_json
from training.teacher import Teacher
from training.traversal import Traversed, traverse

USUAL: dict[str, Any] = {"beta": 14.3, "threshold": 0.9997, "representatives": 3, "merges": 300, "noisy": 0.15}


async def traversed(teacher: Teacher, vectors: np.ndarray, **changes: Any) -> Traversed:
    return await traverse(teacher, teacher.hashes, vectors, **USUAL | changes, rng=np.random.default_rng(3))


def nmi(found: Traversed, values: dict[str, str]) -> float:
    home = {item: number for number, members in enumerate(found.clusters) for item in members}
    return float(normalized_mutual_info_score([values[item] for item in home], list(home.values())))


async def test_a_perfect_teacher_finds_the_classes_and_every_assessment_is_a_sample() -> None:
    values, vectors = items(200)
    book = Book()
    teacher, chat = teacher_of(values, book)
    found = await traversed(teacher, vectors)
    assert nmi(found, values) == pytest.approx(1) and sum(map(len, found.clusters)) == 200
    assert len(found.samples) == chat.asked == len(book.answers)
    told = [found.memberships, found.merges, found.noisy]
    assert [v.unknown for v in told] == [0, 0, 0]
    assert sum(v.yes + v.no for v in told) == len(found.samples)
    asked = [sample.question for sample in found.samples]
    assert len(set(asked)) == len(asked)
    for sample in found.samples:
        assert sample.kind == "assessment" and read_conclusions(sample.reply).conclusions[0] is not Conclusion.UNKNOWN
    memberships = found.memberships.yes + found.memberships.no
    assert memberships >= 100 and found.memberships.yes > 0 and found.merges.no > 0
    assert from_json(to_json(found.samples)) == found.samples
    # Node numbers in the ledger are the session's.
    one = next(a for a in book.answers.values() if a.kind == "membership")
    assert [teacher.hashes[v] for v in one.subject["representatives"]] in [
        [item for _, item in q.items[:-1]] for q in asked
    ]


async def test_wrong_representatives_are_a_share_and_measured() -> None:
    values, vectors = items(200)
    teacher, _ = teacher_of(values)
    found = await traversed(teacher, vectors)
    first = found.memberships.yes + found.memberships.no
    assert found.noisy.yes + found.noisy.no == pytest.approx(0.15 * first, abs=3)
    assert found.noisy_changed == 0  # one wrong of three does not change what a perfect teacher says
    assert found.noisy.yes > 0
    wrong = found.samples[-(found.noisy.yes + found.noisy.no) :]
    assert all(len({values[item] for _, item in sample.question.items[:-1]}) == 2 for sample in wrong)
    none = await traversed(teacher, vectors, noisy=0.0)
    assert none.noisy.yes + none.noisy.no == 0
    two = await traversed(teacher, vectors, representatives=2)
    assert two.noisy.yes + two.noisy.no == 0  # one of two would leave nothing plain


@pytest.mark.parametrize("threshold", [0.5, 0.9999999])
async def test_a_graph_of_dust_or_of_one_clump_still_teaches(threshold: float) -> None:
    values, vectors = items(150, noise=0.9)
    if threshold == 0.5:
        vectors = vectors + 4 * vectors[:1]  # all look alike, as to an embedder that was never trained
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    teacher, _ = teacher_of(values)
    found = await traversed(teacher, vectors.astype(np.float32), threshold=threshold)
    assert found.calibrated and 75 <= found.memberships.yes + found.memberships.no < 750
    assert nmi(found, values) > 0.5


async def test_merges_are_bounded_and_the_nearest_come_first() -> None:
    values, vectors = items(200, noise=1.0)
    teacher, _ = teacher_of(values)
    few = await traversed(teacher, vectors, merges=5, noisy=0.0)
    assert few.merges.yes + few.merges.no == 5
    assert few.merges.yes > 0
    none = await traversed(teacher, vectors, merges=0, noisy=0.0)
    assert none.merges.yes + none.merges.no == 0
    all_of_them = await traversed(teacher, vectors, merges=10**6, noisy=0.0)
    assert nmi(all_of_them, values) == pytest.approx(1) and len(all_of_them.clusters) == 4


async def test_a_stopped_traversal_goes_on_without_a_repeated_call() -> None:
    values, vectors = items(120)
    whole_teacher, chat = teacher_of(values)
    whole = await traversed(whole_teacher, vectors)
    book, asked = Book(), 0
    for more in (40, 41, 90, 10**6):
        teacher, some = teacher_of(values, book, budget=Budget(max_calls=len(book.answers) + more))
        try:
            found = await traversed(teacher, vectors)
        except Paused:
            assert some.asked == more
        asked += some.asked
    assert found == whole and asked == chat.asked == len(book.answers)


async def test_unknown_assessments_are_left_out() -> None:
    values, vectors = items(100)
    teacher, _ = teacher_of(values, says=lambda text, n: "Hard to say." if n % 3 else text)
    found = await traversed(teacher, vectors)
    assert found.memberships.unknown > 20
    told = [found.memberships, found.merges, found.noisy]
    assert len(found.samples) == sum(v.yes + v.no for v in told)
    assert all("Hard to say" not in sample.reply for sample in found.samples)


async def test_items_without_an_embedding_and_too_few_items() -> None:
    values, vectors = items(60)
    vectors[::2] = 0
    teacher, _ = teacher_of(values)
    found = await traversed(teacher, vectors)
    assert sum(map(len, found.clusters)) == 30
    vectors[:59] = 0
    assert (await traversed(teacher, vectors)).samples == []
    values, vectors = items(3)
    teacher, _ = teacher_of(values)
    assert (await traversed(teacher, vectors)).samples


async def test_any_order_of_the_nodes_gives_the_same_questions() -> None:
    values, vectors = items(80)
    teacher, chat = teacher_of(values)
    first = await traversed(teacher, vectors, noisy=0.0)
    order = np.random.default_rng(1).permutation(80)
    asked = chat.asked
    again = await traverse(
        teacher, [teacher.hashes[i] for i in order], vectors[order], **USUAL | {"noisy": 0.0},
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert chat.asked == asked and again == first


async def test_strangers_are_put_to_clusters_where_hardly_anybody_was_refused() -> None:
    """An agent that learnt from a good graph alone would say YES to all."""
    values, vectors = items(200, noise=0.1)
    teacher, chat = teacher_of(values)
    found = await traversed(teacher, vectors, refused=0.4)
    assert found.memberships.no < 0.1 * found.memberships.yes
    yes, no = (
        sum(getattr(v, name) for v in (found.memberships, found.noisy, found.strangers)) for name in ("yes", "no")
    )
    assert no / (yes + no) == pytest.approx(0.4, abs=0.05) and found.strangers.yes == 0
    assert len({sample.question for sample in found.samples}) == len(found.samples) == chat.asked
    again = await traversed(teacher, vectors, refused=0.4)
    assert again.samples == found.samples and chat.asked == len(found.samples)  # nothing is asked twice


async def test_two_clusters_are_compared_often_enough_where_there_are_few() -> None:
    values, vectors = items(200, noise=0.1)
    teacher, chat = teacher_of(values)
    found = await traversed(teacher, vectors, noisy=0.0, rehearsals=80)
    walked = found.merges.yes + found.merges.no
    assert walked < 20 and 70 <= walked + found.rehearsals.yes + found.rehearsals.no <= 80
    assert 25 <= found.rehearsals.yes <= 45 and 25 <= found.rehearsals.no <= 45
    practice = found.samples[-(found.rehearsals.yes + found.rehearsals.no) :]
    for sample in practice:
        sides = [{values[i] for label, i in sample.question.items if label.startswith(f"Cluster {n}")} for n in "AB"]
        assert (sides[0] == sides[1]) == (read_conclusions(sample.reply).conclusions == (Conclusion.YES,))
        assert not {i for label, i in sample.question.items if "A" in label} & {
            i for label, i in sample.question.items if "Cluster B" in label
        }
    assert len({sample.question for sample in found.samples}) == len(found.samples) == chat.asked
