"""Pairs of items by the cosine of their embeddings, found tile by tile: no n × n matrix, and each pair once.

Cosines are whole steps of 1e-5. Those of equal items differ in the last bits, by how a product is cut up; steps make
them equal, so ties are ties on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]

STEPS = 10**5
"""Steps in a cosine of 1."""
BLOCK = 1024
"""Rows of a tile."""
WIDTH = 16 * BLOCK
"""Columns of a tile, at least as many as rows; one of float32 is 64 MiB."""
_NEVER = -2 * STEPS
"""Fewer steps than any cosine has."""
_SPARE = 2**20
"""So many pairs are kept beyond those wanted before the worst are dropped."""


class Pairs(NamedTuple):
    """Pairs u < v and how alike they are."""

    u: Ints
    v: Ints
    steps: Ints

    @classmethod
    def joined(cls, parts: Iterable[Pairs]) -> Pairs:
        """All pairs of some parts."""
        columns = list(zip(*parts, strict=True)) or [()] * 3
        return cls(*(np.concatenate([np.empty(0, dtype=np.int32), *c]) for c in columns))

    def where(self, chosen: npt.NDArray[np.bool_] | Indices) -> Pairs:
        """Some of the pairs, by a mask or by their numbers."""
        return Pairs(self.u[chosen], self.v[chosen], self.steps[chosen])


class Nearest(NamedTuple):
    """The items most alike to each of m items, the best first; of equally alike ones the first in the collection."""

    items: Ints
    """(m, k)"""
    steps: Ints
    """(m, k)"""


class TooManyPairs(Exception):
    """More pairs than may be kept."""


def pairs_above(unit: Floats, least: int, most: int) -> list[Pairs]:
    """All pairs of unit rows (n, d) with a cosine of at least so many steps, in parts.

    Within and over the parts, pairs with the same u ascend by v and those with the same v by u.

    Raises:
        TooManyPairs: there are more than ``most``. Beside the pairs, a few hundred megabytes are needed.
    """
    parts, count = [], 0
    for i, j, tile in _tiles(unit):
        mask = tile >= _just_below(least)
        count += int(np.count_nonzero(mask))
        if count > most:
            raise TooManyPairs
        parts.append(_pairs(tile, mask, i, j, least))
    return parts


def best_pairs(unit: Floats, wanted: int, ties: int) -> Pairs:
    """The most alike pairs of unit rows (n, d), chosen as ``best_of`` does, in one pass and little memory.

    What is found so far says how alike a pair must be at least to count, so few pairs of later tiles are looked at.
    """
    kept: list[Pairs] = []
    floor, count, room = _NEVER, 0, 2 * wanted + ties * len(unit) + _SPARE
    for i, j, tile in _tiles(unit):
        mask = tile >= _just_below(floor)
        if np.count_nonzero(mask) > room:
            values = tile[mask]
            floor = max(floor, int(np.rint(float(np.partition(values, -wanted)[-wanted]) * STEPS)))
            mask = tile >= _just_below(floor)
            if np.count_nonzero(mask) > room:
                tied = mask & (tile <= -_just_below(-floor))
                mask &= ~tied | (np.cumsum(tied, axis=1, dtype=np.int32) <= ties)
        kept.append(_pairs(tile, mask, i, j, floor))
        count += len(kept[-1].u)
        if count > room:
            best, floor = best_of(Pairs.joined(kept), wanted, ties, floor)
            kept, count = [best], len(best.u)
    return best_of(Pairs.joined(kept), wanted, ties, floor)[0]


def best_of(pairs: Pairs, wanted: int, ties: int, floor: int = _NEVER) -> tuple[Pairs, int]:
    """The ``wanted`` most alike of some pairs, and how many steps the last of them has.

    Of the pairs just as alike as the last (equal descriptions embed equally) each item keeps its next few, so that a
    thousand equal items are joined without half a million pairs.

    Args:
        wanted: at least 1. ties: how many such pairs (u, v) an item u keeps, those of least v.
        floor: the last is known to have at least so many steps; of pairs with just so many, only those that would be
            dropped may be missing.
    """
    if len(pairs.u) >= wanted:
        floor = max(floor, int(np.partition(pairs.steps, -wanted)[-wanted]))
    keep = pairs.steps > floor
    tied = np.flatnonzero(pairs.steps == floor)
    tied = tied[np.lexsort((pairs.v[tied], pairs.u[tied]))]
    u = pairs.u[tied]
    keep[tied[np.arange(len(u)) - np.searchsorted(u, u) < ties]] = True
    return pairs.where(keep), floor


def nearest(unit: Floats, items: Indices, count: int) -> Nearest:
    """The ``count`` < n items most alike to each of the items (m,), among unit rows (n, d)."""
    n = len(unit)
    found = Nearest(np.empty((len(items), count), np.int32), np.empty((len(items), count), np.int32))
    rows = max(1, min(BLOCK, BLOCK * WIDTH // n))
    for start in range(0, len(items), rows):
        some = items[start : start + rows]
        block = unit[some] @ unit.T
        block *= STEPS
        np.rint(block, out=block)
        here = np.arange(len(some))
        block[here, some] = -np.inf
        for k in range(count):
            best = block.argmax(axis=1)
            found.items[start : start + rows, k] = best
            found.steps[start : start + rows, k] = block[here, best]
            block[here, best] = -np.inf
    return found


def _tiles(unit: Floats) -> Iterator[tuple[int, int, Floats]]:
    """(first row, first column, cosines) of the tiles on and above the diagonal, row by row.

    A tile overwrites the one before it. What is on or below the diagonal is -2.
    """
    n = len(unit)
    room = np.empty(min(BLOCK, n) * min(WIDTH, n), dtype=np.float32)
    for i in range(0, n, BLOCK):
        rows = unit[i : i + BLOCK]
        for j in range(i, n, WIDTH):
            columns = unit[j : j + WIDTH]
            tile = room[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            np.matmul(rows, columns.T, out=tile)
            if i == j:
                tile[:, : len(rows)][np.tri(len(rows), dtype=np.bool_)] = -2
            yield i, j, tile


def _just_below(steps: int) -> np.float32:
    """What a cosine of so many steps reaches before rounding, less a little."""
    return np.float32((steps - 0.51) / STEPS)


def _pairs(tile: Floats, mask: npt.NDArray[np.bool_], i: int, j: int, least: int) -> Pairs:
    hits = np.flatnonzero(mask)
    steps = np.rint(tile.ravel()[hits].astype(np.float64) * STEPS).astype(np.int32)
    hits, steps = hits[steps >= least], steps[steps >= least]
    u, v = np.divmod(hits, tile.shape[1])
    return Pairs((u + i).astype(np.int32), (v + j).astype(np.int32), steps)
