"""Policy ``evidence`` as a reducer: right when the agent is, the same for the same answers, and always at an end."""

from __future__ import annotations

import hashlib
import random
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from agents.conclusions import Conclusion
from graphs.asks import ComparisonAsk, EvidenceSettings, MembershipAsk
from graphs.evidence import EvidenceSearch
from graphs.likeness import whole_vectors
from graphs.odds import Calibration, Rates, learned_rates, posterior
from graphs.relational import build_graph

YES, NO, UNKNOWN = Conclusion.YES, Conclusion.NO, Conclusion.UNKNOWN


class Truth:
    """Answers by the classes; wrong or UNKNOWN with fixed chances, always the same to the same question."""

    def __init__(self, kinds, false_yes=0.0, false_no=0.0, unknown=0.0, seed=0):
        self.kinds, self.false_yes, self.false_no, self.unknown, self.seed = kinds, false_yes, false_no, unknown, seed
        self.asked = []

    def __call__(self, ask) -> list[Conclusion]:
        if isinstance(ask, MembershipAsk):
            shown = self.label(ask.representatives)
            return [self.answer((ask.representatives, x), shown == self.kinds[x]) for x in ask.candidates]
        question = tuple(sorted(ask.representatives))
        return [self.answer(question, self.label(question[0]) == self.label(question[1]))]

    def answer(self, question, same) -> Conclusion:
        self.asked.append(question)
        if self.chance("unknown", question) < self.unknown:
            return UNKNOWN
        wrong = self.chance("wrong", question) < (self.false_no if same else self.false_yes)
        return YES if same ^ wrong else NO

    def chance(self, *what) -> float:
        return int.from_bytes(hashlib.sha256(repr((self.seed, what)).encode()).digest()[:6]) / 2**48

    def label(self, nodes):
        kinds = [self.kinds[v] for v in nodes]
        return max(sorted(set(kinds)), key=kinds.count)


def collection(items, classes, noise, seed=0, stray=0.0, width=16):
    """(kinds, vectors) of items around random centres; strays lie at another class's centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    kinds = rng.integers(0, classes, items)
    shown = np.where(rng.random(items) < stray, rng.integers(0, classes, items), kinds)
    return kinds.tolist(), whole_vectors(centres[shown] + noise * rng.normal(size=(items, width)) / width**0.5)


def begun(vectors, options=None):
    """A search at its start, on the graph that a session would make of the vectors."""
    graph = build_graph(vectors.astype(np.float32), beta=None, threshold=None)
    return EvidenceSearch(vectors, graph.degrees(), options)


def run(vectors, agent, options=None):
    """The finished search and its asks; answers come as soon as they are asked for."""
    search, asks = begun(vectors, options), []
    waiting = deque(search.questions())
    while waiting:
        ask = waiting.popleft()
        asks.append(ask)
        search.apply(ask, agent(ask))
        waiting.extend(search.questions())
    assert search.done
    return search, asks


def asked(ask):
    return (type(ask), ask.representatives, getattr(ask, "candidates", ()))


def score(search, kinds):
    label = np.zeros(len(kinds), dtype=int)
    for i, members in enumerate(search.clusters):
        label[members] = i
    return round(normalized_mutual_info_score(kinds, label), 9)


def worlds(items=st.integers(1, 60), classes=st.integers(1, 6)):  # noqa: B008 - strategies are values
    return st.builds(
        collection,
        items=items, classes=classes, noise=st.sampled_from([0.2, 1.0, 30.0]),
        seed=st.integers(0, 10**6), stray=st.sampled_from([0.0, 0.1]),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(worlds(st.integers(40, 80), st.integers(1, 5)), st.integers(1, 40))
def test_a_perfect_agent_gives_the_classes(world, window):
    """Whatever the embeddings; of a class of two or three there are too few other representatives to be sure."""
    kinds, vectors = world
    search, _ = run(vectors, Truth(kinds), EvidenceSettings(window=window))
    classes = {frozenset(v for v, k in enumerate(kinds) if k == kind) for kind in set(kinds)}
    assert {frozenset(c) for c in search.clusters} == classes


@settings(max_examples=60, deadline=None)
@given(worlds(), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1), st.integers(1, 40), st.integers(1, 4))
def test_whatever_is_answered(world, false_yes, false_no, unknown, window, k):
    """It ends, every item stands in one cluster, no question is too wide and none is asked twice."""
    kinds, vectors = world
    agent = Truth(kinds, false_yes, false_no, unknown)
    search, asks = run(vectors, agent, EvidenceSettings(window=window, representatives=k))
    assert sorted(v for c in search.clusters for v in c) == list(range(len(kinds)))
    assert [a.number for a in asks] == list(range(1, len(asks) + 1))
    assert len(set(map(asked, asks))) == len(asks)
    for ask in asks:
        sides = [ask.representatives] if isinstance(ask, MembershipAsk) else ask.representatives
        shown = [v for side in sides for v in side]
        assert all(1 <= len(side) <= k and list(side) == sorted(set(side)) for side in sides)
        assert len(set(shown)) == len(shown)
        assert not isinstance(ask, MembershipAsk) or not set(ask.candidates) & set(shown)
    assert ((search.confidence >= 0) & (search.confidence <= 1)).all()


@settings(max_examples=30, deadline=None)
@given(worlds(), st.integers(0, 10**6))
def test_timing_and_replay_change_nothing(world, seed):
    """Answers that arrive in any order, and are applied in the order of asking, lead to the same questions."""
    kinds, vectors = world
    first, asks = run(vectors, Truth(kinds, 0.1, 0.1, 0.05))
    agent, rng = Truth(kinds, 0.1, 0.1, 0.05), random.Random(seed)
    search, order, arrived, applied = begun(vectors), [], {}, 0
    while not search.done:
        order += search.questions()
        late = [a for a in order if a.number not in arrived]
        for ask in rng.sample(late, rng.randint(1, len(late))) if late else []:
            arrived[ask.number] = agent(ask)
        while applied < len(order) and order[applied].number in arrived:
            search.apply(order[applied], arrived[order[applied].number])
            applied += 1
    assert [asked(a) for a in order] == [asked(a) for a in asks]
    assert search.clusters == first.clusters
    assert (search.confidence == first.confidence).all()


def test_answers_are_applied_in_the_order_of_asking():
    _, vectors = collection(40, 3, 0.5)
    search = begun(vectors)
    one, two = search.questions()[:2]
    with pytest.raises(ValueError, match="order of asking"):
        search.apply(two, [YES])
    search.apply(one, [YES])
    with pytest.raises(ValueError, match="order of asking"):
        search.apply(one, [YES])


def test_the_window_is_full_from_the_start_and_several_clusters_grow():
    kinds, vectors = collection(400, 6, 0.8)
    agent, options = Truth(kinds), EvidenceSettings(window=32)
    search = begun(vectors, options)
    waiting = deque(search.questions())
    assert len(waiting) == 32
    assert len({a.group.name for a in waiting}) >= 4
    lean = 0
    while waiting:
        ask = waiting.popleft()
        search.apply(ask, agent(ask))
        waiting.extend(search.questions())
        lean += len(waiting) < 32
    assert lean < 60  # only the end of the search has too little to ask


def test_nothing_is_learned_from_unknown():
    kinds, vectors = collection(120, 4, 0.5)
    search, asks = run(vectors, lambda ask: [UNKNOWN] * len(getattr(ask, "candidates", "1")))
    assert search.rates[0] == begun(vectors).rates[0]
    assert len(asks) <= 3 * 120 + 3 * 12 * 11 / 2
    one = Truth(kinds, unknown=0.3)
    assert score(run(vectors, one)[0], kinds) == 1


@pytest.mark.parametrize(
    ("false_yes", "false_no"), [(0.0, 0.0), (0.05, 0.05), (0.12, 0.01), (0.01, 0.12)], ids=lambda p: f"{p:g}"
)
def test_it_learns_how_often_the_agent_errs(false_yes, false_no):
    kinds, vectors = collection(600, 5, 6.0)  # embeddings that say little: many questions of either kind
    search, _ = run(vectors, Truth(kinds, false_yes, false_no))
    assert search.rates[0].false_yes == pytest.approx(false_yes, abs=0.02 + false_yes / 3)
    assert search.rates[0].false_no == pytest.approx(false_no, abs=0.02 + false_no / 3)


@pytest.mark.parametrize(
    ("error", "nmi", "per_item", "found"), [(0, 0.998, 1.6, {13}), (0.03, 0.98, 2.0, {12, 13, 14, 15})]
)
def test_what_the_issue_asks_for(error, nmi, per_item, found):
    kinds, vectors = collection(1500, 13, 1.2, seed=5, stray=0.05, width=64)
    search, asks = run(vectors, Truth(kinds, error, error))
    assert score(search, kinds) >= nmi
    assert len(asks) / 1500 <= per_item
    assert len(search.clusters) in found


def test_confidence_tells_right_from_wrong():
    kinds, vectors = collection(600, 6, 1.2, stray=0.1, width=32)
    search, _ = run(vectors, Truth(kinds, 0.08, 0.08))
    wrong = np.zeros(600, dtype=bool)
    for members in search.clusters:
        own = np.bincount([kinds[v] for v in members]).argmax()
        wrong[[v for v in members if kinds[v] != own]] = True
    assert search.confidence[~wrong].mean() > 0.97
    if wrong.any():
        assert search.confidence[wrong].mean() < search.confidence[~wrong].mean()


def test_items_without_embeddings_find_their_class():
    rng = np.random.default_rng(0)
    kinds = [v % 3 for v in range(90)]
    embeddings = np.eye(8)[kinds] + 0.2 * rng.normal(size=(90, 8))
    embeddings[5], embeddings[6, 2] = 0, np.nan
    vectors = whole_vectors(embeddings)
    assert not vectors[[5, 6]].any()
    assert score(run(vectors, Truth(kinds))[0], kinds) == 1


@pytest.mark.parametrize("batch", [2, 4, 16])
def test_several_candidates_in_one_ask(batch):
    kinds, vectors = collection(300, 4, 0.5, stray=0.05)
    search, asks = run(vectors, Truth(kinds), EvidenceSettings(batch=batch))
    assert score(search, kinds) == 1
    memberships = [a for a in asks if isinstance(a, MembershipAsk)]
    assert all(1 <= len(set(a.candidates)) == len(a.candidates) <= batch for a in memberships)
    assert len(memberships) < 2 * sum(len(a.candidates) for a in memberships) / min(batch, 6)


def test_decisions_say_what_was_decided():
    """Every ask is answered by its own decisions first; who joined, moved and was united can be read from them."""
    kinds, vectors = collection(200, 4, 1.2, stray=0.1)
    agent, search = Truth(kinds, 0.05, 0.05), begun(vectors, EvidenceSettings(batch=3))
    waiting, did = deque(search.questions()), []
    while waiting:
        ask = waiting.popleft()
        decisions = search.apply(ask, agent(ask))
        if isinstance(ask, MembershipAsk):
            assert [d.item for d in decisions[: len(ask.candidates)]] == list(ask.candidates)
        else:
            assert decisions[0].clusters == ask.representatives
        did += decisions
        waiting.extend(search.questions())
    assert {d.did for d in did} <= {"joined", "moved", "founded", "left", "open", "united", "apart", "dissolved"}
    settled = {d.item for d in did if d.did in ("joined", "moved", "founded")}
    assert len(settled) > 0.9 * len(kinds)
    assert any(d.did == "united" and d.odds >= d.bound > 2.5 for d in did)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.floats(0, 0.3), st.integers(1, 40))
def test_no_union_goes_untold(world, error, window):
    kinds, vectors = world
    agent, search = Truth(kinds, error, error), begun(vectors, EvidenceSettings(window=window))
    waiting, united = deque(search.questions()), 0
    while waiting:
        ask = waiting.popleft()
        united += sum(d.did == "united" for d in search.apply(ask, agent(ask)))
        waiting.extend(search.questions())
    assert united == sum(group.into is not None for group in search._named.values())


def test_doubtful_items_come_before_sure_ones_once_the_middles_are_known():
    """A budget that ends early has been spent where it changes most (the issue of a partition so far)."""
    kinds, vectors = collection(600, 6, 1.2, stray=0.08)
    search = begun(vectors)
    waiting, agent, before = deque(search.questions()), Truth(kinds), None
    while waiting:
        ask = waiting.popleft()
        search.apply(ask, agent(ask))
        waiting.extend(search.questions())
        if before is None and search.answers >= 200:
            before = score(search, kinds)
        if search.answers >= 600:
            break
    assert score(search, kinds) > before + 0.02


def test_no_items_and_one_item():
    assert EvidenceSearch(np.zeros((0, 4), dtype=np.int16), np.zeros(0, dtype=np.int64)).clusters == []
    search, asks = run(np.ones((1, 4), dtype=np.int16), Truth([0]))
    assert search.clusters == [[0]] and asks == []


def test_bayes_rule():
    prior = np.array([[0.1, 0.6, 0.3]])
    yes, no = np.array([[0, 1, 0]], dtype=np.int16), np.array([[0, 0, 2]], dtype=np.int16)
    rates = Rates(false_yes=0.1, false_no=0.2, hard=0.25)
    after = posterior(prior, yes, no, rates)
    likely = np.array([0.1 * 0.9**2, 0.8 * 0.9**2, 0.1 * 0.2**2])
    easy, hard = 0.75 * (prior[0] * likely), 0.25 * prior[0] / 8
    assert after.belief[0] == pytest.approx((easy + hard) / (easy + hard).sum())
    assert after.hard[0] == pytest.approx(hard.sum() / (easy + hard).sum())
    assert after.evidence[0] == pytest.approx(np.log((easy + hard).sum()))


def test_a_missing_class_is_not_taken_for_an_agent_that_refuses():
    """Half of the items are refused at the only cluster there is: that is no error rate of one half."""
    yes, no = np.zeros((200, 2), dtype=np.int16), np.zeros((200, 2), dtype=np.int16)
    yes[:100, 1], no[100:, 1] = 1, 1
    prior = np.tile([0.02, 0.98], (200, 1))
    rates = Rates()
    for _ in range(20):
        rates = learned_rates(posterior(prior, yes, no, rates), yes, no, np.ones((200, 2)))
    assert rates.false_no <= 0.1


def test_likeness_that_is_not_trusted_leaves_the_shares():
    likeness = np.array([[0.0, 9.0, -9.0]])
    share = np.array([0.1, 0.2, 0.7])
    assert Calibration(0.0, 0.3).prior(likeness, share)[0] == pytest.approx(share)
    assert Calibration(1.0, 0.0).prior(likeness, share)[0, 1] > 0.99


def test_comparisons_show_two_clusters():
    kinds, vectors = collection(300, 3, 1.0)
    _, asks = run(vectors, Truth(kinds))
    compared = [a for a in asks if isinstance(a, ComparisonAsk)]
    assert compared
    assert all(a.groups[0] is not a.groups[1] for a in compared)
