"""Two sessions side by side: how far their partitions agree, which clusters match, and the items on which they differ.

An item of one session is an item of the other if it has the same name and the same content, wherever their collections
lie. What only one of them has, or has in no cluster, is counted and left out of everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from partita.evaluation import agreement
from partita.result import ClusterResult, Result
from storage.errors import UsageError
from storage.items import ItemRow
from storage.sessions import SessionRecord

SHOWN = 40
"""Rows and columns of a matrix that people look at."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of two sessions."""

    result: Result
    contents: Mapping[str, str]
    """Content hash of each item that can be clustered, by its name."""
    prompts: str
    """Hash of its prompt set."""

    @classmethod
    def of(cls, record: SessionRecord, result: Result, rows: Iterable[ItemRow]) -> Side:
        """From what is read of a session."""
        contents = {row.name: row.content_hash for row in rows if row.content_hash is not None}
        return cls(result, contents, record.prompt_set_hash)

    def to_json(self) -> dict[str, Any]:
        """Without items, which are in the cells."""
        r = self.result
        return {
            "session": r.session,
            "status": r.status,
            "criterion": r.criterion,
            "prompt_set_hash": self.prompts,
            "items": r.items,
            "clusters": [{"id": c.id, "name": c.name, "size": c.size} for c in r.clusters],
        }


@dataclass(frozen=True, slots=True)
class Cell:
    """The items that stand in one cluster of A and in one of B."""

    a: ClusterResult
    b: ClusterResult
    items: tuple[str, ...]
    """In the order in which A's cluster has them."""
    matched: bool
    """Whether the two clusters are taken for the same; if not, these items are what the sessions differ on."""

    @property
    def count(self) -> int:
        """How many items these are."""
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Items by cluster of A (rows) and of B (columns), matched clusters on the diagonal, as far as it is shown."""

    rows: tuple[ClusterResult, ...]
    columns: tuple[ClusterResult, ...]
    counts: tuple[tuple[int, ...], ...]
    """A row for each of `rows`, then one for all others together; likewise for columns."""
    matched: int
    """So many of the first rows match the column of the same place."""
    other_rows: int
    """Clusters of A that the last row sums up."""
    other_columns: int
    """Clusters of B that the last column sums up."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two sessions side by side."""

    a: Side
    b: Side
    nmi: float
    """Normalised mutual information over the items in common, as `Score` has it."""
    ari: float
    """Rand index adjusted for chance."""
    items: int
    """Items that both have in a cluster."""
    agreeing: int
    """Those of them that stand in clusters which match."""
    only_a: int
    """Items that B doesn't have."""
    only_b: int
    """Items that A doesn't have."""
    changed: int
    """Items that both have by name, with another content: they are among the items of one only, on both sides."""
    unplaced: int
    """Items that both have, and of which one has no cluster."""
    cells: tuple[Cell, ...]
    """The largest first."""

    @property
    def matching(self) -> dict[int, int]:
        """The cluster of B that matches a cluster of A, by number: one to one, with the most items in matching ones."""
        return {cell.a.id: cell.b.id for cell in self.cells if cell.matched}

    @property
    def differences(self) -> list[Cell]:
        """The items on which they differ, by where they stand in A and where in B, the largest groups first."""
        return [cell for cell in self.cells if not cell.matched]

    def matrix(self, rows: int = SHOWN, columns: int = SHOWN) -> Matrix:
        """Where the items stand in both, at most so many clusters of each by name, the largest."""
        there_a = {cell.a.id: cell.a for cell in self.cells}
        there_b = {cell.b.id: cell.b for cell in self.cells}
        diagonal, alone_a, alone_b = self._placed(rows, columns)
        row_ids, column_ids = [a for a, _ in diagonal] + alone_a, [b for _, b in diagonal] + alone_b
        other_rows, other_columns = len(there_a) - len(row_ids), len(there_b) - len(column_ids)
        at_a, at_b = ({number: at for at, number in enumerate(ids)} for ids in (row_ids, column_ids))
        counts = [[0] * (len(column_ids) + bool(other_columns)) for _ in range(len(row_ids) + bool(other_rows))]
        for cell in self.cells:
            # What has no place is in the last row or column.
            counts[at_a.get(cell.a.id, -1)][at_b.get(cell.b.id, -1)] += cell.count
        return Matrix(
            tuple(there_a[number] for number in row_ids),
            tuple(there_b[number] for number in column_ids),
            tuple(map(tuple, counts)),
            len(diagonal),
            other_rows,
            other_columns,
        )

    def _placed(self, rows: int, columns: int) -> tuple[list[tuple[int, int]], list[int], list[int]]:
        """Matched pairs, clusters of A and clusters of B that a matrix has room for, the largest first."""
        in_a, in_b = Counter[int](), Counter[int]()
        for cell in self.cells:
            in_a[cell.a.id] += cell.count
            in_b[cell.b.id] += cell.count
        matching = self.matching
        # A pair is as large as the larger of the two, so that a large cluster stands beside its match.
        sized = [(-max(in_a[a], in_b[b]), a, b) for a, b in matching.items()]
        sized += [(-count, a, 0) for a, count in in_a.items() if a not in matching]
        matched = set(matching.values())
        sized += [(-count, 0, b) for b, count in in_b.items() if b not in matched]
        diagonal: list[tuple[int, int]] = []
        alone_a: list[int] = []
        alone_b: list[int] = []
        for _, a, b in sorted(sized):
            room_a = a and len(diagonal) + len(alone_a) < rows
            room_b = b and len(diagonal) + len(alone_b) < columns
            if room_a and room_b:
                diagonal.append((a, b))
            elif room_a:
                alone_a.append(a)
            elif room_b:
                alone_b.append(b)
        return diagonal, alone_a, alone_b

    def to_json(self) -> dict[str, Any]:
        """As `partita compare --json` prints it: cells that share no item are left out."""
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "nmi": self.nmi,
            "ari": self.ari,
            "items": self.items,
            "agreeing": self.agreeing,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "changed": self.changed,
            "unplaced": self.unplaced,
            "cells": [
                {"a": c.a.id, "b": c.b.id, "count": c.count, "matched": c.matched, "items": list(c.items)}
                for c in self.cells
            ],
        }


def compare(a: Side, b: Side) -> Comparison:
    """Two partitions of the items that both sessions have.

    Raises:
        UsageError: one of them has no clusters yet, or they have no item in common.
    """
    a.result.require_clusters()
    b.result.require_clusters()
    common = {name for name, content in a.contents.items() if b.contents.get(name) == content}
    place = {item: c for c in b.result.clusters for item in c.items if item in common}
    found: dict[tuple[int, int], list[str]] = {}
    for c in a.result.clusters:
        for item in c.items:
            if item in place:
                found.setdefault((c.id, place[item].id), []).append(item)
    changed = len(a.contents.keys() & b.contents.keys()) - len(common)
    if not found:
        why = f"{changed:,} have the same name and another content" if changed else "no name and content is the same"
        raise UsageError(
            f"sessions {a.result.session!r} and {b.result.session!r} have no item in common ({why}): compare two "
            "sessions of the same collection"
        )
    counts = {pair: len(items) for pair, items in found.items()}
    nmi, ari = agreement(counts)
    matching = match(counts)
    by_a, by_b = ({c.id: c for c in side.result.clusters} for side in (a, b))
    cells = [
        Cell(by_a[one], by_b[other], tuple(items), matching.get(one) == other) for (one, other), items in found.items()
    ]
    cells.sort(key=lambda cell: (-cell.count, cell.a.id, cell.b.id))
    items = sum(counts.values())
    return Comparison(
        a,
        b,
        nmi,
        ari,
        items=items,
        agreeing=sum(cell.count for cell in cells if cell.matched),
        only_a=len(a.contents) - len(common),
        only_b=len(b.contents) - len(common),
        changed=changed,
        unplaced=len(common) - items,
        cells=tuple(cells),
    )


def match(counts: Mapping[tuple[int, int], int]) -> dict[int, int]:
    """The one-to-one matching of rows to columns with the largest sum; none of nothing.

    Args:
        counts: by (row, column), all above 0; what is left out is 0.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = (sorted({pair[side] for pair in counts}) for side in (0, 1))
    at_row, at_column = ({number: at for at, number in enumerate(ids)} for ids in (rows, columns))
    at = np.array([(at_row[row], at_column[column]) for row, column in counts], dtype=np.int64).reshape(-1, 2)
    number = np.fromiter(counts.values(), dtype=np.int64)
    # Part by part, since thousands of clusters would make a matrix of millions of zeros.
    size = len(rows) + len(columns)
    edges = coo_array((number, (at[:, 0], at[:, 1] + len(rows))), shape=(size, size))
    parts, part = connected_components(edges, directed=False)
    members = _by_part(part, parts)
    entries = _by_part(part[at[:, 0]], parts)
    found: dict[int, int] = {}
    for there, inside in zip(members, entries, strict=True):
        if len(inside) == 1:
            found[rows[at[inside[0], 0]]] = columns[at[inside[0], 1]]
            continue
        split = int(np.searchsorted(there, len(rows)))
        own_rows, own_columns = there[:split], there[split:] - len(rows)
        table = np.zeros((len(own_rows), len(own_columns)), dtype=np.int64)
        table[np.searchsorted(own_rows, at[inside, 0]), np.searchsorted(own_columns, at[inside, 1])] = number[inside]
        for one, other in zip(*linear_sum_assignment(table, maximize=True), strict=True):
            if table[one, other]:
                found[rows[own_rows[one]]] = columns[own_columns[other]]
    return found


def _by_part(part: Any, parts: int) -> Sequence[Any]:
    """The places of each part's entries, in order."""
    import numpy as np

    order = np.argsort(part, kind="stable")
    return np.split(order, np.searchsorted(part[order], np.arange(1, parts)))
