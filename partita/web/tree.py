"""How the clusters of a session came about: from founding groups through unions to what they are, as nested lists."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from fastapi import APIRouter
from starlette.responses import Response

from graphs.lineage import Descent, Line, Refusal, Union, lineage
from partita.result import ClusterResult
from partita.steering import Steering, Told
from partita.web.clusters import CLUSTERS, head
from partita.web.desk import Desk, Seen
from partita.web.given import ADesk
from partita.web.rendering import Tile, page, tiles
from storage.judged import judged, reasons

router = APIRouter()
FOLD = 24
"""Unions of one group that are shown without being asked for; a cluster of more groups than this has them closed."""
GROUPS = 150
"""Groups of one cluster on the page."""
SHOWN = 3
"""Pictures of a group, or of either side."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A group on the page."""

    line: Line
    founders: list[Tile]
    size: int
    steps: list[Step]
    folded: list[Step]
    """Later ones."""
    left_out: int
    """Unions that are too many to show."""


@dataclass(frozen=True, slots=True)
class Step:
    """A union on the page."""

    union: Union
    sides: tuple[list[Tile], list[Tile]]
    reason: str
    branch: Branch


@dataclass(frozen=True, slots=True)
class Kept:
    """A comparison that kept two clusters apart."""

    refusal: Refusal
    other: ClusterResult
    sides: tuple[list[Tile], list[Tile]]
    reason: str


@dataclass(frozen=True, slots=True)
class Grown:
    """A cluster on the page."""

    cluster: ClusterResult
    branches: list[Branch]
    groups: int
    """Founding groups."""
    strays: list[tuple[ClusterResult, int]]
    """How many nodes agents had in what is now another cluster."""
    unknown: int
    kept: list[Kept]
    corrections: list[Told]


@dataclass(frozen=True, slots=True)
class _Told:
    descents: list[Descent]
    decided: bool
    """Whether the ledger has what the search made of answers."""


_TOLD: WeakKeyDictionary[Seen, _Told] = WeakKeyDictionary()
_LOCK = threading.Lock()


@router.get("/s/{name}/tree")
def tree(name: str, desk: ADesk, start: int = 0) -> Response:
    """The clusters, the largest first, each with how it came about."""
    seen = desk.seen(name)
    there = seen.result.clusters
    start = max(0, min(start, len(there)))
    told = _told(desk, seen)
    shown = there[start : start + CLUSTERS]
    words = Steering(desk.db, name).told()
    said = [one for one in words if one.holds and one.did != "undo"]
    grown = _grown(desk, seen, told, shown, said)
    following = start + CLUSTERS if start + CLUSTERS < len(there) else None
    before = max(0, start - CLUSTERS) if start else None
    lacking = seen.record.policy == "evidence" and not told.decided
    return page("tree", **head(desk, name), tab="tree", grown=grown, following=following, before=before,
                lacking=lacking, fold=FOLD)  # fmt: skip


def _told(desk: Desk, seen: Seen) -> _Told:
    """Made once for each state of a session."""
    with _LOCK:
        known = _TOLD.get(seen)
    if known is not None:
        return known
    rows = judged(desk.db, seen.record.id)
    clusters = [list(dict.fromkeys(seen.node[item] for item in c.items)) for c in seen.result.clusters]
    made = _Told(lineage(rows, clusters), any(row.decided for row in rows))
    with _LOCK:
        _TOLD[seen] = made
    return made


def _grown(desk: Desk, seen: Seen, told: _Told, shown: Sequence[ClusterResult], said: Sequence[Told]) -> list[Grown]:
    descents = [told.descents[c.id - 1] for c in shown]
    answers = {union.answer for d in descents for root in d.lines for line in root.lines() for union in line.unions}
    answers |= {refusal.answer for d in descents for refusal in d.refusals}
    view = _View(seen, reasons(desk.db, seen.record.id, answers))
    return [view.grown(cluster, descent, said) for cluster, descent in zip(shown, descents, strict=True)]


class _View:
    """Makes what the page shows of what is known."""

    def __init__(self, seen: Seen, reasons: dict[int, str]) -> None:
        self._seen, self._reasons = seen, reasons

    def grown(self, cluster: ClusterResult, descent: Descent, said: Sequence[Told]) -> Grown:
        there = self._seen.result.clusters
        items = set(cluster.items)
        left = [GROUPS]
        return Grown(
            cluster,
            [self._branch(line, left) for line in descent.lines[:GROUPS]],
            sum(1 for root in descent.lines for _ in root.lines()),
            [(there[at], len(nodes)) for at, nodes in descent.strays.items()],
            len(descent.unknown),
            [self._kept(refusal) for refusal in descent.refusals],
            [one for one in said if not items.isdisjoint((*one.items, *one.others))],
        )

    def _branch(self, line: Line, left: list[int]) -> Branch:
        steps = []
        for union in line.unions:
            if left[0] <= 0:
                break
            left[0] -= 1
            reason = "" if union.counting else self._reasons.get(union.answer, "")
            steps.append(Step(union, self._sides(union.shown), reason, self._branch(union.other, left)))
        founders = self._tiles([*line.founders, *line.joined])
        return Branch(line, founders, line.size, steps[:FOLD], steps[FOLD:], len(line.unions) - len(steps))

    def _kept(self, refusal: Refusal) -> Kept:
        other = self._seen.result.clusters[refusal.other]
        return Kept(refusal, other, self._sides(refusal.shown), self._reasons.get(refusal.answer, ""))

    def _sides(self, shown: tuple[Sequence[int], Sequence[int]]) -> tuple[list[Tile], list[Tile]]:
        return self._tiles(shown[0]), self._tiles(shown[1])

    def _tiles(self, nodes: Iterable[int]) -> list[Tile]:
        first = list(dict.fromkeys(nodes))[:SHOWN]
        named = self._seen.named
        return list(tiles(self._seen, (named[node] for node in first if node in named)))
