"""How well a partition agrees with labels (METHOD 11), or with another partition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement of a partition, its number of clusters found and not given, with labels."""

    nmi: float
    """Normalised mutual information, arithmetic mean (scikit-learn's default)."""
    ri: float
    """Rand index."""
    ari: float
    """Rand index adjusted for chance."""
    accuracy: float
    """Share of items in the cluster that the best one-to-one matching gives their class."""
    v_measure: float
    clusters: int
    classes: int
    items: int
    """Items that are in both the partition and the labels."""
    calls_per_item: float | None = None
    supervised: bool = False
    """Whether the session's model learnt from labels. In the JSON only if so."""
    corrections: int = 0
    """What people have corrected in the partition. In the JSON only if there is any."""

    def to_json(self) -> dict[str, Any]:
        """As CONTRACT 3 prints it."""
        return {
            name: value for name, value in asdict(self).items() if value or name not in ("supervised", "corrections")
        }


def score_labels(found: Sequence[object], true: Sequence[object], calls_per_item: float | None = None) -> Score:
    """Score one label per item against another."""
    from scipy.optimize import linear_sum_assignment
    from sklearn import metrics

    _, f = np.unique(np.asarray(found, dtype=str), return_inverse=True)
    _, t = np.unique(np.asarray(true, dtype=str), return_inverse=True)
    table = np.zeros((f.max() + 1, t.max() + 1), dtype=np.int64)
    np.add.at(table, (f, t), 1)
    rows, columns = linear_sum_assignment(-table)
    return Score(
        nmi=_rounded(metrics.normalized_mutual_info_score(t, f)),
        ri=_rounded(metrics.rand_score(t, f)),
        ari=_rounded(metrics.adjusted_rand_score(t, f)),
        accuracy=_rounded(table[rows, columns].sum() / len(f)),
        v_measure=_rounded(metrics.v_measure_score(t, f)),
        clusters=table.shape[0],
        classes=table.shape[1],
        items=len(f),
        calls_per_item=calls_per_item,
    )


def agreement(counts: Mapping[tuple[int, int], int]) -> tuple[float, float]:
    """NMI and ARI of two partitions, either way round, from how many items each two clusters share.

    Scikit-learn's measures, without its import, which takes longer than any comparison.

    Args:
        counts: items by (cluster in one, cluster in the other), at least one in all; pairs that share none may be
            left out.
    """
    rows: Counter[int] = Counter()
    columns: Counter[int] = Counter()
    for (row, column), count in counts.items():
        rows[row] += count
        columns[column] += count
    items = rows.total()
    apart = [_entropy(side.values(), items) for side in (rows, columns)]
    shared = sum(apart) - _entropy(counts.values(), items)
    # Two that tell nothing apart are the same.
    nmi = max(0.0, shared) / (sum(apart) / 2) if any(apart) else 1.0
    # Ordered pairs of items that are together in both, in one only, in none.
    both = _squares(counts.values()) - items
    one, other = _squares(rows.values()) - items - both, _squares(columns.values()) - items - both
    none = items * (items - 1) - both - one - other
    if not one and not other:
        return _rounded(nmi), 1.0
    ari = 2 * (both * none - one * other) / ((both + one) * (one + none) + (both + other) * (other + none))
    return _rounded(nmi), _rounded(ari)


def _entropy(sizes: Iterable[int], items: int) -> float:
    """In nats; exactly 0 of one part."""
    return math.fsum(n / items * math.log(items / n) for n in sizes if n)


def _squares(sizes: Iterable[int]) -> int:
    return sum(n * n for n in sizes)


def _rounded(value: float) -> float:
    """Without the last digits, which make 1.0000000000000002 of a perfect score."""
    return round(float(value), 12)
