"""τ for embeddings that come without one, so that components are neither dust nor everything (METHOD 5a).

One τ for all pairs follows where a collection is dense: of real photographs and texts embedded by models that nobody
here trained, it leaves up to 29 % of the items alone and puts up to 89 % of them in one component. Every component
costs the merge agent questions, and the items of one component wait for each other. So

1. components of fewer than DUST items are joined to the rest, each by the most alike pair that leads out of it;
2. if more than MOST of the items are then in one component, higher τ are tried, of the mean degrees after the first of
   DEGREES, and the first with which none is that large is taken. If there is none, the first τ stays.

Measured, without → with both. Purity is the share of items that are of their component's commonest class; dust is pure
and a split raises it too, so it says what joining and splitting cost and bring, not how good a graph is.

| collection, classes | items alone | components | largest | purity |
|---|---|---|---|---|
| CLINC texts, 150, MiniLM | 7 % → 0 | 419 → 125 | 0.77 → 0.42 | 0.21 → 0.38 |
| GoalEx texts, 4 topics, MiniLM | 11 % → 0 | 133 → 36 | 0.84 → 0.42 | 0.40 → 0.74 |
| playing cards, 13, EfficientNet | 29 % → 0 | 1,567 → 105 | 0.59 → 0.54 | 0.41 → 0.22 |
| fruit, 4, EfficientNet | 4 % → 0 | 390 → 105 | 0.06 → 0.06 | 1.00 → 1.00 |
| flowers, 4 species, EfficientNet | 14 % → 0 | 81 → 6 | 0.78 → 0.56 | 0.52 → 0.76 |
| CIFAR-10, 2, EfficientNet | 10 % → 0 | 307 → 1 | 0.89 → 1.00 | 0.63 → 0.60 |
| simulated: 13, noise 0.4 | 4 % → 0 | 69 → 13 | 0.08 → 0.08 | 0.95 → 0.95 |
| 13, noise 1.2 | 2 % → 0 | 36 → 11 | 0.16 → 0.16 | 0.81 → 0.81 |
| 13, noise 2, as noise 3 | 0 % → 0 | 3 → 1 | 1.00 → 1.00 | 0.09 → 0.09 |
| 13, two thirds in one | 22 % → 0 | 364 → 25 | 0.61 → 0.64 | 0.98 → 0.95 |
| 2 | 8 % → 0 | 125 → 2 | 0.46 → 0.50 | 0.98 → 0.98 |
| 40 | 0 % → 0 | 7 → 17 | 0.97 → 0.42 | 0.06 → 0.41 |
| 100 | 0 % → 0 | 1 → 42 | 1.00 → 0.22 | 0.02 → 0.42 |
| 100, Zipf | 16 % → 0 | 316 → 61 | 0.20 → 0.22 | 0.90 → 0.80 |

The simulated ones are those of ``benchmarks.evidence``, seed 1. Policy ``paper`` with an agent that never errs ends
with NMI 1.000 on all that were tried, and joining dust saves it questions: 18.3 → 10.8 an item (100, Zipf), 2.49 → 1.80
(two thirds in one), 3.19 → 2.78 (GoalEx by style). Splitting shortens the longest walk, 1.08 → 0.45 and 2.44 → 0.23
questions an item of the collection (40 and 100 classes), for 2.49 → 3.08 and 7.92 → 8.83 questions in all. Joining
every item to its two or three nearest instead makes one component of most (100, Zipf: 0.85 and 1.00 of the items).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphs.alike import Indices, Ints, Nearest, Pairs, best_of

DEGREES = (15, 10, 7, 5)
"""Mean degrees of the τ that are tried. With the last, 4,856 items have a density of 0.001, where METHOD 11's begin."""
DUST = 5
"""Smaller components are dust."""
MOST = 2 / 3
"""No component should hold a larger share of the items, if a higher τ can help it."""
TIES = DEGREES[0] // 2 + 1
"""Of the pairs exactly at τ each item keeps so many of its later ones."""
_MOST_DUST = 1 / 2
"""A higher τ that leaves a larger share of the items in dust says nothing of the collection."""


def wanted(items: int, degree: int = DEGREES[0]) -> int:
    """Pairs that give a mean degree, or all there are."""
    return min(degree * items // 2, items * (items - 1) // 2)


def calibrated(items: int, best: Pairs, nearest: Callable[[Indices, int], Nearest]) -> tuple[Pairs, int]:
    """The pairs to be edges, and the steps of the cosine at τ.

    Args:
        items: all of them with an embedding, at least two.
        best: the most alike pairs, for the first of DEGREES.
        nearest: finds so many items most alike to each of some.
    """
    rest = _Rest(items, nearest)
    pairs, least = best_of(best, wanted(items), TIES)
    first = rest.join(pairs), least
    largest = _largest(items, first[0])
    for degree in DEGREES[1:]:
        if largest <= MOST * items:
            break
        pairs, higher = best_of(best, wanted(items, degree), TIES)
        if higher == least:
            continue
        least = higher
        if np.count_nonzero(_sizes(component_of(items, pairs)) < DUST) > _MOST_DUST * items:
            break
        joined = rest.join(pairs)
        largest = _largest(items, joined)
        if largest <= MOST * items:
            return joined, least
    return first


def component_of(items: int, pairs: Pairs) -> Ints:
    """(n,) the number of each item's component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs.u), dtype=np.int8)
    label: Ints = connected_components(coo_matrix((ones, (pairs.u, pairs.v)), shape=(items, items)), directed=False)[1]
    return label


class _Rest:
    """What dust can be joined to. The dust of a higher τ contains that of a lower one, so what was found is kept."""

    def __init__(self, items: int, nearest: Callable[[Indices, int], Nearest]) -> None:
        self._find = nearest
        self._known = np.zeros(items, dtype=np.bool_)
        width = min(DUST, items) - 1
        self._nearest = Nearest(np.empty((items, width), dtype=np.int32), np.empty((items, width), dtype=np.int32))

    def join(self, pairs: Pairs) -> Pairs:
        """The pairs and those that join the dust.

        A member of a component smaller than DUST has at most DUST - 2 items beside it, so the most alike item outside
        is among its DUST - 1 nearest.
        """
        while True:
            component = component_of(len(self._known), pairs)
            dust = np.flatnonzero(_sizes(component) < DUST)
            near = self._of(dust)
            outside = component[near.items] != component[dust][:, None]
            leads = np.flatnonzero(outside.any(axis=1))
            if not len(leads):
                return pairs
            way = leads, outside[leads].argmax(axis=1)
            x, y, steps = dust[leads], near.items[way].astype(np.int64), near.steps[way]
            u, v = np.minimum(x, y), np.maximum(x, y)
            order = np.lexsort((v, u, -steps, component[x]))
            chosen = order[np.unique(component[x][order], return_index=True)[1]]
            # Two components may have chosen the same pair.
            chosen = chosen[np.unique(u[chosen] * len(component) + v[chosen], return_index=True)[1]]
            pairs = Pairs.joined([pairs, Pairs(u.astype(np.int32), v.astype(np.int32), steps).where(chosen)])

    def _of(self, items: Indices) -> Nearest:
        new = items[~self._known[items]]
        if len(new):
            self._nearest.items[new], self._nearest.steps[new] = self._find(new, self._nearest.items.shape[1])
            self._known[new] = True
        return Nearest(self._nearest.items[items], self._nearest.steps[items])


def _sizes(component: Ints) -> Indices:
    """(n,) the size of each item's component."""
    sizes: Indices = np.bincount(component)[component]
    return sizes


def _largest(items: int, pairs: Pairs) -> int:
    return int(_sizes(component_of(items, pairs)).max())
