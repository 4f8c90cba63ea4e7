"""How well a partition agrees with labels (METHOD 11). Labels are read here and nowhere else."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partita.excerpts import named
from storage.errors import UsageError
from storage.rows import LONGEST_FIELD


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

    def to_json(self) -> dict[str, Any]:
        """As CONTRACT 3 prints it."""
        return asdict(self)


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


def read_labels(
    labels: Path, column: str, collection: Path, names: Sequence[str], texts: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Label by item name.

    A ``file`` is matched to an item relative to the CSV's folder, then relative to the collection (CONTRACT 3). Texts
    are matched by what they say where the CSV has a ``text`` column, so that it may be another one than the
    collection, in another order; otherwise by row.

    Args:
        texts: what the items say, by name, if they are texts.

    Raises:
        UsageError: no such file or column, or no label fits an item.
    """
    texts = texts or {}
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    try:
        with labels.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if column not in columns:
                raise UsageError(f"{labels}: no column {column!r}; there are {', '.join(columns) or 'none'}")
            rows = list(reader)
    except OSError as e:
        raise UsageError(f"{labels}: {e.strerror or e}; give a CSV with --labels") from None
    except (UnicodeDecodeError, csv.Error) as e:
        raise UsageError(f"{labels}: no UTF-8 CSV ({e})") from None
    root = collection if collection.is_dir() else collection.parent
    if texts:
        found = _by_text(rows, column, texts) if "text" in columns else _by_row(rows, column, texts)
        how = "the `text` column is taken word for word" if "text" in columns else "they are taken by their place"
    elif "file" in columns:
        found = _by_file(rows, column, labels.parent, root, names)
        how = f"the `file` column is taken relative to {labels.parent} and then to {root}"
    else:
        raise UsageError(
            f"{labels}: no `file` column, which says whose label a row is; there are {', '.join(columns)}, and "
            f"the first item is {names[0]!r}"
        )
    if not found:
        raise UsageError(
            f"{labels}: none of its {len(rows)} rows fits an item of the session; {how}, and the first item is "
            f"{named(names[0], texts)!r}"
        )
    return {name: found[name] for name in names if name in found}


def _by_row(rows: Sequence[Mapping[str, str]], column: str, texts: Mapping[str, str]) -> dict[str, str]:
    labelled = ((f"row {i}", row[column]) for i, row in enumerate(rows, 1))
    return {name: label for name, label in labelled if label and name in texts}


def _by_text(rows: Sequence[Mapping[str, str]], column: str, texts: Mapping[str, str]) -> dict[str, str]:
    """By row where the same text stands there, otherwise by the first row that says the same."""
    by_text: dict[str, str] = {}
    for row in rows:
        if row[column]:
            by_text.setdefault(row["text"], row[column])
    found = {name: by_text[text] for name, text in texts.items() if text in by_text}
    for i, row in enumerate(rows, 1):
        if row[column] and texts.get(f"row {i}") == row["text"]:
            found[f"row {i}"] = row[column]
    return found


def _by_file(
    rows: Sequence[Mapping[str, str]], column: str, beside: Path, root: Path, names: Sequence[str]
) -> dict[str, str]:
    by_path: dict[str, list[str]] = {}
    for name in names:
        by_path.setdefault(os.path.realpath(root / name), []).append(name)
    found: dict[str, str] = {}
    for row in rows:
        file, label = (row.get("file") or "").replace("\0", ""), row.get(column) or ""
        meant = by_path.get(os.path.realpath(beside / file)) or by_path.get(os.path.realpath(root / file)) or []
        if label:
            found.update(dict.fromkeys(meant, label))
    return found
