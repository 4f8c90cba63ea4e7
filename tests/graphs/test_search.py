"""The reducers against the plain reference: same questions in the same order, same partition (METHOD 4 and 5)."""

from __future__ import annotations

import hashlib

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.conclusions import Conclusion
from graphs.merging import Merging
from graphs.traversal import Phase, Traversal
from tests.graphs.reference import component_agent, merge_agent


@st.composite
def graphs(draw):
    n = draw(st.integers(1, 14))
    weights = draw(st.lists(st.integers(0, 6), min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2))
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    pairs = [(u, v) for u in range(n) for v in range(u + 1, n)]
    # few distinct weights, so that ties are common; weight 0..2 is no edge
    graph.add_weighted_edges_from((u, v, w * 10**8) for (u, v), w in zip(pairs, weights, strict=True) if w > 2)
    return graph


def answers(salt: int, unknown: int):
    """A fixed random answer for every question, ``unknown`` in 100 of them UNKNOWN."""

    def answer(question: object) -> str:
        u = hashlib.sha256(repr((salt, question)).encode()).digest()
        return "UNKNOWN" if u[0] % 100 < unknown else ("YES" if u[1] % 2 else "NO")

    return answer


def rows_of(graph):
    return {u: [(v, graph[u][v]["weight"]) for v in graph[u]] for u in graph}


def walk_component(walk: Traversal, answer) -> list:
    asked = []
    while walk.phase is not Phase.DONE:
        match walk.phase:
            case Phase.SEED:
                walk.seed()
            case Phase.CANDIDATE:
                walk.candidate()
            case Phase.FINISH:
                walk.finish()
            case Phase.ASSESS:
                q = (walk.open.representatives, walk.open.candidate, walk.open.attempt)
                asked.append(q)
                walk.answer(Conclusion(answer(q)))
    return asked


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, 10**6), st.sampled_from([0, 30, 100]), st.integers(1, 4))
def test_search_is_algorithm_1(graph, salt, unknown, k):
    answer, rows = answers(salt, unknown), rows_of(graph)
    components = sorted((sorted(c) for c in nx.connected_components(graph)), key=lambda c: c[0])
    plain = graph.copy()
    walks, finished = [], []
    for nodes in components:
        clusters, questions = component_agent(plain, nodes, k, answer)
        walk = Traversal(rows, nodes, k)
        assert walk_component(walk, answer) == questions
        assert [c.members for c in walk.clusters] == clusters
        walks.append(walk)
        finished += clusters
    assert {tuple(sorted(e)) for e in graph.edges} - {tuple(sorted(e)) for e in plain.edges} == set().union(
        *(w.cut for w in walks)
    )

    expected, questions = merge_agent(plain, finished, k, answer)
    merging = Merging(rows, [c for w in walks for c in w.clusters], [e for w in walks for e in w.cut], k)
    asked = []
    while (q := merging.open) is not None:
        asked.append((*q.representatives, q.attempt))
        merging.answer(Conclusion(answer(asked[-1])))
    assert asked == questions
    assert [sorted(c.members) for c in merging.clusters] == [sorted(c) for c in expected]
    assert merging.pairs_left == 0


def test_an_agent_that_never_errs_finds_the_classes():
    truth = [0, 0, 0, 1, 1, 1, 2, 2]
    graph = nx.complete_graph(8)
    nx.set_edge_attributes(graph, 10**9, "weight")
    walk = Traversal(rows_of(graph), range(8), 3)
    walk_component(walk, lambda q: "YES" if truth[q[0][0]] == truth[q[1]] else "NO")
    assert [sorted(c.members) for c in walk.clusters] == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_steps_out_of_order_are_refused():
    walk = Traversal({0: [], 1: []}, [0, 1], 3)
    with pytest.raises(RuntimeError, match="phase"):
        walk.finish()


def test_a_step_touches_only_the_rows_of_the_node_that_joins():
    """Cost per step grows with a node's degree and not with the graph: a long path, rows counted."""
    n, touched = 2000, []

    class Rows(dict):
        def __getitem__(self, v):
            touched.append(v)
            return super().__getitem__(v)

    rows = Rows({v: [(u, 10) for u in (v - 1, v + 1) if 0 <= u < n] for v in range(n)})
    walk = Traversal(rows, range(n), 3)
    touched.clear()
    walk_component(walk, lambda q: "YES")
    assert len(touched) == n
