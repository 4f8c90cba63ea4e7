from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from graphs import relational
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


@pytest.mark.parametrize("block", [7, 1024])
def test_edges_are_those_of_the_equation(embeddings, monkeypatch, block):
    monkeypatch.setattr(relational, "_BLOCK", block)
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
    monkeypatch.setattr(relational, "_BLOCK", block)
    rng = np.random.default_rng(seed)
    which = rng.integers(13, size=600)
    graph = build_graph(rng.normal(size=(13, 384)).astype(np.float32)[which], beta=None, threshold=None)
    groups = sorted((np.flatnonzero(which == k).tolist() for k in range(13)), key=lambda g: g[0])
    assert graph.components() == groups
    assert graph.edges <= 600 * 16


def test_one_description_for_all():
    graph = build_graph(np.ones((500, 8), dtype=np.float32), beta=None, threshold=None)
    assert len(graph.components()) == 1 and graph.edges <= 500 * 8
