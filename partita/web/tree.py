"""How the clusters of a session came about: from founding groups through unions to what they are, as nested lists.

What agents did is told of the clusters as agents left them, each where most of it stands now; what people corrected is
told beside it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    steps: list[Step]
    folded: list[Step]
    """Later ones."""
    left_out: int
    """Unions that are too many to show."""


@dataclass(frozen=True, slots=True)
class Root:
    """A group that agents united with no other, where it stands now."""

    branch: Branch
    gone: int
    """Nodes of it that stand in other clusters by what people said."""
    by_hand: bool
    """Whether it stands beside the first one by what people said."""


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
    roots: list[Root]
    groups: int
    """Founding groups."""
    strays: list[tuple[ClusterResult, int]]
    """How many nodes agents had in what is now another cluster."""
    put: list[tuple[ClusterResult, int]]
    """How many nodes people put here from what is now another cluster."""
    unknown: int
    kept: list[Kept]
    corrections: list[Told]


@dataclass(frozen=True, slots=True)
class _Told:
    descents: list[Descent]
    """Of the clusters as agents left them."""
    now: list[int]
    """Where each of these stands now: the position of the cluster that holds most of it."""
    origin: dict[int, int]
    """The position of the cluster in which agents left each node."""
    home: dict[int, int]
    """That of the cluster in which it stands now."""
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
    clusters = [c.nodes for c in seen.found.clusters]
    origin = {node: at for at, nodes in enumerate(clusters) for node in nodes}
    home = {seen.node[item]: at for at, c in enumerate(seen.result.clusters) for item in c.items}
    now = [Counter(home[node] for node in nodes).most_common(1)[0][0] for nodes in clusters]
    made = _Told(lineage(rows, clusters), now, origin, home, any(row.decided for row in rows))
    with _LOCK:
        _TOLD[seen] = made
    return made


def _grown(desk: Desk, seen: Seen, told: _Told, shown: Sequence[ClusterResult], said: Sequence[Told]) -> list[Grown]:
    pages = {c.id - 1 for c in shown}
    descents = [d for d, at in zip(told.descents, told.now, strict=True) if at in pages]
    answers = {union.answer for d in descents for root in d.lines for line in root.lines() for union in line.unions}
    answers |= {refusal.answer for d in descents for refusal in d.refusals}
    view = _View(seen, told, reasons(desk.db, seen.record.id, answers))
    return [view.grown(cluster, said) for cluster in shown]


class _View:
    """Makes what the page shows of what is known."""

    def __init__(self, seen: Seen, told: _Told, reasons: dict[int, str]) -> None:
        self._seen, self._told, self._reasons = seen, told, reasons

    def grown(self, cluster: ClusterResult, said: Sequence[Told]) -> Grown:
        here, now = cluster.id - 1, self._told.now
        origins = [at for at, where in enumerate(now) if where == here]
        descents = [self._told.descents[at] for at in origins]
        roots = self._roots(here, origins)
        strays: Counter[int] = Counter()
        refused: dict[int, Refusal] = {}
        for descent in descents:
            for other, nodes in descent.strays.items():
                strays[now[other]] += len(nodes)
            for refusal in descent.refusals:
                refused.setdefault(now[refusal.other], refusal)
        nodes_here = {self._seen.node[item] for item in cluster.items}
        put = Counter(now[self._told.origin[node]] for node in sorted(nodes_here))
        left = {v for at in origins for v in self._seen.found.clusters[at].nodes}
        items = {self._seen.named[v] for v in nodes_here | left}
        return Grown(
            cluster,
            roots,
            sum(1 for descent in descents for root in descent.lines for _ in root.lines()),
            self._elsewhere(strays, here),
            self._elsewhere(put, here),
            sum(len(descent.unknown) for descent in descents),
            [self._kept(refusal, other) for other, refusal in refused.items() if other != here],
            [one for one in said if not items.isdisjoint((*one.items, *one.others))],
        )

    def _roots(self, here: int, origins: Sequence[int]) -> list[Root]:
        """What agents left in these clusters, the largest first."""
        lines = [(line, at) for at in origins for line in self._told.descents[at].lines]
        lines.sort(key=lambda one: -one[0].size)
        left, home = [GROUPS], self._told.home
        return [
            Root(
                self._branch(line, left),
                sum(home[node] != here for part in line.lines() for node in part.joined),
                by_hand=at != lines[0][1],
            )
            for line, at in lines[:GROUPS]
        ]

    def _elsewhere(self, counts: Mapping[int, int], here: int) -> list[tuple[ClusterResult, int]]:
        return [(self._seen.result.clusters[at], count) for at, count in counts.items() if at != here]

    def _branch(self, line: Line, left: list[int]) -> Branch:
        steps = []
        for union in line.unions:
            if left[0] <= 0:
                break
            left[0] -= 1
            reason = "" if union.counting else self._reasons.get(union.answer, "")
            steps.append(Step(union, self._sides(union.shown), reason, self._branch(union.other, left)))
        founders = self._tiles([*line.founders, *line.joined])
        return Branch(line, founders, steps[:FOLD], steps[FOLD:], len(line.unions) - len(steps))

    def _kept(self, refusal: Refusal, other: int) -> Kept:
        return Kept(
            refusal,
            self._seen.result.clusters[other],
            self._sides(refusal.shown),
            self._reasons.get(refusal.answer, ""),
        )

    def _sides(self, shown: tuple[Sequence[int], Sequence[int]]) -> tuple[list[Tile], list[Tile]]:
        return self._tiles(shown[0]), self._tiles(shown[1])

    def _tiles(self, nodes: Iterable[int]) -> list[Tile]:
        first = list(dict.fromkeys(nodes))[:SHOWN]
        named = self._seen.named
        return list(tiles(self._seen, (named[node] for node in first if node in named)))
