from __future__ import annotations

import math
import warnings

import networkx as nx
import numpy as np
import pytest

from graphs import alike, approximate, relational, threshold
from graphs.alike import STEPS, Pairs
from graphs.relational import WEIGHT_ONE, RelationalGraph, build_graph


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(7)
    return rng.normal(size=(60, 8)).astype(np.float32)


def dense(x, beta, tau):
    """METHOD 3 as it is written, n × n."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    w = 1 / (1 + np.exp(-beta * (unit.astype(np.float64) @ unit.T.astype(np.float64))))
    return {(u, v): w[u, v] for u in range(len(x)) for v in range(u + 1, len(x)) if w[u, v] >= tau}


def tiles(monkeypatch, block):
    monkeypatch.setattr(alike, "BLOCK", block)
    monkeypatch.setattr(alike, "WIDTH", 2 * block)


def edges(graph):
    return {(u, v): w for u in range(len(graph)) for v, w in graph[u] if u < v}


def steps_of(x):
    """n × n cosines in steps."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.rint(unit.astype(np.float64) @ unit.T.astype(np.float64) * STEPS).astype(int)


def best(steps, count, ties):
    """Pairs by the definition of METHOD 5a, from n × n steps."""
    n = len(steps)
    pairs = [(u, v) for u in range(n) for v in range(u + 1, n)]
    least = sorted((steps[p] for p in pairs), reverse=True)[count - 1]
    tied = [[v for v in range(u + 1, n) if steps[u, v] == least][:ties] for u in range(n)]
    return {(u, v) for u, v in pairs if steps[u, v] > least or v in tied[u]}


def classes(seed, items, kinds, noise, width=32):
    rng = np.random.default_rng(seed)
    which = rng.integers(kinds, size=items)
    centres = rng.normal(size=(kinds, width)) / np.sqrt(width)
    return which, (centres[which] + noise * rng.normal(size=(items, width)) / np.sqrt(width)).astype(np.float32)


@pytest.mark.parametrize("block", [7, 1024])
def test_edges_are_those_of_the_equation(embeddings, monkeypatch, block):
    tiles(monkeypatch, block)
    graph = build_graph(embeddings, beta=4.0, threshold=0.6)
    want = dense(embeddings, 4.0, 0.6)
    got = {(u, v): w / WEIGHT_ONE for u in range(len(graph)) for v, w in graph[u] if u < v}
    assert got.keys() == want.keys()
    assert all(math.isclose(got[e], want[e], abs_tol=1e-4) for e in want)


def test_auto_threshold_gives_a_mean_degree_of_fifteen(embeddings):
    graph = build_graph(embeddings, beta=None, threshold=None)
    assert 2 * graph.edges / len(graph) == pytest.approx(15, abs=0.5)
    assert graph.beta == pytest.approx(1 / 0.07)


def test_items_without_an_embedding_are_isolated(embeddings):
    embeddings[3] = 0
    embeddings[5] = np.nan
    graph = build_graph(embeddings, beta=None, threshold=0.01)
    assert graph[3] == graph[5] == []
    assert [3] in graph.components() and [5] in graph.components()


def test_components_and_bytes(embeddings):
    graph = build_graph(embeddings, beta=9.0, threshold=0.97)
    same = RelationalGraph.from_bytes(graph.to_bytes())
    want = sorted((sorted(c) for c in nx.connected_components(graph.to_networkx())), key=lambda c: c[0])
    assert graph.components() == same.components() == want
    assert (same.beta, same.threshold, same.edges) == (9.0, 0.97, graph.edges)


def test_two_equal_items():
    graph = build_graph(np.ones((2, 3), dtype=np.float32), beta=None, threshold=None)
    assert graph.edges == 1


@pytest.mark.parametrize("block", [7, 64, 1024])
@pytest.mark.parametrize("seed", range(4))
def test_equal_embeddings_hang_together_with_few_edges(monkeypatch, block, seed):
    """Descriptions repeat, and so do their embeddings: 600 items with 13 different ones are 13 components."""
    tiles(monkeypatch, block)
    rng = np.random.default_rng(seed)
    which = rng.integers(13, size=600)
    graph = build_graph(rng.normal(size=(13, 384)).astype(np.float32)[which], beta=None, threshold=None)
    groups = sorted((np.flatnonzero(which == k).tolist() for k in range(13)), key=lambda g: g[0])
    assert graph.components() == groups
    assert graph.edges <= 600 * 16


def test_one_description_for_all():
    graph = build_graph(np.ones((500, 8), dtype=np.float32), beta=None, threshold=None)
    assert len(graph.components()) == 1 and graph.edges <= 500 * 8


@pytest.mark.parametrize("block", [7, 50, 1024])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("repeated", [False, True])
def test_best_pairs_are_those_of_the_definition(monkeypatch, block, seed, repeated):
    tiles(monkeypatch, block)
    monkeypatch.setattr(alike, "_SPARE", 10)
    _, x = classes(seed, 150, 5, 0.8)
    if repeated:
        x = x[np.random.default_rng(seed).integers(12, size=150)]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for count in (1, 20, 1000, 150 * 149 // 2):
        found = alike.best_pairs(unit, count, 3)
        assert set(zip(found.u.tolist(), found.v.tolist(), strict=True)) == best(steps_of(x), count, 3)


@pytest.mark.parametrize("block", [7, 1024])
def test_all_pairs_of_a_complete_graph(monkeypatch, block):
    tiles(monkeypatch, block)
    graph = build_graph(classes(0, 90, 3, 0.5)[1], beta=1.0, threshold=0.01)
    assert graph.edges == 90 * 89 // 2
    assert all([v for v, _ in graph[u]] == [v for v in range(90) if v != u] for u in range(90))


def test_weights_that_round_to_nothing_are_edges():
    graph = build_graph(np.array([[1, 0], [-1, 0.1]], dtype=np.float32), beta=100.0, threshold=1e-44)
    assert edges(graph) == {(0, 1): 0}


def test_degrees_are_exact(embeddings):
    embeddings[0] = embeddings[7] = embeddings[59] = 0
    graph = build_graph(embeddings, beta=None, threshold=0.5)
    degrees = graph.degrees()
    assert degrees.dtype == np.int64
    assert degrees.tolist() == [sum(w for _, w in graph[u]) for u in range(60)]
    assert build_graph(np.zeros((3, 2), dtype=np.float32), beta=None, threshold=None).degrees().tolist() == [0, 0, 0]


@pytest.mark.parametrize("items", [0, 1, 2, 3, 5, 17])
def test_small_collections(items):
    x = np.random.default_rng(items).normal(size=(items, 4)).astype(np.float32)
    graph = build_graph(x, beta=None, threshold=None)
    assert len(graph) == items and len(graph.components()) == min(items, 1)
    assert build_graph(x, beta=None, threshold=0.6).edges == len(dense(x, 1 / 0.07, 0.6) if items else {})


def test_a_row_that_is_not_finite_or_not_there_has_no_say_in_the_calibration(embeddings):
    holes = np.insert(embeddings, [0, 9, 60], [[0.0] * 8, [np.inf] + [0.0] * 7, [np.nan] * 8], axis=0)
    graph = build_graph(holes.astype(np.float32), beta=None, threshold=None)
    node = [v for v in range(63) if v not in (0, 10, 62)]
    want = edges(build_graph(embeddings, beta=None, threshold=None))
    assert edges(graph) == {(node[u], node[v]): w for (u, v), w in want.items()}
    assert graph.degrees()[[0, 10, 62]].tolist() == [0, 0, 0]


def test_a_threshold_that_keeps_too_many_edges_is_raised(embeddings, monkeypatch):
    monkeypatch.setattr(relational, "MOST_EDGES", 1000)
    graph = build_graph(embeddings, beta=4.0, threshold=0.01)
    assert graph.edges == 250 and graph.threshold > 0.5
    kept = dense(embeddings, 4.0, graph.threshold - 1e-6)
    assert {(u, v) for u in range(len(graph)) for v, _ in graph[u] if u < v} == kept.keys()
    same = build_graph(np.ones((100, 4), dtype=np.float32), beta=4.0, threshold=0.5)
    assert len(same.components()) == 1 and same.edges < 1000


def nearest_in(steps):
    """``threshold.calibrated``'s nearest, from n × n steps."""

    def find(items, count):
        order = np.lexsort((np.broadcast_to(np.arange(len(steps)), steps.shape), -steps))
        order = np.array([[v for v in row if v != u][:count] for u, row in enumerate(order)])
        return alike.Nearest(order[items], np.take_along_axis(steps, order, axis=1)[items])

    return find


@pytest.mark.parametrize("seed", range(4))
def test_nearest(monkeypatch, seed):
    tiles(monkeypatch, 16)
    _, x = classes(seed, 80, 4, 1.0)
    x = x[np.random.default_rng(seed).integers(60, size=80)]  # some are equal
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    items = np.array([3, 4, 79])
    found, want = alike.nearest(unit, items, 6), nearest_in(steps_of(x))(items, 6)
    assert found.items.tolist() == want.items.tolist() and found.steps.tolist() == want.steps.tolist()


def test_no_item_that_has_an_embedding_is_dust():
    """A dense class and a sparse one: one τ for both leaves the sparse one in pieces."""
    rng = np.random.default_rng(1)
    near = np.r_[np.eye(1, 64), np.zeros((1, 64))] + 0.02 * rng.normal(size=(300, 1, 64))
    far = np.eye(1, 64, 1) + 0.12 * rng.normal(size=(100, 64))
    x = np.concatenate([near[:, 0], far]).astype(np.float32)
    alone = [c for c in nx.connected_components(nx.Graph(list(best(steps_of(x), 3000, 8)))) if max(c) >= 300]
    assert not alone  # none of the sparse class has an edge at τ
    graph = build_graph(x, beta=None, threshold=None)
    assert all(len(c) >= threshold.DUST for c in graph.components())
    for u, v in edges(graph):
        assert (u < 300) == (v < 300)
    assert graph.edges < 300 * 8 + 300 * 8 + 200


def test_dust_is_joined_by_the_most_alike_pair_out_of_it():
    """Seven items in a clique, then a pair and a single one; the pair's best way out is to the single one."""
    steps = np.zeros((10, 10), dtype=int)
    steps[:7, :7] = 90_000
    steps[7, 8] = 80_000
    steps[7, 9], steps[8, 9] = 20_000, 30_000
    steps[9, 3], steps[8, 2], steps[8, 1] = 10_000, 25_000, 25_000
    steps = np.maximum(steps, steps.T)
    u, v = np.nonzero(np.triu(steps >= 80_000, 1))
    given = Pairs(u.astype(np.int32), v.astype(np.int32), steps[u, v].astype(np.int32))
    joined = threshold._Rest(10, nearest_in(steps)).join(given)
    new = set(zip(joined.u.tolist(), joined.v.tolist(), strict=True)) - set(zip(u.tolist(), v.tolist(), strict=True))
    assert new == {(8, 9), (1, 8)}  # of two pairs equally alike the first


def test_one_component_of_everything_is_split_by_a_higher_threshold():
    which, x = classes(1, 400, 25, 1.0, 48)
    first = nx.Graph(list(best(steps_of(x), 15 * 400 // 2, threshold.TIES)))
    assert max(map(len, nx.connected_components(first))) > threshold.MOST * 400
    graph = build_graph(x, beta=None, threshold=None)
    components = graph.components()
    assert max(map(len, components)) <= threshold.MOST * 400
    assert min(map(len, components)) >= threshold.DUST
    assert np.mean([max(np.bincount(which[c])) / len(c) for c in components]) > 0.6


def test_what_no_threshold_splits_stays_at_the_mean_degree():
    x = np.random.default_rng(5).normal(size=(300, 16)).astype(np.float32)
    graph = build_graph(x, beta=None, threshold=None)
    assert len(graph.components()) == 1
    assert graph.edges == pytest.approx(15 * 300 / 2, abs=20)


def test_a_given_threshold_joins_no_dust():
    graph = build_graph(classes(0, 100, 4, 1.0)[1], beta=None, threshold=0.99995)
    assert min(w for w in edges(graph).values()) >= 0.9999 * WEIGHT_ONE
    assert any(len(c) == 1 for c in graph.components())


@pytest.fixture
def large(monkeypatch):
    """Collections of more than 1,000 items go by the index."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's, of Python 3.12 and later
        pytest.importorskip("faiss")
    monkeypatch.setattr(relational, "EXACT", 1000)


@pytest.mark.parametrize("noise", [0.5, 1.2])
def test_the_index_finds_nearly_all(large, monkeypatch, noise):
    _, x = classes(2, 5000, 20, noise, 64)
    found, again = (build_graph(x, beta=None, threshold=None) for _ in range(2))
    given = build_graph(x, beta=None, threshold=found.threshold)
    unit = relational._unit_rows(x)[1]
    some = np.arange(0, 5000, 10)
    near = approximate.Index(unit).nearest(some, 15).items
    monkeypatch.setattr(relational, "EXACT", 5000)
    exact = build_graph(x, beta=None, threshold=None)
    assert found.to_bytes() == again.to_bytes()
    true = alike.nearest(unit, some, 15).items
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(near, true, strict=True)]) > 0.97 * 15
    assert found.edges == pytest.approx(exact.edges, rel=0.02)
    assert found.threshold == pytest.approx(exact.threshold, abs=1e-3)
    assert edges(given).keys() <= edges(build_graph(x, beta=None, threshold=found.threshold)).keys()
    assert len(found.components()) <= 2 * len(exact.components())


def test_the_index_with_equal_embeddings(large):
    x = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)[np.arange(1500) % 9]
    graph = build_graph(x, beta=None, threshold=None)
    assert len(graph) == 1500 and all(len({v % 9 for v in c}) == 1 for c in graph.components())


def test_without_the_library_large_collections_are_related_exactly(monkeypatch):
    x = classes(2, 300, 4, 0.6)[1]
    want = build_graph(x, beta=None, threshold=None)
    monkeypatch.setattr(relational, "EXACT", 100)
    monkeypatch.setattr(approximate, "available", lambda: False)
    assert build_graph(x, beta=None, threshold=None).to_bytes() == want.to_bytes()
