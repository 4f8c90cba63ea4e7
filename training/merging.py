"""The global merge within a bound: the nearest clusters are compared first (METHOD 5, METHOD 8).

Algorithm 1 asks all pairs, which for the graph of an untrained embedder are tens of thousands. What is asked of each
pair, what an answer does and which pairs are asked anew is the program's own `Merging`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from graphs.merging import Comparison, Merging
from graphs.traversal import Cluster, Rows


class NearestMerging(Merging):
    """Merging that takes the pair whose middles are the most alike, and at most `most` answers."""

    def __init__(
        self,
        rows: Rows,
        clusters: Sequence[Cluster],
        cut: Iterable[tuple[int, int]],
        representatives: int,
        *,
        vectors: Mapping[int, npt.NDArray[np.float32]],
        most: int,
    ) -> None:
        """`vectors` has the (d,) unit row of every member."""
        self._most = most
        self._vectors = vectors
        sums = [np.sum([vectors[v] for v in c.members], axis=0, dtype=np.float64) for c in clusters]
        self._middles = _unit(np.array(sums).reshape(len(clusters), -1))
        self._alike = np.round(self._middles @ self._middles.T, 6)
        self._alike[np.tri(len(clusters), dtype=np.bool_)] = -np.inf
        super().__init__(rows, clusters, cut, representatives)

    @property
    def pairs_left(self) -> int:
        """At most so many questions are still to come."""
        return min(int(np.isfinite(self._alike).sum()), max(0, self._most - self.steps))

    def _unite(self, a: int, b: int) -> None:
        super()._unite(a, b)
        self._middles[a] = _unit(np.sum([self._vectors[v] for v in self._clusters[a].members], axis=0)[None])[0]
        self._alike[b] = self._alike[:, b] = -np.inf
        anew = np.round(self._middles @ self._middles[a], 6)
        for other in self._clusters:
            if other != a:
                self._alike[min(a, other), max(a, other)] = anew[other]

    def _next(self) -> Comparison | None:
        while self._alike.size and self.steps < self._most:
            a, b = divmod(int(self._alike.argmax()), len(self._alike))
            if not np.isfinite(self._alike[a, b]):
                return None
            self._alike[a, b] = -np.inf
            if (asked := self._question(a, b)) is not None:
                return asked
        return None


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
