"""The global merge of policy ``paper``: Algorithm 1, lines 15 to 18, as a reducer (METHOD 5)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.conclusions import Conclusion
from graphs.traversal import ASKS, Cluster, Rows, edge


@dataclass(frozen=True, slots=True)
class Comparison:
    """Are these two clusters one?"""

    a: int
    b: int
    """Positions of the clusters in the order in which they were finished; a united cluster keeps the first one's."""
    representatives: tuple[tuple[int, ...], tuple[int, ...]]
    attempt: int = 0


class Merging:
    """The state of the merge agent: asks all pairs in order, and starts again after each merge.

    A pair that was judged with the same representatives is not asked again. ``open`` is the next question, or None when
    nothing changes any more; ``clusters`` then is the partition.
    """

    def __init__(
        self,
        rows: Rows,
        clusters: Sequence[Cluster],
        cut: Iterable[tuple[int, int]],
        representatives: int,
    ) -> None:
        """``cut`` are the edges that pruning has taken out of E."""
        self._rows = rows
        self._k = representatives
        self._cut = frozenset(cut)
        self._clusters = {i: Cluster(list(c.members), dict(c.inside)) for i, c in enumerate(clusters)}
        self._home = {v: i for i, c in self._clusters.items() for v in c.members}
        self._shown = {i: c.representatives(representatives) for i, c in self._clusters.items()}
        self._judged: set[frozenset[tuple[int, ...]]] = set()
        self._count = len(clusters)
        self._sweep = (0, 0)
        self._again: list[tuple[int, int]] = []
        self.steps = 0
        """Answers taken so far."""
        self.open: Comparison | None = self._next()

    @property
    def clusters(self) -> list[Cluster]:
        """The clusters as they stand, in order."""
        return [self._clusters[i] for i in sorted(self._clusters)]

    @property
    def pairs_left(self) -> int:
        """At most so many questions are still to come if nothing more is united."""
        a, b = self._sweep
        left = sum(1 for i in self._clusters if i > b) if a in self._clusters else 0
        later = sum(1 for i in self._clusters if i > a)
        return left + later * (later - 1) // 2 + len(self._again)

    def answer(self, conclusion: Conclusion) -> bool:
        """Take the answer to the open question; True when the two were united. UNKNOWN three times counts as NO."""
        assert self.open is not None
        question, self.open = self.open, None
        self.steps += 1
        if conclusion is Conclusion.UNKNOWN and question.attempt + 1 < ASKS:
            self.open = Comparison(question.a, question.b, question.representatives, question.attempt + 1)
            return False
        self._judged.add(frozenset(question.representatives))
        united = conclusion is Conclusion.YES
        if united:
            self._unite(question.a, question.b)
        self.open = self._next()
        return united

    def _unite(self, a: int, b: int) -> None:
        kept, gone = self._clusters[a], self._clusters.pop(b)
        inside = kept.inside | gone.inside
        for v in min(kept.members, gone.members, key=len):
            for u, w in self._rows[v]:
                if u in inside and self._home[u] != self._home[v] and edge(u, v) not in self._cut:
                    inside[u] += w
                    inside[v] += w
        for v in gone.members:
            self._home[v] = a
        self._clusters[a] = Cluster(kept.members + gone.members, inside)
        self._shown[a] = self._clusters[a].representatives(self._k)
        # Starting again finds every pair judged but those of the united cluster: only they are looked at anew.
        for other in self._clusters:
            pair = (min(a, other), max(a, other))
            if other != a and pair <= self._sweep:
                heapq.heappush(self._again, pair)

    def _next(self) -> Comparison | None:
        while self._again:
            a, b = heapq.heappop(self._again)
            if (asked := self._question(a, b)) is not None:
                return asked
        a, b = self._sweep
        while a < self._count:
            b = max(b, a) + 1
            if b >= self._count or a not in self._clusters:
                a, b = a + 1, 0
                continue
            self._sweep = (a, b)
            if (asked := self._question(a, b)) is not None:
                return asked
        self._sweep = (a, b)
        return None

    def _question(self, a: int, b: int) -> Comparison | None:
        if a not in self._clusters or b not in self._clusters:
            return None
        shown = (self._shown[a], self._shown[b])
        return None if frozenset(shown) in self._judged else Comparison(a, b, shown)
