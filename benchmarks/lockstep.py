"""The published listing in lock step (METHOD 4 to 6), over HTTP: what policy ``paper`` is compared with.

All component agents ask at once and wait for the slowest answer; then all go on. Clusters are merged as listing A.8
has it: each asks about the one neighbour with the largest summed edge weight, a NO takes the edges between the two out,
a YES unites them, until no edges are left. Two things are kinder than the published code: a reply without a conclusion
counts as NO and not as YES, and the merge sees the relational graph as it was built (pruning leaves no edge between two
clusters, so nothing could be merged). Of the answers of one round those about a cluster that the round has changed are
dropped, and asked again.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.conclusions import Conclusion, read_conclusions
from agents.prompt_sets import PromptSet
from agents.questions import Question, Sampling, membership, merge
from graphs.relational import build_graph
from graphs.traversal import Traversal
from serving.client import Endpoint
from serving.images import text_part

Rows = Sequence[Sequence[tuple[int, int]]]
K = 3
"""Representatives."""


@dataclass(slots=True)
class Asked:
    """Whom the agents ask, and how often they did."""

    endpoint: Endpoint
    prompts: PromptSet
    most: int
    """Questions after which the search is given up."""
    questions: int = 0
    rounds: int = 0

    async def all(self, questions: list[Question]) -> list[Conclusion]:
        """One round: the answers to all, once the slowest is there."""
        self.rounds += 1
        self.questions += len(questions)
        return list(await asyncio.gather(*(self._one(question) for question in questions)))

    @property
    def spent(self) -> bool:
        """Whether there is nothing left to ask with."""
        return self.questions >= self.most

    async def _one(self, question: Question) -> Conclusion:
        s = Sampling("truth")
        said = await self.endpoint.chat(
            question.messages(text_part), key=question.key(s), max_tokens=s.max_tokens, temperature=s.temperature,
            seed=s.seed,
        )  # fmt: skip
        return read_conclusions(said.text).conclusions[0]


@dataclass(frozen=True, slots=True)
class Listed:
    """What the listing came to."""

    clusters: list[list[int]]
    questions: int
    rounds: int
    seconds: float


async def cluster(
    embeddings: np.ndarray, texts: Sequence[str], prompts: PromptSet, url: str, *, in_flight: int, most: int
) -> Listed:
    """Cluster items by the published listing, with at most `most` questions."""
    graph = build_graph(embeddings, beta=None, threshold=None)
    rows = [graph[v] for v in range(len(graph))]
    walks = [Traversal(rows, nodes, K) for nodes in graph.components()]
    async with Endpoint(url, model="truth", api_key=None, concurrency=in_flight) as endpoint:
        asked = Asked(endpoint, prompts, most)
        began = time.perf_counter()
        await _walk(walks, texts, asked)
        clusters = await _merge(rows, [c.members for w in walks for c in w.begun], texts, asked)
        return Listed(clusters, asked.questions, asked.rounds, time.perf_counter() - began)


async def _walk(walks: list[Traversal], texts: Sequence[str], asked: Asked) -> None:
    while not asked.spent:
        waiting = [walk for walk in walks if walk.to_question() is not None]
        if not waiting:
            return
        questions = []
        for walk in waiting:
            assert walk.open is not None
            shown = [texts[v] for v in walk.open.representatives]
            questions.append(membership(asked.prompts, shown, [texts[walk.open.candidate]], walk.open.attempt))
        for walk, conclusion in zip(waiting, await asked.all(questions), strict=True):
            walk.answer(Conclusion.YES if conclusion is Conclusion.YES else Conclusion.NO)


async def _merge(rows: Rows, found: list[list[int]], texts: Sequence[str], asked: Asked) -> list[list[int]]:
    clusters = dict(enumerate(found))
    between = _weights(rows, found)
    while not asked.spent:
        nearest = {a: max(others, key=lambda b: (others[b], -b)) for a, others in between.items() if others}
        pairs = sorted({(min(a, b), max(a, b)) for a, b in nearest.items()})
        if not pairs:
            break
        shown = {c: [texts[v] for v in _representatives(rows, clusters[c])] for pair in pairs for c in pair}
        answers = await asked.all([merge(asked.prompts, shown[a], shown[b]) for a, b in pairs])
        changed: set[int] = set()
        for (a, b), conclusion in zip(pairs, answers, strict=True):
            if changed & {a, b}:
                continue
            del between[a][b], between[b][a]
            if conclusion is not Conclusion.YES:
                continue
            changed |= {a, b}
            clusters[a] = clusters[a] + clusters.pop(b)
            for c, weight in between.pop(b).items():
                del between[c][b]
                between[a][c] = between[c][a] = between[a].get(c, 0) + weight
    return list(clusters.values())


def _weights(rows: Rows, clusters: list[list[int]]) -> dict[int, dict[int, int]]:
    """Summed weight of the edges between clusters that have any."""
    home = {v: c for c, members in enumerate(clusters) for v in members}
    between: dict[int, dict[int, int]] = {c: {} for c in range(len(clusters))}
    for v, c in home.items():
        for u, weight in rows[v]:
            if (other := home[u]) != c:
                between[c][other] = between[c].get(other, 0) + weight
    return between


def _representatives(rows: Rows, members: list[int]) -> list[int]:
    """The K members of highest weighted degree inside, ascending."""
    inside = set(members)
    degree = {v: sum(w for u, w in rows[v] if u in inside) for v in members}
    return sorted(heapq.nsmallest(K, members, key=lambda v: (-degree[v], v)))
