"""Two sessions side by side: how far they agree, a matrix of their clusters, and the items on which they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import RedirectResponse, Response

from partita.comparison import Cell, Comparison, Matrix, Side, compare
from partita.excerpts import excerpt
from partita.result import TEACHER, ClusterResult
from partita.web.clusters import head
from partita.web.desk import Seen
from partita.web.given import ADesk
from partita.web.rendering import Tile, page, tile
from storage.errors import UsageError
from storage.sessions import SessionRecord, list_sessions

router = APIRouter()
GROUPS = 12
"""Groups of items on one page."""
FIRST = 24
"""Pictures of each."""
MORE = 120
"""Pictures of a cell that is shown alone, and those that one more request brings."""
SHADES = 10
_OFFERED = 500
"""Sessions that one can choose from."""


@dataclass(frozen=True, slots=True)
class Square:
    """A cell of the matrix as the page shows it."""

    count: int
    shade: int
    """0 for none, otherwise 1 to 10 by the share of the row's items."""
    matched: bool
    href: str | None
    """Where its items are; None for a sum of several cells."""
    said: str
    """In words."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the matrix."""

    cluster: ClusterResult | None
    """None for all others together."""
    count: int
    squares: list[Square]


@dataclass(frozen=True, slots=True)
class Both:
    """An item as both sessions have it."""

    tile: Tile
    """As A has it."""
    other: Tile
    """As B has it."""


@dataclass(frozen=True, slots=True)
class Group:
    """A cell with its items, as far as they are shown."""

    cell: Cell
    items: list[Both]
    href: str
    """All of them."""


def compare_url(a: str, b: str, **query: object) -> str:
    """The address of two sessions side by side, or of a part of that."""
    return "/compare?" + urlencode({"a": a, "b": b} | {key: value for key, value in query.items() if value is not None})


@router.get("/compare")
def side_by_side(
    desk: ADesk,
    a: str = "",
    b: str = "",
    of: Annotated[list[str] | None, Query()] = None,
    row: int | None = None,
    column: int | None = None,
    start: int = 0,
) -> Response:
    """Sessions A and B; with `row` and `column` only what stands in these clusters of A and of B.

    The list of sessions sends those that are chosen as `of`; other than two, one is asked to choose.
    """
    chosen = list(dict.fromkeys(of or []))
    if len(chosen) == 2:
        return RedirectResponse(compare_url(*chosen), 303)
    if not a or not b:
        first, *others = [name for name in (a, b, *chosen) if name] or [""]
        there = list_sessions(desk.db)
        return page("compare_choose", choices=_choices(there, None), first=first, second=next(iter(others), ""),
                    asked=of is not None, count=len(there))  # fmt: skip
    one, other = desk.seen(a), desk.seen(b)
    given: dict[str, Any] = {"one": one, "other": other, "swapped": compare_url(other.record.name, one.record.name)}
    try:
        comparison = _compared(one, other)
    except UsageError as error:
        return page("compare", **given, comparison=None, why=str(error))
    return page("compare", **given, comparison=comparison, why="", **_shown(comparison, one, other, row, column, start))


@router.get("/compare/more")
def more(desk: ADesk, a: str, b: str, row: int, column: int, start: int = 0) -> Response:
    """The next items of one cell, without a page around them."""
    one, other = desk.seen(a), desk.seen(b)
    return page("_compared_more", **_alone(_compared(one, other), one, other, row, column, start))


@router.get("/s/{name}/compare")
def choose(name: str, desk: ADesk) -> Response:
    """The sessions that this one can be compared with."""
    given = head(desk, name)
    there = list_sessions(desk.db)
    return page("compare_with", **given, choices=_choices(there, given["record"]), count=len(there), tab="compare")


@lru_cache(maxsize=4)
def _compared(one: Seen, other: Seen) -> Comparison:
    """Kept as long as both sessions are as they were seen."""
    return compare(Side.of(one.record, one.result, one.rows), Side.of(other.record, other.result, other.rows))


def _shown(
    comparison: Comparison, one: Seen, other: Seen, row: int | None, column: int | None, start: int
) -> dict[str, Any]:
    matrix = comparison.matrix()
    there = {"matrix": matrix, "lines": _lines(comparison, matrix), "row": row, "column": column, "alone": None,
             "compare_url": compare_url, "few": len(matrix.columns) <= 6}  # fmt: skip
    if row is not None and column is not None:
        return there | _alone(comparison, one, other, row, column, start)
    cells: Sequence[Cell] = comparison.differences
    chosen = None
    if row is not None:
        chosen = one.result.cluster(row)
        cells = [cell for cell in comparison.cells if cell.a.id == row]
    elif column is not None:
        chosen = other.result.cluster(column)
        cells = [cell for cell in comparison.cells if cell.b.id == column]
    start = max(0, min(start, len(cells)))
    groups = [
        Group(cell, _both(one, other, cell.items[:FIRST]), _url(comparison, row=cell.a.id, column=cell.b.id))
        for cell in cells[start : start + GROUPS]
    ]

    def part(begins: int) -> str:
        return _url(comparison, row=row, column=column, start=begins or None) + "#items"

    return there | {
        "groups": groups,
        "chosen": chosen,
        "count": sum(cell.count for cell in cells),
        "before": part(max(0, start - GROUPS)) if start else None,
        "following": part(start + GROUPS) if start + GROUPS < len(cells) else None,
    }


def _alone(comparison: Comparison, one: Seen, other: Seen, row: int, column: int, start: int) -> dict[str, Any]:
    """One cell with all its items, from one of them on."""
    in_one, in_other = one.result.cluster(row), other.result.cluster(column)
    found = next((cell for cell in comparison.cells if (cell.a.id, cell.b.id) == (row, column)), None)
    cell = found or Cell(in_one, in_other, (), matched=False)
    start = max(0, min(start, cell.count))
    following = start + MORE if start + MORE < cell.count else None
    asked = {"row": row, "column": column, "start": following}
    return {
        "alone": cell,
        "shown": _both(one, other, cell.items[start : start + MORE]),
        "following": _url(comparison, **asked) + "#items" if following else None,
        "more": _url(comparison, **asked).replace("/compare?", "/compare/more?", 1),
    }


def _lines(comparison: Comparison, matrix: Matrix) -> list[Line]:
    lines: list[Line] = []
    matching = comparison.matching
    for at, counts in enumerate(matrix.counts):
        cluster = matrix.rows[at] if at < len(matrix.rows) else None
        total = sum(counts)
        squares: list[Square] = []
        for place, count in enumerate(counts):
            column = matrix.columns[place] if place < len(matrix.columns) else None
            matched = cluster is not None and column is not None and matching.get(cluster.id) == column.id
            squares.append(_square(comparison, cluster, column, count, total, matched))
        lines.append(Line(cluster, total, squares))
    return lines


def _square(
    comparison: Comparison, a: ClusterResult | None, b: ClusterResult | None, count: int, total: int, matched: bool
) -> Square:
    shade = math.ceil(SHADES * count / max(1, total))
    href = _url(comparison, row=a.id, column=b.id) + "#items" if a and b and count else None
    in_a, in_b = (excerpt(c.name, 60) if c else "others" for c in (a, b))
    said = f"{count:,} of {total:,} in A {in_a}, in B {in_b}" + (": matching clusters" if matched else "")
    return Square(count, shade, matched, href, said)


def _both(one: Seen, other: Seen, items: Sequence[str]) -> list[Both]:
    return [Both(tile(one, item), tile(other, item)) for item in items]


def _url(comparison: Comparison, **query: object) -> str:
    return compare_url(comparison.a.result.session, comparison.b.result.session, **query)


def _choices(records: Sequence[SessionRecord], than: SessionRecord | None) -> list[tuple[str, list[SessionRecord]]]:
    """The newest sessions that can be compared, those over the same collection first."""
    there = [r for r in records if r.policy != TEACHER and (than is None or r.id != than.id)][:_OFFERED]
    if than is None:
        return [("Sessions", there)]
    same = [record for record in there if record.collection == than.collection]
    others = [record for record in there if record.collection != than.collection]
    return [("Of the same collection", same), ("Of others", others)]
