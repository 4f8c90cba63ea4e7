"""How alike items and clusters are, as the search of policy ``evidence`` sees it (METHOD 7).

Embeddings are kept as whole numbers. Sums and dot products of them are exact in float64 whatever the order of adding,
so two machines see the same likeness and replay the same search (ARCHITECTURE 1).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Whole = npt.NDArray[np.int16]

VECTORS = "vectors"
"""The artefact that holds a session's embeddings as policy ``evidence`` sees them."""
UNIT = 2**13
"""Length of a unit vector in whole numbers."""
_ROWS = 4096


def whole_vectors(embeddings: npt.NDArray[np.floating[Any]]) -> Whole:
    """Embeddings (n, d) as unit rows around their common mean, in whole numbers.

    Rows that are not finite or have no length come out as zeros: items of which the embeddings say nothing. Store the
    result with the session: the mean is a sum of floats, which another machine may round otherwise.
    """
    n, width = embeddings.shape
    norms, total = np.zeros(n), np.zeros(width)
    for at in range(0, n, _ROWS):
        rows = np.asarray(embeddings[at : at + _ROWS], dtype=np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        known = np.isfinite(lengths) & (lengths > 0)
        norms[at : at + _ROWS][known] = lengths[known]
        unit = rows[known] / lengths[known][:, None]
        total += unit.sum(axis=0)
    mean = total / max(int(np.count_nonzero(norms)), 1)
    out = np.zeros((n, width), dtype=np.int16)
    for at in range(0, n, _ROWS):
        some = at + np.flatnonzero(norms[at : at + _ROWS])
        unit = np.asarray(embeddings[some], dtype=np.float64) / norms[some][:, None]
        out[some] = np.rint((unit - mean) * UNIT).astype(np.int16)
    return out


def bytes_of(vectors: Whole) -> bytes:
    """Vectors as one npy, to be stored with the session."""
    out = io.BytesIO()
    np.save(out, vectors, allow_pickle=False)
    return out.getvalue()


def vectors_from(payload: bytes) -> Whole:
    """Inverse of ``bytes_of``; nothing in the payload is executed."""
    stored: Whole = np.load(io.BytesIO(payload), allow_pickle=False)
    return stored


class Likeness:
    """Dot products with the vectors of a collection."""

    def __init__(self, vectors: Whole) -> None:
        self._vectors = vectors
        self.items, self.width = vectors.shape
        squares = [np.einsum("ij,ij->i", b, b) for b in self._blocks()]
        self.squares: Floats = np.concatenate(squares) if squares else np.zeros(0)
        """(n,) squared lengths."""
        self.known: npt.NDArray[np.bool_] = self.squares > 0
        """(n,) whether an item has an embedding."""
        self.variance = float(self.squares[self.known].mean()) / self.width if self.known.any() else 1.0
        """Of one coordinate over the collection."""

    def total(self, items: Indices) -> Floats:
        """(d,) the sum of some items' vectors."""
        summed: Floats = self._vectors[items].sum(axis=0, dtype=np.int64).astype(np.float64)
        return summed

    def dots(self, sums: Floats) -> Floats:
        """(n, c) dot products of all items with the sums (c, d) of clusters."""
        if self.items <= _ROWS:
            return self._all @ sums.T
        return np.concatenate([block @ sums.T for block in self._blocks()])

    def seeds(self, count: int, centrality: Floats) -> list[int]:
        """Items of high centrality (n,) that are unlike each other, the most central first (METHOD 4.1)."""
        low, high = centrality.min(), centrality.max()
        weight = 0.1 + (centrality - low) / (high - low) if high > low else np.ones(self.items)
        lengths = np.sqrt(np.maximum(self.squares, 1))
        chosen = [int(np.argmax(weight))]
        nearest = np.full(self.items, -np.inf)
        while len(chosen) < min(count, self.items):
            last = chosen[-1]
            dots = self.dots(self._vectors[last : last + 1].astype(np.float64))[:, 0]
            nearest = np.maximum(nearest, np.round(dots / (lengths * lengths[last]), 9))
            value = weight * np.maximum(1 - nearest, 0) ** 2
            value[chosen] = -1
            chosen.append(int(np.argmax(value)))
        return chosen

    @cached_property
    def _all(self) -> Floats:
        return self._vectors.astype(np.float64)

    def _blocks(self) -> Iterator[Floats]:
        return (self._vectors[i : i + _ROWS].astype(np.float64) for i in range(0, self.items, _ROWS))


@dataclass(frozen=True, slots=True)
class Spread:
    """How far members lie from their cluster's middle, and the middles from each other: variances of a coordinate.

    The model is the plainest that knows how little a small cluster says: middles are N(0, between), members
    N(middle, within), the same in every direction. ``odds.Calibration`` corrects what is wrong with it.
    """

    within: float
    between: float

    @classmethod
    def of(cls, likeness: Likeness, sizes: Floats, norms: Floats, squares: float) -> Spread:
        """From clusters of known members, leaning on a guess while they are few.

        Args:
            sizes: (c,) members. norms: (c,) squared length of their sums. squares: Σ|x|² over all members.
        """
        lean = 20.0
        total = likeness.variance
        free = float(np.maximum(sizes - 1, 0).sum())
        inside = max(squares - float((norms / np.maximum(sizes, 1)).sum()), 0.0)
        within = (inside / likeness.width + lean * 0.6 * total) / (free + lean)
        within = min(max(within, 0.02 * total), total)
        return cls(float(f"{within:.6g}"), float(f"{max(total - within, 0.02 * total):.6g}"))

    def belongs(self, dots: Floats, squares: Floats, sizes: Floats, norms: Floats, width: int) -> Floats:
        """Log-odds that an item comes from a cluster rather than from one not found yet.

        With m members of sum s, an item has the predictive density N(s·between / (m·between + within), within + what
        is not known of the middle).

        Args:
            dots: (rows, c) of items with the clusters' sums. squares: (rows,) |x|².
            sizes: m, (c,) or (rows, c). norms: |s|², of the same shape.
        """
        w, b = self.within, self.between
        shrink = b / (sizes * b + w)
        variance = w + w * shrink
        away = squares[:, None] - 2 * shrink * dots + shrink * shrink * norms
        out: Floats = squares[:, None] / (2 * (b + w)) - away / (2 * variance) - width / 2 * np.log(variance / (b + w))
        return out

    def one(self, sums: Floats, sizes: Floats, width: int) -> Floats:
        """(c, c) log-odds that two clusters have one middle, from the sums (c, d) of their members."""
        w, b = self.within, self.between
        norms = np.einsum("ij,ij->i", sums, sums)
        shrink = b / (sizes * b + w)
        variance = (w * shrink)[:, None] + (w / sizes)[None, :]
        alone = b + w / sizes
        means = norms / sizes**2
        away = means[None, :] - 2 * shrink[:, None] * (sums @ sums.T) / sizes[None, :] + (shrink**2 * norms)[:, None]
        out = (means / (2 * alone))[None, :] - away / (2 * variance) - width / 2 * np.log(variance / alone[None, :])
        symmetric: Floats = (out + out.T) / 2
        return symmetric
