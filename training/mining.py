"""The pairs of items whose similarity is the least certain, found tile by tile: no n × n matrix (METHOD 8)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BLOCK = 1024
"""Rows and columns of a tile; one of float64 is 8 MiB."""
GRAIN = 1e-9
"""Weights are told apart to this."""

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def hardest(vectors: npt.NDArray[np.float32], beta: float, count: int, *, block: int = BLOCK) -> list[tuple[int, int]]:
    """The `count` pairs i < j whose w = sigmoid(β·cos) has the highest entropy, that is, lies nearest to 0.5.

    The least certain come first; of those that are equal to 1e-9 the ones of smaller i, then j. All pairs are looked
    at, block² of them at a time, so memory grows with block² + count and time with n². Products are float64, so the
    size of the block changes nothing.

    Args:
        vectors: (n, d) unit rows. A row of zeros, or one that is not finite, is an item without an embedding and in no
            pair.
        beta: β of METHOD 2.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    known = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    unit = vectors[known]
    best = _Best(count, beta)
    for i in range(0, len(unit), block):
        rows = unit[i : i + block].astype(np.float64)
        for j in range(i, len(unit), block):
            cosines = rows @ unit[j : j + block].astype(np.float64).T
            if i == j:
                cosines[np.tri(len(rows), dtype=np.bool_)] = np.inf
            best.take(np.abs(cosines), i, j)
    u, v = known[best.u].tolist(), known[best.v].tolist()
    return list(zip(u, v, strict=True))


class _Best:
    """The best pairs so far, in order."""

    def __init__(self, count: int, beta: float) -> None:
        self._count = count
        self._beta = beta
        self._far = np.empty(0, dtype=np.int64)
        self._limit = np.inf if count > 0 else -1.0
        self.u = np.empty(0, dtype=np.int64)
        self.v = np.empty(0, dtype=np.int64)

    def take(self, cosines: Floats, i: int, j: int) -> None:
        """Look at a tile of |cos| whose first row and column are i and j; what is infinite is no pair."""
        hits = np.flatnonzero((cosines <= self._limit) & np.isfinite(cosines))
        if not len(hits):
            return
        far = self._distance(cosines.ravel()[hits])
        u, v = np.divmod(hits, cosines.shape[1])
        far = np.concatenate([self._far, far])
        u, v = np.concatenate([self.u, u + i]), np.concatenate([self.v, v + j])
        if len(far) > 4 * self._count:
            near = np.flatnonzero(far <= np.partition(far, self._count - 1)[self._count - 1])
            far, u, v = far[near], u[near], v[near]
        order = np.lexsort((v, u, far))[: self._count]
        self._far, self.u, self.v = far[order], u[order], v[order]
        if len(order) == self._count:
            self._limit = self._reach(int(self._far[-1]))

    def _distance(self, cosines: Floats) -> Rows:
        """|w − 0.5| in whole grains."""
        return np.rint((1 / (1 + np.exp(-self._beta * cosines)) - 0.5) / GRAIN).astype(np.int64)

    def _reach(self, grains: int) -> float:
        """A |cos| beyond which w is farther from 0.5 than so many grains."""
        w = 0.5 + (grains + 1) * GRAIN
        return math.log(w / (1 - w)) / self._beta if w < 1 else np.inf


def random_pairs(items: int, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """At most `count` different pairs i < j of so many items, drawn evenly."""
    drawn = np.sort(rng.integers(items, size=(2 * count, 2)), axis=1) if items > 1 else np.empty((0, 2), int)
    pairs = dict.fromkeys((int(i), int(j)) for i, j in drawn if i < j)
    return list(pairs)[:count]
