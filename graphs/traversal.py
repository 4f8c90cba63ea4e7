"""The walk of one component agent: Algorithm 1 of the source, as a reducer (METHOD 4, ARCHITECTURE 10).

``Traversal`` knows no model, no database and no LangGraph. It says which question is next and takes its answer; given
the same graph and answers it always asks the same, so a ledger of answers rebuilds it. Every step costs the degree of
the nodes it touches (times a logarithm), never the size of the graph.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from agents.conclusions import Conclusion

Row = Sequence[tuple[int, int]]
"""(neighbour, weight) of a node."""


class Rows(Protocol):
    """Each node's row: a relational graph, or a dict in a test."""

    def __getitem__(self, node: int, /) -> Row: ...


ASKS = 3
"""How often one question is asked before it stays UNKNOWN (METHOD 5a)."""


class Phase(StrEnum):
    """What a component agent does next; each is a node of the component graph."""

    SEED = "seed"
    CANDIDATE = "candidate"
    ASSESS = "assess"
    FINISH = "finish"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Assessment:
    """Does this candidate belong with these representatives?"""

    representatives: tuple[int, ...]
    """Up to K members of the cluster, ascending."""
    candidate: int
    attempt: int = 0


@dataclass(slots=True)
class Cluster:
    """A set that an agent has grown or is growing."""

    members: list[int]
    """In the order of joining; the seed is first."""
    inside: dict[int, int] = field(default_factory=dict)
    """Weighted degree of each member inside the cluster, over the edges that are left."""

    def representatives(self, k: int) -> tuple[int, ...]:
        """The min(k, size) members of highest weighted degree inside, ascending; ties to the smaller index."""
        return tuple(sorted(heapq.nsmallest(k, self.members, key=lambda v: (-self.inside[v], v))))


def edge(u: int, v: int) -> tuple[int, int]:
    """An undirected edge, the smaller end first."""
    return (u, v) if u < v else (v, u)


class Traversal:
    """The state of one component agent.

    Call what ``phase`` names: ``seed``, ``candidate``, ``answer`` (when a question is open) or ``finish``, until it is
    ``DONE``. ``clusters`` then partitions the component's nodes, in the order in which they were finished.
    """

    def __init__(self, rows: Rows, nodes: Sequence[int], representatives: int) -> None:
        """``rows`` gives each node's neighbours; all neighbours of a component's nodes lie in the component."""
        self._rows = rows
        self._k = representatives
        self.nodes = len(nodes)
        """Nodes of the component."""
        self._unassigned = set(nodes)
        self._degree = {v: sum(w for _, w in rows[v]) for v in nodes}
        self._seeds = [(-d, v) for v, d in self._degree.items()]
        heapq.heapify(self._seeds)
        self.clusters: list[Cluster] = []
        self.cut: set[tuple[int, int]] = set()
        """Edges that pruning has taken out of E."""
        self.steps = 0
        """Answers taken so far."""
        self.open: Assessment | None = None
        self.phase = Phase.SEED
        self._start_cluster()

    def _start_cluster(self) -> None:
        self._cluster = Cluster([])
        self._representatives: tuple[int, ...] = ()
        self._summed: dict[int, int] = {}
        self._frontier: list[tuple[int, int]] = []
        self._put_off: set[int] = set()

    @property
    def size(self) -> int:
        """Members of the cluster that is being grown."""
        return len(self._cluster.members)

    @property
    def begun(self) -> list[Cluster]:
        """The clusters that are finished, and the one that is being grown."""
        return [*self.clusters, self._cluster] if self._cluster.members else list(self.clusters)

    @property
    def assigned(self) -> int:
        """Nodes that have joined a cluster."""
        return self.nodes - len(self._unassigned)

    def to_question(self) -> Assessment | None:
        """Go on to the next question and return it; None when there is none left."""
        while self.phase is not Phase.DONE:
            match self.phase:
                case Phase.SEED:
                    self.seed()
                case Phase.CANDIDATE:
                    self.candidate()
                case Phase.FINISH:
                    self.finish()
                case Phase.ASSESS:
                    return self.open
        return None

    def seed(self) -> int:
        """Start a cluster at the unassigned node of highest weighted degree within the unassigned part."""
        self._expect(Phase.SEED)
        while True:
            claimed, v = heapq.heappop(self._seeds)
            if v not in self._unassigned:
                continue
            if -claimed == self._degree[v]:
                break
            heapq.heappush(self._seeds, (-self._degree[v], v))
        self._join(v)
        self.phase = Phase.CANDIDATE
        return v

    def candidate(self) -> Assessment | None:
        """The unassigned neighbour of highest summed weight to the cluster, or None when there is none left."""
        self._expect(Phase.CANDIDATE)
        while self._frontier:
            claimed, v = self._frontier[0]
            if v not in self._summed or -claimed != self._summed[v] or v in self._put_off:
                heapq.heappop(self._frontier)
                continue
            self.open = Assessment(self._representatives, v)
            self.phase = Phase.ASSESS
            return self.open
        self.phase = Phase.FINISH
        return None

    def answer(self, conclusion: Conclusion) -> Conclusion | None:
        """Take the answer to the open question.

        YES adds the candidate, NO cuts its edges to the cluster. UNKNOWN has the question asked again (None is
        returned and a new question is open); after the last ask the candidate is put off until the cluster has
        changed, and is pruned with the rest when the cluster is finished (METHOD 5a).
        """
        self._expect(Phase.ASSESS)
        assert self.open is not None
        question, self.open = self.open, None
        self.steps += 1
        if conclusion is Conclusion.UNKNOWN and question.attempt + 1 < ASKS:
            self.open = Assessment(question.representatives, question.candidate, question.attempt + 1)
            return None
        self.phase = Phase.CANDIDATE
        match conclusion:
            case Conclusion.YES:
                self._join(question.candidate)
            case Conclusion.NO:
                self._prune(question.candidate)
            case Conclusion.UNKNOWN:
                self._put_off.add(question.candidate)
        return conclusion

    def finish(self) -> Cluster:
        """Close the cluster; its nodes leave the component."""
        self._expect(Phase.FINISH)
        for v in sorted(self._put_off):
            self._prune(v)
        finished = self._cluster
        self.clusters.append(finished)
        self._start_cluster()
        self.phase = Phase.SEED if self._unassigned else Phase.DONE
        return finished

    def _expect(self, phase: Phase) -> None:
        if self.phase is not phase:
            raise RuntimeError(f"a component agent in phase {self.phase} was asked to {phase}")

    def _join(self, v: int) -> None:
        cluster = self._cluster
        self._unassigned.discard(v)
        self._summed.pop(v, None)
        cluster.members.append(v)
        cluster.inside[v] = 0
        changed = {v}
        for u, w in self._rows[v]:
            if u in self._unassigned:
                self._degree[u] -= w
                self._summed[u] = self._summed.get(u, 0) + w
                heapq.heappush(self._frontier, (-self._summed[u], u))
            elif u in cluster.inside and edge(u, v) not in self.cut:
                cluster.inside[u] += w
                cluster.inside[v] += w
                changed.add(u)
        self._representatives = tuple(
            sorted(
                heapq.nsmallest(self._k, changed | set(self._representatives), key=lambda m: (-cluster.inside[m], m))
            )
        )  # degrees inside only grow, so no other member can have become a representative
        for u in self._put_off:
            heapq.heappush(self._frontier, (-self._summed[u], u))
        self._put_off.clear()

    def _prune(self, v: int) -> None:
        del self._summed[v]
        self.cut.update(edge(u, v) for u, _ in self._rows[v] if u in self._cluster.inside)
