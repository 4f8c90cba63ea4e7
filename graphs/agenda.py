"""Whom the search of policy ``evidence`` asks about next, and at which cluster (METHOD 7).

Each cluster has a heap of the items that would best be asked about there. Sure items come first until the middles of
the clusters are known, then those in doubt; docs/design/evidence.md tells why.
"""

from __future__ import annotations

import heapq

import numpy as np

from graphs.asks import EvidenceSettings, MembershipAsk
from graphs.groups import Group
from graphs.likeness import Floats, Indices
from graphs.memberships import Memberships

PROBES = 24
"""So many items that were refused are asked about to the end before the others: the error rates become known early."""
AT_ONCE = 5
"""Questions about one item that may be outstanding together, when there is nothing else to ask."""
OPEN, ASKED, CLOSED, PUT_OFF = range(4)
"""States of an item: to be asked about, being asked about, settled, nothing left to ask for now."""


class Agenda:
    """The order of questions about items."""

    def __init__(self, table: Memberships, groups: list[Group], settings: EvidenceSettings) -> None:
        """``groups`` is the search's own list of clusters, which it changes in place."""
        self._table = table
        self._groups = groups
        self._settings = settings
        self.state = np.full(table.items, OPEN, dtype=np.int8)
        """(n,) OPEN, ASKED, CLOSED or PUT_OFF."""
        self.unknowns = np.zeros(table.items, dtype=np.int64)
        """(n,) UNKNOWN answers about each item."""
        self.middles_known = False
        """Whether items in doubt come first."""
        self._used: dict[int, set[tuple[int, ...]]] = {}
        self._waits_for: dict[int, list[Group]] = {}
        self._probes: set[int] = set()

    def waits(self, x: int) -> bool:
        """Whether a question about the item is outstanding."""
        return x in self._waits_for

    def answered(self, group: Group, x: int) -> None:
        """A question about the item at a cluster is outstanding no more."""
        group.outstanding -= 1
        self._waits_for[x].remove(group)
        if not self._waits_for[x]:
            del self._waits_for[x]

    def refused(self, x: int) -> None:
        """The item was refused: the first of these are asked about to the end before the others."""
        if len(self._probes) < PROBES:
            self._probes.add(x)

    def next(self, number: int, *, idle: bool) -> MembershipAsk | None:
        """The next question, which gets this number; None when there is none for now.

        When the search is ``idle``, little being outstanding, items are asked about at several clusters at once.
        """
        while (group := self._next_group()) is not None:
            _, x = heapq.heappop(group.ahead)
            if (ask := self._ask(number, group, x)) is not None:
                return ask
            self.state[x] = PUT_OFF
        return self._ask_ahead(number) if idle else None

    def _ask(self, number: int, group: Group, x: int) -> MembershipAsk | None:
        shown = group.representatives(self._settings.representatives, x, self._used.get(x, ()))
        if not shown:
            return None
        candidates = [x, *(self._beside(group, shown) if self._settings.batch > 1 else ())]
        for v in candidates:
            self._used.setdefault(v, set()).add(shown)
            self.state[v] = ASKED
            self._waits_for.setdefault(v, []).append(group)
        group.outstanding += len(candidates)
        return MembershipAsk(number, shown, tuple(candidates), group)

    def _beside(self, group: Group, shown: tuple[int, ...]) -> list[int]:
        """Others to be judged in the same call: as much in need of it, and not judged with these members yet."""
        more: list[int] = []
        passed: list[tuple[float, int]] = []
        while group.ahead and len(more) < self._settings.batch - 1:
            rank, v = heapq.heappop(group.ahead)
            if self.state[v] != OPEN or v in more:
                continue
            if v in shown or shown in self._used.get(v, ()):
                passed.append((rank, v))
            else:
                more.append(v)
            if len(passed) >= self._settings.batch:
                break
        for rank, v in passed:
            heapq.heappush(group.ahead, (rank, v))
        return more

    def _ask_ahead(self, number: int) -> MembershipAsk | None:
        """Towards the end, ask about an item at several clusters at once rather than let the endpoint wait."""
        for x, groups in self._waits_for.items():
            if len(groups) >= AT_ONCE or self._table.belief[x].max() > 0.7:
                continue
            worth = self._worth(np.array([x]))[0]
            worth[[group.now().column for group in groups if not group.now().gone]] = 0
            if self._table.home[x]:
                worth[self._table.home[x]] = 0
            best = int(worth.argmax())
            if worth[best] >= 0.02 and (ask := self._ask(number, self._groups[best - 1], x)) is not None:
                return ask
        return None

    def _next_group(self) -> Group | None:
        """The cluster to ask at next: a young one, then of those with about as likely an item the smallest.

        So all grow at once, and the middles of all are known before the doubtful items are asked about.
        """
        ready: list[Group] = []
        for group in self._groups:
            ahead = group.ahead
            while ahead and self.state[ahead[0][1]] != OPEN:
                heapq.heappop(ahead)
            if ahead and group.outstanding < 4 + 2 * len(group.trusted):
                ready.append(group)
        if not ready:
            return None
        young = [g for g in ready if g.size < 4 and g.outstanding < 2 and g.ahead[0][0] <= -0.15]
        enough = 0.8 * min(group.ahead[0][0] for group in ready)
        likely = young or [group for group in ready if group.ahead[0][0] <= enough]
        return min(likely, key=lambda group: (group.size + group.outstanding, group.ahead[0], group.name))

    def put_up(self, items: Indices) -> None:
        """Choose the cluster at which each item is asked next, if that is worth a question."""
        alone = np.array([self._is_alone(x) for x in items.tolist()], dtype=np.bool_)
        worth = self._worth(items)
        worth[alone, self._table.home[items[alone]]] = 0
        best = worth.argmax(axis=1)
        likely = worth[np.arange(len(items)), best]
        self.state[items] = np.where(likely < 1e-4, PUT_OFF, OPEN)
        # A cluster of one that may be part of another is looked at first: it would draw its likes away.
        probe = np.array([x in self._probes for x in items.tolist()], dtype=np.bool_)
        first = likely
        if self.middles_known:
            first = np.round(0.94 - 0.44 * self._table.belief[items].max(axis=1), 9)
        order = np.where(alone, -1.0, np.where(probe, -0.95, -first))
        for x, column, rank, p in zip(items.tolist(), best.tolist(), order.tolist(), likely.tolist(), strict=True):
            if p >= 1e-4:
                heapq.heappush(self._groups[column - 1].ahead, (rank, x))

    def _worth(self, items: Indices) -> Floats:
        """(rows, c + 1) how likely each item is to belong where it may still be asked."""
        table, settings = self._table, self._settings
        asked = table.yes[items] + table.no[items]
        worth = table.belief[items].copy()
        worth[:, 0] = 0
        worth[asked >= settings.asks] = 0
        repeated = asked.sum(axis=1) - (asked > 0).sum(axis=1)
        worth[(repeated >= settings.repeats)[:, None] & (asked > 0)] = 0
        worth[(table.hard[items] > 0.8) | (self.unknowns[items] >= settings.unknowns)] = 0
        return worth

    def _is_alone(self, x: int) -> bool:
        home = int(self._table.home[x])
        return home > 0 and self._groups[home - 1].size == 1
