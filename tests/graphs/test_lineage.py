"""How clusters came about: as the searches really did it, and never a failure whatever the ledger holds."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.conclusions import Conclusion
from graphs.asks import MembershipAsk
from graphs.lineage import APART, lineage
from graphs.merging import Merging
from graphs.relational import build_graph
from graphs.traversal import Traversal
from storage.judged import Judged
from tests.graphs.test_evidence import Truth, begun, collection


def searched(classes=6, items=240, **errors):
    """(rows as a session leaves them, clusters, kinds) of policy evidence."""
    kinds, vectors = collection(items, classes, 1.4, seed=3)
    search, agent, rows = begun(vectors), Truth(kinds, **errors), []
    waiting = deque(search.questions())
    while waiting:
        ask = waiting.popleft()
        said = agent(ask)
        made = [one.to_json(range(items)) for one in search.apply(ask, said)]
        waiting.extend(search.questions())
        if isinstance(ask, MembershipAsk):
            subject = {"representatives": list(ask.representatives), "candidates": list(ask.candidates)}
        else:
            sides = [list(side) for side in ask.representatives]
            subject = {"representatives": sides, "clusters": sides}
        kind = "membership" if isinstance(ask, MembershipAsk) else "merge"
        # Answers are written as they come, which is not quite the order in which they are taken.
        rows.append(Judged(1000 - ask.number, kind, 0, ask.number, subject, " ".join(said), made))
    return rows, search.clusters, kinds


def walked(classes=5, items=90):
    """(rows, clusters) of policy paper: two agents for halves of the items, then the merge agent."""
    kinds, vectors = collection(items, classes, 1.0, seed=5)
    graph = build_graph(vectors.astype(float), beta=None, threshold=None)
    agent, rows, finished, cut = Truth(kinds), [], [], set()
    for component, nodes in enumerate(graph.components()):
        walk = Traversal(graph, nodes, 3)
        while (asked := walk.to_question()) is not None:
            said = agent(MembershipAsk(1, asked.representatives, (asked.candidate,), None))[0]
            subject = {"representatives": list(asked.representatives), "candidates": [asked.candidate]}
            rows.append(Judged(len(rows) + 1, "membership", component, walk.steps, subject, str(said), None))
            walk.answer(said)
        finished += walk.clusters
        cut |= walk.cut
    merging, united = Merging(graph, finished, cut, 3), 0
    while (pair := merging.open) is not None:
        same = len({kinds[v] for side in pair.representatives for v in side}) == 1
        said = Conclusion.YES if same else Conclusion.NO
        sides = [list(side) for side in pair.representatives]
        rows.append(Judged(len(rows) + 1, "merge", None, merging.steps, {"clusters": sides}, str(said), None))
        united += merging.answer(said)
    return rows, [c.members for c in merging.clusters], united


def unions(descents):
    return [union for d in descents for root in d.lines for line in root.lines() for union in line.unions]


def adds_up(descents, clusters):
    for descent, nodes in zip(descents, clusters, strict=True):
        joined = [node for root in descent.lines for line in root.lines() for node in line.joined]
        strays = [node for gone in descent.strays.values() for node in gone]
        assert Counter([*joined, *strays, *descent.unknown]) == Counter(nodes)


@pytest.mark.parametrize("errors", [{}, {"false_yes": 0.04, "false_no": 0.04}])
def test_a_search_is_told_as_it_went(errors):
    rows, clusters, _ = searched(**errors)
    descents = lineage(rows, clusters)
    adds_up(descents, clusters)
    told = [one for row in rows for one in row.decided if one["did"] == "united"]
    found = unions(descents)
    assert len(told) == len(found) > 0
    assert {u.answer for u in found} == {r.id for r in rows if any(o["did"] == "united" for o in r.decided)}
    assert all(u.odds is not None for u in found)
    large = [d for d, nodes in zip(descents, clusters, strict=True) if len(nodes) > 3]
    assert all(len(d.lines) == 1 for d in large)
    placed = sum(root.size for d in descents for root in d.lines)
    assert placed >= 0.97 * sum(map(len, clusters))
    founded = {o["item"] for r in rows for o in r.decided if o["did"] == "founded"}
    for line in (line for d in descents for root in d.lines for line in root.lines()):
        assert (line.answer is not None) == (line.founders[0] in founded)


def test_refusals_are_of_other_clusters_and_the_nearest_come_first():
    rows, clusters, _ = searched()
    for at, descent in enumerate(lineage(rows, clusters)):
        assert len(descent.refusals) <= APART
        assert at not in {r.other for r in descent.refusals}
        assert [r.odds for r in descent.refusals] == sorted((r.odds for r in descent.refusals), reverse=True)
        for refusal in descent.refusals:
            assert set(refusal.shown[0]) <= set(clusters[at])
            assert set(refusal.shown[1]) <= set(clusters[refusal.other])


def test_algorithm_1_has_no_decisions_and_is_told_from_its_answers():
    rows, clusters, united = walked()
    descents = lineage(rows, clusters)
    adds_up(descents, clusters)
    assert len(unions(descents)) == united > 0
    assert all(len(d.lines) <= 1 and not d.strays for d in descents)
    assert sum(len(d.unknown) for d in descents) == sum(
        len(c) for c, d in zip(clusters, descents, strict=True) if not d.lines
    )
    seeds = [line for d in descents for root in d.lines for line in root.lines()]
    assert {line.component for line in seeds} > {0} and all(line.answer is None for line in seeds)


def test_a_session_without_decisions_has_no_union_that_its_end_contradicts():
    rows, clusters, _ = searched()
    bare = [Judged(r.id, r.kind, r.component, r.step, r.subject, r.conclusion, None) for r in rows]
    descents = lineage(bare, clusters)
    adds_up(descents, clusters)
    assert unions(descents) and all(len(d.lines) <= 1 for d in descents if sum(line.size for line in d.lines) > 3)


def test_a_partition_that_people_changed_says_what_came_from_where():
    rows, clusters, _ = searched()
    first, second, third, *rest = (list(c) for c in clusters)
    split = first[-4:]
    changed = [second + third, first[:-4], *rest, split]
    descents = lineage(rows, changed)
    adds_up(descents, changed)
    assert [root.size for root in descents[0].lines] == [len(second), len(third)]
    assert descents[-1].lines == () and set(descents[-1].strays) == {1}


nodes = st.one_of(st.integers(-2, 12), st.none(), st.text(max_size=2), st.booleans())
lists = st.one_of(
    st.lists(nodes, max_size=4), st.none(), st.integers(), st.lists(st.lists(nodes, max_size=3), max_size=3)
)
did = st.sampled_from(["joined", "moved", "founded", "left", "open", "united", "apart", "dissolved", "?", None])
odds = st.one_of(st.floats(), st.none(), st.text(max_size=1))
decision = st.one_of(st.none(), st.integers(), st.fixed_dictionaries({}, optional={
    "item": nodes, "items": lists, "clusters": lists, "did": did, "odds": odds,
}))  # fmt: skip
row = st.builds(
    Judged,
    id=st.integers(1, 99),
    kind=st.sampled_from(["membership", "merge", "describe"]),
    component=st.one_of(st.none(), st.integers(0, 3)),
    step=st.one_of(st.none(), st.integers(0, 50)),
    subject=st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {},
            optional={
                "representatives": lists,
                "candidates": lists,
                "clusters": lists,
            },
        ),
    ),
    conclusion=st.one_of(st.none(), st.sampled_from(["YES", "NO", "UNKNOWN", "YES NO", ""])),
    decided=st.one_of(st.none(), st.integers(), st.lists(decision, max_size=3)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(row, max_size=25), st.lists(st.integers(0, 3), min_size=10, max_size=10))
def test_odd_ledgers_lose_no_node_and_fail_never(rows, homes):
    clusters = [[node for node in range(10) if homes[node] == at] for at in range(4)]
    descents = lineage(rows, clusters)
    adds_up(descents, clusters)
    known = {r.id for r in rows}
    assert all(union.answer in known for union in unions(descents))
    lines = [line for d in descents for root in d.lines for line in root.lines()]
    assert len(lines) == len(set(map(id, lines)))
