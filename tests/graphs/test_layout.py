"""Maps: like near like, the same every time, and something for every collection."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.layout import LayoutFailed, apart, layout


def embeddings(items=120, classes=4, width=12, seed=0):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, classes, items)
    centres = 400 * rng.normal(size=(classes, width))
    return kinds, (centres[kinds] + 60 * rng.normal(size=(items, width))).astype(np.int16)


def same_kind_nearest(places, kinds):
    away = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(places))
    return float((kinds[away.argmin(axis=1)] == kinds).mean())


def test_like_lies_near_like_and_a_map_drawn_apart_is_the_same():
    kinds, vectors = embeddings()
    vectors[5] = 0
    places = layout(vectors)
    assert places.shape == (120, 2) and places.dtype == np.float32
    assert np.isnan(places[5]).all()
    there = np.delete(places, 5, axis=0)
    assert there.min() >= 0 and there.max() <= 1 and np.ptp(there, axis=0).max() > 0.99
    assert same_kind_nearest(there, np.delete(kinds, 5)) > 0.97
    assert np.array_equal(apart(vectors), places, equal_nan=True)


def test_items_that_are_embedded_alike_are_not_on_top_of_each_other():
    _, vectors = embeddings()
    vectors[:20] = vectors[0]
    places = layout(vectors)
    away = np.linalg.norm(places[:20, None] - places[None, :20], axis=-1) + np.eye(20)
    assert away.min() > 0.002 and away[away < 1].max() < 0.05


def test_of_very_many_a_sample_is_laid_out_and_the_others_lie_amid_it():
    kinds, vectors = embeddings(items=400)
    places = layout(vectors, most=200, sample=100)
    assert np.isfinite(places).all() and same_kind_nearest(places, kinds) > 0.97
    assert np.array_equal(places, layout(vectors, most=200, sample=100))


@pytest.mark.parametrize("items", [0, 1, 2, 3, 7, 8, 11])
def test_small_collections_have_a_map(items):
    _, vectors = embeddings(items=items)
    places = layout(vectors)
    assert places.shape == (items, 2) and np.isfinite(places).all()


def test_one_number_and_one_vector_for_all_are_enough():
    assert np.isfinite(layout(np.arange(1, 30, dtype=np.int16)[:, None])).all()
    assert np.isfinite(layout(np.ones((30, 4), dtype=np.int16))).all()
    assert np.isnan(layout(np.zeros((3, 4), dtype=np.int16))).all()


def test_a_process_that_can_not_draw_is_told_of():
    with pytest.raises(LayoutFailed, match="status 1"):
        apart(np.zeros(3, dtype=np.int16))
