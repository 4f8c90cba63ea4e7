"""Policies ``evidence`` and ``paper`` against agents that err, without HTTP.

    python -m benchmarks.evidence                          # every world, policy evidence, three seeds; prints a table
    python -m benchmarks.evidence --worlds bars --rivals   # paper, K-means and HDBSCAN beside it
    python -m benchmarks.evidence --in-flight 32           # how busy a window of questions keeps 32 calls

A question is one candidate judged or one pair of clusters compared. The agent gives the same answer to the same
question, wrong ones too; representatives stand for the class of most of them, and hard items are misjudged half of the
time. Embeddings are a class's centre in 64 dimensions and noise; strays lie at a random class's centre.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import normalized_mutual_info_score

from agents.conclusions import Conclusion
from graphs.asks import Ask, ComparisonAsk, EvidenceSettings
from graphs.evidence import EvidenceSearch
from graphs.likeness import whole_vectors
from graphs.merging import Merging
from graphs.relational import build_graph
from graphs.scheduling import window_for
from graphs.traversal import Traversal


@dataclass(frozen=True)
class World:
    """A collection and an agent."""

    error: float = 0.0
    items: int = 1500
    classes: int = 13
    shape: str = "even"
    noise: float = 1.2
    stray: float = 0.05
    hard: float = 0.0
    false_yes: float | None = None
    false_no: float | None = None

    def collection(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(kinds, embeddings)."""
        rng = np.random.default_rng(seed)
        c = self.classes
        weights = {"even": np.ones(c), "zipf": 1 / np.arange(1, c + 1), "majority": np.r_[2 * c, np.ones(c - 1)]}
        share = weights[self.shape] / weights[self.shape].sum()
        kinds = rng.choice(c, size=self.items, p=share)
        centres = rng.normal(size=(c, 64))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        shown = np.where(rng.random(self.items) < self.stray, rng.integers(0, c, self.items), kinds)
        return kinds, (centres[shown] + self.noise * rng.normal(size=(self.items, 64)) / 8).astype(np.float32)


BAR = World()
BARS = {f"error {e:.0%}": replace(BAR, error=e) for e in (0.0, 0.03, 0.05)}
WORLDS = BARS | {
    "error 1%": replace(BAR, error=0.01),
    "error 10%": replace(BAR, error=0.1),
    "false yes 8%, no 1%": replace(BAR, false_yes=0.08, false_no=0.01),
    "false yes 1%, no 8%": replace(BAR, false_yes=0.01, false_no=0.08),
    "3%, hard 2%": replace(BAR, error=0.03, hard=0.02),
    "3%, hard 5%": replace(BAR, error=0.03, hard=0.05),
    "3%, zipf": replace(BAR, error=0.03, shape="zipf"),
    "0%, majority": replace(BAR, shape="majority"),
    "3%, majority": replace(BAR, error=0.03, shape="majority"),
    "3%, 2 classes": replace(BAR, error=0.03, classes=2),
    "3%, 2, majority": replace(BAR, error=0.03, classes=2, shape="majority"),
    "3%, 4 classes": replace(BAR, error=0.03, classes=4),
    "3%, 40 classes": replace(BAR, error=0.03, classes=40),
    "0%, 100 classes": replace(BAR, classes=100),
    "3%, 100 classes": replace(BAR, error=0.03, classes=100),
    "3%, 100, zipf": replace(BAR, error=0.03, classes=100, shape="zipf"),
    "3%, 100 items, 5": replace(BAR, error=0.03, items=100, classes=5),
    "3%, 300 items": replace(BAR, error=0.03, items=300),
    "3%, 600 items": replace(BAR, error=0.03, items=600),
    "3%, 5000 items, 20": replace(BAR, error=0.03, items=5000, classes=20),
    "3%, perfect": replace(BAR, error=0.03, noise=0.4, stray=0.0),
    "3%, noise 2": replace(BAR, error=0.03, noise=2.0),
    "3%, noise 3": replace(BAR, error=0.03, noise=3.0),
    "3%, strays 20%": replace(BAR, error=0.03, stray=0.2),
    "0%, useless": replace(BAR, items=600, noise=50.0),
    "3%, useless": replace(BAR, error=0.03, items=600, noise=50.0),
    "3%, useless, 4": replace(BAR, error=0.03, items=600, classes=4, noise=50.0),
}


class Agent:
    """Answers by the truth, wrong as often as the world says."""

    def __init__(self, world: World, kinds: np.ndarray, seed: int) -> None:
        self._kinds = kinds.tolist()
        self._seed = seed
        self._hard = np.random.default_rng([seed, 1]).random(len(kinds)) < world.hard
        self._false_yes = world.error if world.false_yes is None else world.false_yes
        self._false_no = world.error if world.false_no is None else world.false_no
        self.questions = 0

    def membership(self, representatives: tuple[int, ...], candidate: int) -> Conclusion:
        same = self._label(representatives) == self._kinds[candidate]
        return self._answer(same, (sorted(representatives), candidate), bool(self._hard[candidate]))

    def comparison(self, a: tuple[int, ...], b: tuple[int, ...]) -> Conclusion:
        return self._answer(self._label(a) == self._label(b), sorted([sorted(a), sorted(b)]), False)

    def _label(self, nodes: tuple[int, ...]) -> int:
        kinds = [self._kinds[v] for v in nodes]
        return max(sorted(set(kinds)), key=kinds.count)

    def _answer(self, same: bool, question: object, hard: bool) -> Conclusion:
        self.questions += 1
        drawn = hashlib.blake2b(repr((self._seed, question)).encode(), digest_size=6).digest()
        rate = 0.5 if hard else self._false_no if same else self._false_yes
        wrong = int.from_bytes(drawn, "big") / 2**48 < rate
        return Conclusion.YES if same ^ wrong else Conclusion.NO


def answer(agent: Agent, ask: Ask) -> list[Conclusion]:
    """The agent's answer to an ask of the search."""
    if isinstance(ask, ComparisonAsk):
        return [agent.comparison(*ask.representatives)]
    return [agent.membership(ask.representatives, x) for x in ask.candidates]


def search_of(embeddings: np.ndarray, options: EvidenceSettings) -> EvidenceSearch:
    """The search as a session begins it."""
    graph = build_graph(embeddings, beta=None, threshold=None)
    return EvidenceSearch(whole_vectors(embeddings), graph.degrees(), options)


def labels(clusters: list[list[int]], items: int) -> np.ndarray:
    out = np.zeros(items, dtype=int)
    for i, members in enumerate(clusters):
        out[members] = i
    return out


def evidence(embeddings: np.ndarray, agent: Agent, options: EvidenceSettings) -> np.ndarray:
    """Clusters by policy ``evidence``."""
    search = search_of(embeddings, options)
    waiting = deque(search.questions())
    while waiting:
        ask = waiting.popleft()
        search.apply(ask, answer(agent, ask))
        waiting.extend(search.questions())
    return labels(search.clusters, len(embeddings))


def paper(embeddings: np.ndarray, agent: Agent) -> np.ndarray:
    """Clusters by Algorithm 1."""
    graph = build_graph(embeddings, beta=None, threshold=None)
    rows = [graph[v] for v in range(len(graph))]
    walks = [Traversal(rows, nodes, 3) for nodes in graph.components()]
    for walk in walks:
        while (asked := walk.to_question()) is not None:
            walk.answer(agent.membership(asked.representatives, asked.candidate))
    merging = Merging(rows, [c for w in walks for c in w.clusters], (e for w in walks for e in w.cut), 3)
    while merging.open is not None and agent.questions < 30 * len(embeddings):
        merging.answer(agent.comparison(*merging.open.representatives))
    return labels([c.members for c in merging.clusters], len(embeddings))


def k_means(embeddings: np.ndarray, classes: int) -> np.ndarray:
    """Clusters by K-means, which is told their number."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return KMeans(classes, n_init=5, random_state=0).fit_predict(unit)


def density(embeddings: np.ndarray) -> np.ndarray:
    """Clusters by HDBSCAN; what it calls noise is one more cluster."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return HDBSCAN(min_cluster_size=10, copy=True).fit_predict(unit)


def in_flight(world: World, seed: int, calls: int, options: EvidenceSettings) -> float:
    """Wall time over (sum of answer times / calls); an answer takes between half and one and a half of the mean."""
    kinds, embeddings = world.collection(seed)
    agent, search = Agent(world, kinds, seed), search_of(embeddings, options)
    rng = np.random.default_rng(seed)
    order, sent, applied, back, arrived, now, busy = [], 0, 0, [], {}, 0.0, 0.0
    while not search.done:
        order += search.questions()
        while sent < len(order) and len(back) < calls:
            took = 0.5 + rng.random()
            busy += took
            heapq.heappush(back, (now + took, order[sent].number))
            sent += 1
        now, number = heapq.heappop(back)
        arrived[number] = answer(agent, order[number - 1])
        while applied < len(order) and order[applied].number in arrived:
            search.apply(order[applied], arrived.pop(order[applied].number))
            applied += 1
    return now / (busy / calls)


def settings_for(world: World, window: int, doubt: float) -> EvidenceSettings:
    """The search's settings for a world."""
    return EvidenceSettings(window=window or window_for(world.items, 32), doubt=doubt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="", help="'bars', or a part of the names of the worlds")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--rivals", action="store_true", help="paper, K-means and HDBSCAN too")
    parser.add_argument("--window", type=int, default=0, help="0: as a session with 32 calls in flight chooses it")
    parser.add_argument("--doubt", type=float, default=EvidenceSettings().doubt)
    parser.add_argument("--in-flight", type=int, default=0, metavar="CALLS")
    a = parser.parse_args()
    seeds = [int(s) for s in a.seeds.split(",")]
    worlds = BARS if a.worlds == "bars" else {n: w for n, w in WORLDS.items() if a.worlds in n}
    if a.in_flight:
        for name, world in worlds.items():
            options = settings_for(world, a.window, a.doubt)
            times = [in_flight(world, s, a.in_flight, options) for s in seeds]
            print(f"{name:20s} wall time / (answer times / {a.in_flight}): {' '.join(f'{t:.3f}' for t in times)}")
        return
    print("| world | policy | NMI, mean (least) | questions per item, mean (most) | clusters | ms per answer |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, world in worlds.items():
        for policy, run in policies(world, settings_for(world, a.window, a.doubt), a.rivals):
            scores, spent, found, took = [], [], [], []
            for seed in seeds:
                kinds, embeddings = world.collection(seed)
                agent, began = Agent(world, kinds, seed), time.process_time()
                label = run(embeddings, agent)
                took.append(1000 * (time.process_time() - began) / max(agent.questions, 1))
                scores.append(normalized_mutual_info_score(kinds, label))
                spent.append(agent.questions / len(kinds))
                found.append(f"{len(set(label.tolist()))}/{len(set(kinds.tolist()))}")
            print(
                f"| {name} | {policy} | {np.mean(scores):.4f} ({min(scores):.4f}) | {np.mean(spent):.2f} "
                f"({max(spent):.2f}) | {' '.join(found)} | {np.mean(took):.2f} |",
                flush=True,
            )


def policies(
    world: World, options: EvidenceSettings, rivals: bool
) -> Iterator[tuple[str, Callable[[np.ndarray, Agent], np.ndarray]]]:
    """The clusterers to run, by name."""
    yield "evidence", partial(evidence, options=options)
    if rivals:
        yield "paper", paper
        yield "K-means, number given", lambda embeddings, _: k_means(embeddings, world.classes)
        yield "HDBSCAN", lambda embeddings, _: density(embeddings)


if __name__ == "__main__":
    main()
