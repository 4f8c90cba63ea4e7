"""The relational graph of METHOD 3: which items look alike under the criterion.

Pairs are found tile by tile (``alike``), beyond EXACT items by an index (``approximate``), so memory grows with the
edges kept and never with n². Weights are stored as integers, billionths of one, so that sums are exact and the search
does not depend on the order of adding (METHOD 5a, ties).
"""

from __future__ import annotations

import io
import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphs import approximate
from graphs.alike import STEPS, Floats, Indices, Ints, Pairs, TooManyPairs, best_pairs, nearest, pairs_above
from graphs.threshold import TIES, calibrated, wanted

if TYPE_CHECKING:
    import networkx as nx

GRAPH = "graph"
"""The artefact that holds a session's relational graph."""
WEIGHT_ONE = 10**9
"""An edge weight of 1.0 as it is stored."""
FOREIGN_BETA = 1 / 0.07
"""β for embeddings that come without one (METHOD 5a)."""
EXACT = 65_536
"""More items than this are related by an approximate index, if its library is there: the extra ``large``."""
MOST_EDGES = 40_000_000
"""A complete graph of 8,900 items. A graph takes 16 bytes an edge and while it is made about 60: 0.6 GB and 2.5 GB."""

log = logging.getLogger(__name__)


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
    """τ: edges below it were left out, but for those that join dust when τ is calibrated."""

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

    def degrees(self) -> npt.NDArray[np.int64]:
        """(n,) weighted degree of each node in billionths, exact."""
        out = np.zeros(len(self), dtype=np.int64)
        some = np.flatnonzero(np.diff(self.indptr))
        if len(some):
            out[some] = np.add.reduceat(self.weights, self.indptr[some], dtype=np.int64)
        return out

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

    Cosines are rounded to 1e-5. Exact for at most EXACT items; beyond, each item's edges are among its
    ``approximate.NEAREST`` nearest and theirs, nearly all of them found. Beside the embeddings, their unit rows and the
    graph, a few hundred megabytes are needed.

    Args:
        embeddings: (n, d); rows need not be of unit length. A row of zeros, or one that is not finite, is an isolated
            node.
        beta: the embedder's own β, or None for embeddings that come without one.
        threshold: τ in (0, 1), or None to choose the τ that gives a mean degree of 15, or a higher one if that leaves
            nearly everything in one component, and join dust to it (``threshold``). A τ that keeps more than
            MOST_EDGES edges (the classes of a well-trained embedder are cliques) is raised to that of the most alike
            MOST_EDGES // 4 pairs; ``RelationalGraph.threshold`` is the one that was used.
    """
    beta = FOREIGN_BETA if beta is None else beta
    known, unit = _unit_rows(embeddings)
    index = _index(unit)
    if threshold is None:
        pairs, least = _calibrated(unit, index)
        threshold = 1 / (1 + math.exp(-beta * max(least / STEPS, -1.0)))
        parts = [pairs]
    else:
        least = max(math.ceil(math.log(threshold / (1 - threshold)) / beta * STEPS - 0.5), -STEPS)
        try:
            parts = [index.pairs_above(least)] if index else pairs_above(unit, least, MOST_EDGES)
        except TooManyPairs:
            parts = [best_pairs(unit, MOST_EDGES // 4, TIES)]
            threshold = 1 / (1 + math.exp(-beta * int(parts[0].steps.min()) / STEPS))
            log.info("more than %d edges between %d items: τ raised to %.4f", MOST_EDGES, len(unit), threshold)
    return _compressed(len(embeddings), known, parts, beta, threshold)


def _unit_rows(embeddings: Floats) -> tuple[Indices, Floats]:
    """The items that have an embedding, and these in unit length."""
    rows = np.asarray(embeddings, dtype=np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    known = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    unit: Floats = rows[known]
    np.divide(unit, norms[known, None], out=unit, casting="same_kind")
    return known, unit


def _index(unit: Floats) -> approximate.Index | None:
    if len(unit) <= EXACT:
        return None
    if not approximate.available():
        log.info("relating %d items exactly, which takes long: pip install 'partita[large]' for an index", len(unit))
        return None
    return approximate.Index(unit)


def _calibrated(unit: Floats, index: approximate.Index | None) -> tuple[Pairs, int]:
    n = len(unit)
    if n < 2:
        return Pairs.joined([]), STEPS
    near = index.nearest if index else partial(nearest, unit)
    best = index.best_pairs(wanted(n), TIES) if index else best_pairs(unit, wanted(n), TIES)
    return calibrated(n, best, near)


def _compressed(n: int, known: Indices, parts: list[Pairs], beta: float, threshold: float) -> RelationalGraph:
    """The graph of some pairs of known items; ``parts`` is emptied, to have its memory."""
    from scipy.sparse import coo_matrix

    weight = np.rint(WEIGHT_ONE / (1 + np.exp(-beta * np.arange(-STEPS, STEPS + 1) / STEPS))).astype(np.int32)
    node = known.astype(np.int32)
    edges = sum(len(p.u) for p in parts)
    u, v, w = np.empty((3, edges), dtype=np.int32)
    while parts:
        p = parts.pop()
        here = slice(edges - len(p.u), edges)
        edges = here.start
        u[here], v[here], w[here] = node[p.u], node[p.v], weight[p.steps + STEPS]
    later = coo_matrix((w, (u, v)), shape=(n, n))
    later.has_canonical_format = True  # each pair once: nothing to sum
    later = later.tocsr()
    del u, v, w
    later.sort_indices()
    earlier = later.T.tocsr()
    indptr = earlier.indptr.astype(np.int64) + later.indptr
    # A node's row is its earlier neighbours and then its later ones.
    counts = np.stack([np.diff(earlier.indptr), np.diff(later.indptr)], axis=1).ravel()
    is_later = np.repeat(np.arange(2 * n) % 2 == 1, counts)
    neighbours, weights = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.int32)
    neighbours[~is_later], neighbours[is_later] = earlier.indices, later.indices
    weights[~is_later], weights[is_later] = earlier.data, later.data
    return RelationalGraph(indptr, neighbours, weights, beta, threshold)
