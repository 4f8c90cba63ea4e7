"""How each cluster of a partition came about: founded with whom, united with what and why, kept apart from what.

A pure function of what agents judged (`storage.judged`), for both policies. The ledger has no rows for clusters, so
they are known by their members: whoever stands for a cluster in a question is in it then. What the ledger does not
tell (a place that was given in stock-taking, a session without decisions) is counted, never guessed as a fact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.judged import Judged

Nodes = tuple[int, ...]
APART = 3
"""So many refusals of each cluster are told, the nearest to being united."""


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """Two groups that were found to be one."""

    answer: int
    """The answer on which it was done."""
    odds: float | None
    """Log-odds that they are one, where the search keeps them."""
    counting: bool
    """In stock-taking after that answer, which was about something else."""
    shown: tuple[Nodes, Nodes]
    """Who stood for the group that went on, and for the one that was taken in."""
    other: Line
    """The one that was taken in, as it was then."""

    @property
    def size(self) -> int:
        """Nodes that came by the one that was taken in: at least those that stood for it, wherever they went later."""
        return max(self.other.size, len(self.shown[1]))


@dataclass(slots=True, eq=False)
class Line:
    """A group from its founding on. Those united with it are lines of their own, hanging from its ``unions``."""

    founders: Nodes
    """With whom it begins, as far as is known."""
    answer: int | None
    """The answer on which it was founded; None for one that the search began with."""
    component: int | None
    joined: list[int] = field(default_factory=list)
    """Nodes that came to it by themselves and stand in the final cluster, founders among them, in order of coming."""
    unions: list[Union] = field(default_factory=list)
    """In order of time."""

    @property
    def size(self) -> int:
        """Nodes of the final cluster that came by it, those of the lines that it took in included."""
        return sum(len(line.joined) for line in self.lines())

    def lines(self) -> Iterator[Line]:
        """It, and everything that it took in."""
        todo = [self]
        while todo:
            line = todo.pop()
            yield line
            todo += [union.other for union in reversed(line.unions)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Two clusters that were compared and kept apart."""

    answer: int
    other: int
    """Position of the other one in the partition."""
    odds: float | None
    shown: tuple[Nodes, Nodes]
    """Who stood for this cluster, and for the other."""


@dataclass(frozen=True, slots=True)
class Descent:
    """How one cluster of the partition came about. Each of its nodes is in exactly one of the three."""

    lines: tuple[Line, ...]
    """What it consists of, the largest first: one, unless a person united it, or the ledger lacks a union."""
    strays: Mapping[int, Nodes]
    """Nodes that agents had in what is now another cluster, by its position."""
    unknown: Nodes
    """Nodes of which the ledger does not tell how they came here."""
    refusals: tuple[Refusal, ...]


def lineage(rows: Iterable[Judged], clusters: Sequence[Sequence[int]]) -> list[Descent]:
    """The descent of every cluster.

    Args:
        rows: what was judged, in the order of writing. Whatever in them is not as it should be is left out.
        clusters: the partition, as lists of nodes.
    """
    home = {node: at for at, nodes in enumerate(clusters) for node in nodes}
    walk = _Walk(home)
    events = list(rows)
    if any(row.decided for row in events):  # the search took them in the order of asking
        events.sort(key=lambda row: (row.step if isinstance(row.step, int) else -1, row.id))
    for row in events:
        walk.take(row)
    return walk.descents(clusters)


@dataclass(slots=True, eq=False)
class _Group:
    line: Line
    into: _Group | None = None
    known: int = 1
    """Nodes that were seen to come to it: of two that are united the one with more goes on. Never less than before, so
    that nothing is taken in more than log₂(nodes) deep."""

    def now(self) -> _Group:
        top = self
        while top.into is not None:
            top = top.into
        if self.into is not None:
            self.into = top  # the way is shorter next time
        return top


@dataclass(frozen=True, slots=True)
class _Apart:
    answer: int
    odds: float | None
    sides: tuple[_Group, _Group]
    shown: tuple[Nodes, Nodes]


class _Walk:
    def __init__(self, home: Mapping[int, int]) -> None:
        self._home = home
        self._groups: list[_Group] = []
        self._of: dict[int, _Group] = {}
        """Where each node came to by itself, in the order of coming."""
        self._gone: set[int] = set()
        """Those that stood alone for a group that was dissolved: questions about it are answered for a while yet."""
        self._leaning: dict[int, _Group] = {}
        """The last group that a node was said to belong to."""
        self._apart: list[_Apart] = []

    # -- answers --------------------------------------------------------------------------------------------------

    def take(self, row: Judged) -> None:
        decided = [one for one in row.decided if isinstance(one, dict)] if isinstance(row.decided, list) else []
        subject = row.subject if isinstance(row.subject, dict) else {}
        said = row.conclusion.split() if isinstance(row.conclusion, str) else []
        if row.kind == "merge":
            rest = self._compared(row, subject, said, decided)
        elif row.kind == "membership":
            rest = self._placed(row, subject, said, decided)
        else:
            return
        for one in rest:
            self._counted(row, one)

    def _placed(
        self, row: Judged, subject: Mapping[str, Any], said: list[str], decided: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """A question about candidates; what else was decided."""
        shown, candidates = _nodes(subject.get("representatives")), _nodes(subject.get("candidates"))
        group = self._standing(shown, row)
        for at, node in enumerate(candidates):
            verdict = said[at] if at < len(said) else "UNKNOWN"
            did = decided[at].get("did") if at < len(decided) and decided[at].get("item") == node else None
            if verdict == "YES" and group is not None:
                self._leaning[node] = group
            if did is None and not decided:
                did = "joined" if verdict == "YES" else "open"
            self._did(row, node, did, group if verdict == "YES" else None)
        return [one for at, one in enumerate(decided) if at >= len(candidates) or one.get("item") != candidates[at]]

    def _compared(
        self, row: Judged, subject: Mapping[str, Any], said: list[str], decided: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """A question about two clusters; what else was decided."""
        sides = _sides(subject.get("clusters")) or _sides(subject.get("representatives"))
        if sides is None:
            return decided
        if decided:
            did, odds = decided[0].get("did"), _number(decided[0].get("odds"))
        else:
            yes = said[:1] == ["YES"] and self._ended_together(*sides)
            did, odds = "united" if yes else "apart" if said[:1] == ["NO"] else "open", None
        if did == "united":
            self._unite(row, sides, odds, counting=False)
        elif did in ("apart", "open"):
            a, b = self._both_standing(sides, row)
            if did == "apart" and a is not None and b is not None:
                self._apart.append(_Apart(row.id, odds, (a, b), sides))
        return decided[1:]

    def _counted(self, row: Judged, one: Mapping[str, Any]) -> None:
        """What was decided in stock-taking."""
        did = one.get("did")
        if did == "united" and (sides := _sides(one.get("clusters"))) is not None:
            self._unite(row, sides, _number(one.get("odds")), counting=True)
        for node in _nodes([one.get("item")]) or _nodes(one.get("items")):
            self._did(row, node, did, None)

    def _did(self, row: Judged, node: int, did: Any, group: _Group | None) -> None:
        if did == "founded":
            self._join(node, self._new((node,), row.id, row.component))
        elif did == "left":
            self._of.pop(node, None)
            self._gone.add(node)
        elif did == "joined":
            self._gone.discard(node)
            # One that has its place already was only found to be right there.
            if group is not None and node not in self._of:
                self._join(node, group)
        elif did == "moved":
            self._gone.discard(node)
            if group is not None and (node not in self._of or self._of[node].now() is not group.now()):
                self._join(node, group)
            else:
                self._of.pop(node, None)  # to where is seen when it stands for the cluster, or at the end

    # -- groups ---------------------------------------------------------------------------------------------------

    def _standing(self, shown: Nodes, row: Judged) -> _Group | None:
        """The group for which these stand; None for one that was dissolved."""
        return self._all_in(shown, self._likely(shown), row)

    def _both_standing(self, sides: tuple[Nodes, Nodes], row: Judged) -> tuple[_Group | None, _Group | None]:
        """The groups for which either side stands: two, as they were when it was asked.

        Some of those shown may have moved from one to the other since.
        """
        a, b = (self._likely(side) for side in sides)
        if a and b and a[0] is b[0]:
            if len(b) > 1:
                b = b[1:]
            elif len(a) > 1:
                a = a[1:]
        return self._all_in(sides[0], a, row), self._all_in(sides[1], b, row)

    def _likely(self, shown: Nodes) -> list[_Group]:
        """The groups in which these are, that of most of them first; of equals the one whose member is named first."""
        there = [self._of[node].now() for node in shown if node in self._of]
        found = list({id(group): group for group in there}.values())
        count = Counter(map(id, there))
        return sorted(found, key=lambda group: -count[id(group)])

    def _all_in(self, shown: Nodes, likely: Sequence[_Group], row: Judged) -> _Group | None:
        """The likeliest of these groups, or a new one, with all that are shown for it and have been in none so far."""
        fresh = [node for node in shown if node not in self._of and node not in self._gone]
        if not likely and not fresh:
            return None
        group = likely[0] if likely else self._new(tuple(fresh), None, row.component)
        for node in fresh:
            self._join(node, group)
        return group

    def _new(self, founders: Nodes, answer: int | None, component: int | None) -> _Group:
        group = _Group(Line(founders, answer, component if isinstance(component, int) else None))
        self._groups.append(group)
        return group

    def _join(self, node: int, group: _Group) -> None:
        group = group.now()
        if node in self._of and self._of[node].now() is group:
            return
        self._gone.discard(node)
        self._of.pop(node, None)
        self._of[node] = group
        group.known += 1

    def _unite(self, row: Judged, sides: tuple[Nodes, Nodes], odds: float | None, counting: bool) -> None:
        a, b = self._both_standing(sides, row)
        if a is None or b is None:
            return
        if a is b:  # the ledger knows better: they were two, and how these came together it does not tell
            b = self._new(sides[1], None, row.component)
            for node in sides[1]:
                self._join(node, b)
        if b.known > a.known:
            a, b, sides = b, a, (sides[1], sides[0])
        a.line.unions.append(Union(row.id, odds, counting, sides, b.line))
        a.known += b.known
        b.into = a

    def _ended_together(self, one: Nodes, other: Nodes) -> bool:
        """Whether most of both stand in one cluster in the end: all that tells of a union where no decisions are."""
        a, b = self._mostly(one), self._mostly(other)
        return a is None or b is None or a == b

    def _mostly(self, nodes: Iterable[int]) -> int | None:
        votes = Counter(self._home[node] for node in nodes if node in self._home)
        return min(votes, key=lambda at: (-votes[at], at), default=None)

    # -- the end --------------------------------------------------------------------------------------------------

    def descents(self, clusters: Sequence[Sequence[int]]) -> list[Descent]:
        ended = self._ended()
        for node, group in self._leaning.items():  # never settled, and stands where it was said to belong
            if node not in self._of and node in self._home and ended.get(id(group.now())) == self._home[node]:
                self._join(node, group)
        strays: list[dict[int, list[int]]] = [{} for _ in clusters]
        for node, group in self._of.items():
            if (at := self._home.get(node)) is None:
                continue
            if (where := ended[id(group.now())]) == at:
                group.line.joined.append(node)
            else:
                strays[at].setdefault(where, []).append(node)
        roots: list[list[Line]] = [[] for _ in clusters]
        for group in self._groups:
            if group.into is None and id(group) in ended and group.line.size:
                roots[ended[id(group)]].append(group.line)
        refused = self._refusals(ended, len(clusters))
        return [
            Descent(
                tuple(sorted(roots[at], key=lambda line: -line.size)),
                {where: tuple(nodes) for where, nodes in strays[at].items()},
                tuple(node for node in nodes if node not in self._of),
                refused[at],
            )
            for at, nodes in enumerate(clusters)
        ]

    def _ended(self) -> dict[int, int]:
        """In which cluster most of what came to each group ended."""
        votes: dict[int, Counter[int]] = {}
        for node, group in self._of.items():
            if node in self._home:
                votes.setdefault(id(group.now()), Counter())[self._home[node]] += 1
        return {key: min(count, key=lambda at: (-count[at], at)) for key, count in votes.items()}

    def _refusals(self, ended: Mapping[int, int], count: int) -> list[tuple[Refusal, ...]]:
        """Of each pair of clusters the last comparison that kept them apart; of each cluster the nearest."""
        last: list[dict[int, Refusal]] = [{} for _ in range(count)]
        for one in self._apart:
            a, b = (ended.get(id(side.now())) for side in one.sides)
            if a is None or b is None or a == b:
                continue
            for here, there, shown in ((a, b, one.shown), (b, a, one.shown[::-1])):
                last[here].pop(there, None)  # the last said stands last
                last[here][there] = Refusal(one.answer, there, one.odds, (shown[0], shown[1]))
        return [_nearest(list(found.values())) for found in last]


def _nearest(refusals: list[Refusal]) -> tuple[Refusal, ...]:
    """The likeliest to be one first; where there are no odds, the last said first."""
    latest = refusals[::-1]
    latest.sort(key=lambda r: -r.odds if r.odds is not None else math.inf)
    return tuple(latest[:APART])


def _nodes(value: Any) -> Nodes:
    """What of a list are nodes, each once."""
    if not isinstance(value, list | tuple):
        return ()
    return tuple(dict.fromkeys(v for v in value if isinstance(v, int) and not isinstance(v, bool)))


def _sides(value: Any) -> tuple[Nodes, Nodes] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    one, other = _nodes(value[0]), _nodes(value[1])
    return (one, other) if one and other else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
