"""The relational graph of METHOD 3: which items look alike under the criterion.

Built block by block, so memory grows with the edges kept and never with n². Weights are stored as integers, billionths
of one, so that sums are exact and the search does not depend on the order of adding (METHOD 5a, ties).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import networkx as nx

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

WEIGHT_ONE = 10**9
"""An edge weight of 1.0 as it is stored."""
FOREIGN_BETA = 1 / 0.07
"""β for embeddings that come without one (METHOD 5a)."""
MEAN_DEGREE = 15
"""The mean degree that ``--threshold auto`` aims at (METHOD 5a)."""
_BLOCK = 1024
_DECIMALS = 5
"""Cosines are rounded to so many places."""
_HALF_STEP = 0.5 * 10**-_DECIMALS
_TIES = MEAN_DEGREE // 2 + 1
"""Of the pairs exactly at a calibrated threshold each node keeps so many of its later ones."""


@dataclass(frozen=True, slots=True)
class RelationalGraph:
    """An undirected weighted graph in compressed rows; node v's neighbours stand at ``indptr[v]:indptr[v + 1]``."""

    indptr: npt.NDArray[np.int64]
    """(n + 1,) where each node's row begins."""
    neighbours: Ints
    """(2·edges,) neighbours, ascending within a row."""
    weights: Ints
    """(2·edges,) w(u, v) in billionths."""
    beta: float
    """β that turned cosines into weights."""
    threshold: float
    """τ: edges below it were left out."""

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def edges(self) -> int:
        """Number of undirected edges."""
        return len(self.neighbours) // 2

    def __getitem__(self, node: int) -> list[tuple[int, int]]:
        """(neighbour, weight in billionths) of a node."""
        a, b = self.indptr[node], self.indptr[node + 1]
        return list(zip(self.neighbours[a:b].tolist(), self.weights[a:b].tolist(), strict=True))

    def components(self) -> list[list[int]]:
        """Connected components, each ascending, ordered by their smallest node."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import connected_components

        n = len(self)
        ones = np.ones(len(self.neighbours), dtype=np.int8)
        matrix = csr_matrix((ones, self.neighbours, self.indptr), shape=(n, n))
        count, label = connected_components(matrix, directed=False)
        members: list[list[int]] = [[] for _ in range(count)]
        for node, c in enumerate(label.tolist()):
            members[c].append(node)
        return sorted(members, key=lambda m: m[0])

    def to_networkx(self) -> nx.Graph[int]:
        """The same graph for networkx, weights in billionths under ``weight``."""
        import networkx as nx

        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(len(self)))
        for u in range(len(self)):
            graph.add_weighted_edges_from((u, v, w) for v, w in self[u] if u < v)
        return graph

    def to_bytes(self) -> bytes:
        """The graph as one npz, to be stored with its session."""
        out = io.BytesIO()
        constants = np.array([self.beta, self.threshold])
        np.savez(out, indptr=self.indptr, neighbours=self.neighbours, weights=self.weights, constants=constants)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, payload: bytes) -> RelationalGraph:
        """Inverse of ``to_bytes``; nothing in the payload is executed."""
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            beta, threshold = stored["constants"].tolist()
            return cls(stored["indptr"], stored["neighbours"], stored["weights"], beta, threshold)


def build_graph(embeddings: Floats, *, beta: float | None, threshold: float | None) -> RelationalGraph:
    """Join items whose weight ``w = sigmoid(β·cos)`` reaches τ (METHOD 3).

    Args:
        embeddings: (n, d), finite; rows need not be of unit length. A row of zeros or NaN is an isolated node.
        beta: the embedder's own β, or None for embeddings that come without one.
        threshold: τ in (0, 1), or None to choose the τ that gives a mean degree of 15. Of pairs exactly at the chosen
            τ (equal descriptions embed equally) each node then keeps its next few, so that a thousand equal
            items are joined without half a million edges.
    """
    beta = FOREIGN_BETA if beta is None else beta
    unit = _unit_rows(embeddings)
    if threshold is None:
        least = _calibrated(unit)
        threshold = 1 / (1 + math.exp(-beta * max(least, -1.0)))
        at_least = _TIES
    else:
        least = math.log(threshold / (1 - threshold)) / beta
        at_least = len(unit)
    rows: list[npt.NDArray[np.int32]] = []
    columns: list[npt.NDArray[np.int32]] = []
    cosines: list[Floats] = []
    for start, block in _blocks(unit):
        block[np.arange(len(block))[:, None] + start >= np.arange(len(unit))] = -2  # each pair once
        edges = block >= least - _HALF_STEP
        if at_least < len(unit):
            ties = edges & (block <= least + _HALF_STEP)
            edges &= ~ties | (np.cumsum(ties, axis=1, dtype=np.int32) <= at_least)
        i, j = np.nonzero(edges)
        rows.append((i + start).astype(np.int32))
        columns.append(j.astype(np.int32))
        cosines.append(block[i, j])
    u, v = np.concatenate(rows), np.concatenate(columns)
    w = 1 / (1 + np.exp(-beta * np.concatenate(cosines).astype(np.float64)))
    return _compressed(len(unit), u, v, np.rint(w * WEIGHT_ONE).astype(np.int32), beta, threshold)


def _unit_rows(embeddings: Floats) -> Floats:
    rows = np.nan_to_num(np.asarray(embeddings, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def _blocks(unit: Floats) -> Iterator[tuple[int, Floats]]:
    isolated = np.linalg.norm(unit, axis=1) == 0
    for start in range(0, len(unit), _BLOCK):
        # Cosines of equal items differ in the last bits, by how a product is cut up; rounding makes them equal.
        block = np.round(unit[start : start + _BLOCK] @ unit.T, _DECIMALS)
        block[isolated[start : start + _BLOCK]] = -2
        block[:, isolated] = -2
        yield start, block


def _calibrated(unit: Floats) -> float:
    """The cosine at which the mean degree is 15: that of the (15·n/2)-th most alike pair."""
    wanted = min(MEAN_DEGREE * len(unit) // 2, len(unit) * (len(unit) - 1) // 2)
    best = np.empty(0, dtype=np.float32)
    for start, block in _blocks(unit):
        pairs = block[np.arange(len(block))[:, None] + start < np.arange(len(unit))]
        best = np.concatenate([best, pairs])
        if len(best) > wanted:
            best = np.partition(best, len(best) - wanted)[len(best) - wanted :]
    return float(best.min()) if len(best) else 1.0


def _compressed(n: int, u: Ints, v: Ints, w: Ints, beta: float, threshold: float) -> RelationalGraph:
    sources, targets, weights = np.concatenate([u, v]), np.concatenate([v, u]), np.concatenate([w, w])
    order = np.lexsort((targets, sources))
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(sources, minlength=n), out=indptr[1:])
    return RelationalGraph(indptr, cast(Ints, targets[order]), cast(Ints, weights[order]), beta, threshold)
