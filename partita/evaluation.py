"""How well a partition agrees with labels (METHOD 11)."""

from __future__ import annotations

from collections.abc import Sequence
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


def _rounded(value: float) -> float:
    """Without the last digits, which make 1.0000000000000002 of a perfect score."""
    return round(float(value), 12)
