"""The hardest pairs against all pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.mining import GRAIN, hardest, random_pairs


def plainly(vectors: np.ndarray, beta: float, count: int) -> list[tuple[int, int]]:
    known = [i for i in range(len(vectors)) if vectors[i].any()]
    told = []
    for i in known:
        for j in known:
            if i < j:
                w = 1 / (1 + np.exp(-beta * abs(float(vectors[i].astype(float) @ vectors[j].astype(float)))))
                told.append((round((w - 0.5) / GRAIN), i, j))
    return [(i, j) for _, i, j in sorted(told)[:count]]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 40),
    width=st.integers(1, 5),
    beta=st.sampled_from([1.0, 14.3, 100.0]),
    count=st.integers(0, 90),
    block=st.integers(1, 17),
    coarse=st.booleans(),
)
def test_they_are_those_nearest_to_a_half(
    seed: int, n: int, width: int, beta: float, count: int, block: int, coarse: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Coarse ones tie often: equal rows, right angles, and weights that are 1 to the last digit.
    rows = rng.integers(-1, 2, size=(n, width)) if coarse else rng.normal(size=(n, width))
    rows = rows * (rng.random(n) > 0.1)[:, None]
    vectors = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    found = hardest(vectors, beta, count, block=block)
    assert found == hardest(vectors, beta, count)
    assert found == plainly(vectors, beta, count)


def test_items_without_an_embedding_are_in_no_pair() -> None:
    vectors = np.array([[1, 0], [0, 0], [0, 1], [np.nan, 0]], dtype=np.float32)
    assert hardest(vectors, 10.0, 5) == [(0, 2)]


def test_memory_does_not_grow_with_all_pairs() -> None:
    import tracemalloc

    rng = np.random.default_rng(0)
    vectors = np.eye(8, dtype=np.float32)[rng.integers(8, size=3000)]  # most pairs tie
    tracemalloc.start()
    assert len(hardest(vectors, 14.3, 100, block=256)) == 100
    assert tracemalloc.get_traced_memory()[1] < 16e6  # all pairs would take 72 MB
    tracemalloc.stop()


def test_pairs_drawn_at_random_are_different_and_in_order() -> None:
    rng = np.random.default_rng(0)
    pairs = random_pairs(40, 100, rng)
    assert len(pairs) == len(set(pairs)) == 100 and all(0 <= i < j < 40 for i, j in pairs)
    assert len({i for pair in pairs for i in pair}) > 35
    assert random_pairs(1, 5, rng) == [] and set(random_pairs(2, 5, rng)) <= {(0, 1)}
