"""The search of policy ``evidence``, as a reducer (METHOD 7, ARCHITECTURE 10).

``EvidenceSearch`` knows no model, no database and no LangGraph. It keeps a window of questions outstanding, takes their
answers in the order of asking, and given the same vectors and answers always asks the same.

Every item has a probability for each cluster and for "a cluster not found yet": a prior from the embeddings, worth what
the answers so far have shown it to be worth, and what its own answers add (``odds``, ``memberships``). The next
question about an item goes to its most probable cluster, until one is certain enough. Clusters that look alike, or have
members that fit both, are compared and united (``pairs``). Every so many answers a *stock-taking* weighs everything
anew: middles of clusters, calibration, error rates, and with them who belongs where. docs/design/evidence.md tells why.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from threadpoolctl import ThreadpoolController

from agents.conclusions import Conclusion
from graphs.agenda import ASKED, CLOSED, OPEN, PUT_OFF, Agenda
from graphs.asks import Ask, ComparisonAsk, Decision, EvidenceSettings, MembershipAsk
from graphs.groups import TRUSTED, Group
from graphs.likeness import Floats, Indices, Likeness, Whole
from graphs.memberships import Memberships
from graphs.odds import Rates, log_odds
from graphs.pairs import Key, Pairs, bound, key_of, stake
from graphs.relational import WEIGHT_ONE

MEMBERS = 20
"""The surest items are asked about first, until half of the clusters have so many members times (1 + the variance
inside clusters / that between them), which tell where their middles are; from then on those whose place is in doubt
most, so that a budget is spent where it changes most."""
SMALL = 10**8
"""Multiplications in a product of matrices that is not worth a second thread."""
_THREADS = ThreadpoolController()


class EvidenceSearch:
    """Finds the clusters of a collection from answers that may be wrong.

    ``questions`` gives the asks that have come up since the last call; put them in any order, ``apply`` their answers
    in the order of asking. When ``done``, or whenever it has to stop, ``clusters`` is the partition and ``confidence``
    how sure each item's place is.
    """

    def __init__(self, vectors: Whole, degrees: Indices, settings: EvidenceSettings | None = None) -> None:
        """``vectors`` (n, d) as ``whole_vectors`` gives them; ``degrees`` (n,) as the relational graph has them."""
        self.settings = settings or EvidenceSettings()
        self.answers = 0
        """Candidates judged and pairs of clusters compared."""
        self.done = False
        self._likeness = Likeness(vectors)
        self._table = Memberships(self._likeness)
        self._pairs = Pairs()
        self._groups: list[Group] = []
        self._agenda = Agenda(self._table, self._groups, self.settings)
        self._has_founded = np.zeros(len(vectors), dtype=np.bool_)
        self._compared: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        self._comparing: set[Key] = set()
        self._to_compare: list[tuple[float, Key]] = []
        self._named: dict[int, Group] = {}
        self._since = 0
        self._due = False
        self._ending = False
        self._asked = 0
        self._outstanding: deque[Ask] = deque()
        self._new: list[Ask] = []
        self._decided: list[Decision] = []
        self.seed = 0
        """With which item the first cluster was begun."""
        self._centrality: Floats = np.log1p(degrees.astype(np.float64) / WEIGHT_ONE).round(6)
        if len(vectors):
            first = min(math.sqrt(len(vectors)) / 3, self.settings.window / 4)
            seeds = self._likeness.seeds(max(2, int(first)), self._centrality)
            self.seed = seeds[0]
            for seed in seeds:
                self._found(seed)
            self._take_stock()
        self._fill()

    # What the caller sees

    def questions(self) -> list[Ask]:
        """The asks that have come up since the last call, in order."""
        new, self._new = self._new, []
        return new

    def apply(self, ask: Ask, conclusions: Sequence[Conclusion]) -> list[Decision]:
        """Take the answer to the oldest outstanding ask: a conclusion for each candidate, or one for a comparison.

        What it decided comes first, in the order of the candidates, then what the stock-taking after it did.

        Raises:
            ValueError: it is not the oldest, or there are too few or too many conclusions.
        """
        if not self._outstanding or self._outstanding[0] is not ask:
            raise ValueError("answers are applied in the order of asking")
        if len(conclusions) != (len(ask.candidates) if isinstance(ask, MembershipAsk) else 1):
            raise ValueError("a membership has a conclusion for each candidate, a comparison has one")
        self._outstanding.popleft()
        self.answers += len(conclusions)
        self._since += len(conclusions)
        if isinstance(ask, MembershipAsk):
            pairs = zip(ask.candidates, conclusions, strict=True)
            self._decided = [self._membership(ask, x, conclusion) for x, conclusion in pairs]
        else:
            self._decided = [self._comparison(ask, conclusions[0])]
        if self._since >= (8 if self._due else max(24, self.answers // 14)):
            self._take_stock()
        self._fill()
        return self._decided

    @property
    def clusters(self) -> list[list[int]]:
        """The partition as it stands: the largest cluster first, of each the surest members first."""
        homes = self._homes()
        sure = self.confidence
        members: dict[int, list[int]] = {}
        for v in np.lexsort((np.arange(len(homes)), -sure)).tolist():
            members.setdefault(int(homes[v]) or -1 - v, []).append(v)
        return sorted(members.values(), key=lambda m: (-len(m), min(m)))

    @property
    def confidence(self) -> Floats:
        """(n,) probability that each item stands where it belongs."""
        homes, belief = self._homes(), self._table.belief
        own: Floats = belief[np.arange(len(homes)), homes]
        return np.where(self._alone & (homes == self._table.home), np.maximum(own, belief[:, 0]), own)

    @property
    def placed(self) -> int:
        """Items that stand in a cluster for now and are not asked about."""
        return int(np.count_nonzero(self._agenda.state == CLOSED))

    @property
    def founded(self) -> int:
        """Clusters for now."""
        return len(self._groups)

    @property
    def rates(self) -> tuple[Rates, Rates]:
        """How often the agent seems to err in memberships and in comparisons."""
        return self._table.rates, self._pairs.rates

    @property
    def _settled(self) -> float:
        return log_odds(1 - self.settings.doubt)

    def _homes(self) -> Indices:
        """Where every item stands, the open ones where they most probably belong."""
        table, belief = self._table, self._table.belief
        if not self._groups or not len(belief):
            return table.home
        likely = belief[:, 1:].copy()
        small = table.sizes[1:] < 2 * self.settings.representatives
        likely[small & (table.no[:, 1:] > table.yes[:, 1:])] = 0  # it could not be asked there again
        best = np.argmax(likely, axis=1) + 1
        stuck = self._agenda.state == PUT_OFF
        best[stuck & (likely.max(axis=1) < belief[:, 0]) & small[best - 1]] = 0
        # One of a class that has its cluster, refused there more than once, must not pass for a class of its own.
        astray = self._alone & stuck & (belief[:, 0] < 0.95) & (best > 0)
        astray &= table.sizes[best] >= 2 * self.settings.representatives
        return np.where((table.home == 0) | astray, best, table.home)

    @property
    def _alone(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        home = self._table.home
        out: np.ndarray[tuple[int], np.dtype[np.bool_]] = (home > 0) & (self._table.sizes[home] == 1)
        return out

    # Answers

    def _membership(self, ask: MembershipAsk, x: int, conclusion: Conclusion) -> Decision:
        table, group = self._table, ask.group.now()
        self._agenda.answered(ask.group, x)
        if group.gone:
            if (did := self._judge(x)) == "open":
                return Decision(0.0, self._settled, "dissolved", x)
            return Decision(log_odds(float(table.belief[x].max())), self._settled, did, x)
        group.asked += 1
        c = group.column
        if conclusion is Conclusion.UNKNOWN:
            self._agenda.unknowns[x] += 1
        elif conclusion is Conclusion.YES:
            table.yes[x, c] += 1
            if len(ask.representatives) == 1 and table.home[ask.representatives[0]] == c:
                table.yes[ask.representatives[0], c] += 1  # the same question the other way round
        else:
            table.no[x, c] += 1
            if self.answers >= table.items // 5:
                self._agenda.refused(x)
            if group.size == 1:
                group.disappointed += max(0.0, float(table.prior[x, c] - table.share[c]))
        table.weigh(x)
        return Decision(log_odds(float(table.belief[x, c])), self._settled, self._judge(x), x)

    def _judge(self, x: int) -> str:
        """Settle an item, found a cluster with it, or put it up for its next question."""
        if self._agenda.waits(x):
            return "open"
        belief = self._table.belief[x]
        top = int(belief.argmax())
        home = int(self._table.home[x])
        alone = home > 0 and self._groups[home - 1].size == 1
        if top == 0:
            if alone and belief[0] >= 1 - self.settings.doubt:
                self._agenda.state[x] = CLOSED
                return "open"
            if home == 0 and belief[0] >= 0.5 and self._may_found(x):
                self._found(x)
                return "founded"
        # A small cluster has no fresh representatives to ask again with: it takes members on trust and looks again.
        elif belief[top] >= (0.5 if self._takes_on_trust(x, top) else 1 - self.settings.doubt):
            self._settle(x, top)
            return "joined" if home in (0, top) else "moved"
        self._agenda.put_up(np.array([x]))
        return "open"

    def _takes_on_trust(self, x: int, column: int) -> bool:
        small = self._groups[column - 1].size < 2 * self.settings.representatives
        return small and bool(self._table.yes[x, column] > 0)

    def _settle(self, x: int, column: int) -> None:
        was = int(self._table.home[x])
        self._table.home[x] = column
        self._agenda.state[x] = CLOSED
        if was == column:
            return
        if was:
            old = self._groups[was - 1]
            old.size -= 1
            old.trusted = [v for v in old.trusted if v != x]
        group = self._groups[column - 1]
        group.size += 1
        if len(group.trusted) < TRUSTED * self.settings.representatives:
            group.trusted.append(x)

    def _comparison(self, ask: ComparisonAsk, conclusion: Conclusion) -> Decision:
        self._comparing.discard(key_of(*ask.groups))
        a, b = (group.now() for group in ask.groups)
        shown = ask.representatives
        if a is b or a.gone or b.gone:
            return Decision(0.0, 0.0, "dissolved", clusters=shown)
        key, proof = key_of(a, b), bound(a, b)
        self._pairs.answered(key, conclusion)
        odds = self._pairs.odds(key)
        if self._pairs.proven(key, proof):
            self._unite(a, b)
            return Decision(odds, proof, "united", clusters=shown)
        if self._pairs.worth_asking(key, proof):
            heapq.heappush(self._to_compare, (-stake(odds, min(a.size, b.size)), key))
            return Decision(odds, proof, "open", clusters=shown)
        return Decision(odds, proof, "apart", clusters=shown)

    def _unite(self, a: Group, b: Group) -> None:
        kept, gone = (a, b) if (a.size, -a.name) > (b.size, -b.name) else (b, a)
        self._table.unite(kept.column, gone.column)
        self._pairs.unite(kept, gone)
        both = [v for pair in zip_longest(kept.trusted, gone.trusted) for v in pair if v is not None]
        kept.trusted = both[: TRUSTED * self.settings.representatives]
        kept.size += gone.size
        gone.into = kept
        for state, item in gone.ahead:
            heapq.heappush(kept.ahead, (state, item))
        self._remove(gone)
        self._due = True

    # Clusters

    def _found(self, x: int) -> None:
        column = self._table.found(x)
        group = Group(name=len(self._named) + 1, column=column, trusted=[x], born=self.answers)
        self._groups.append(group)
        self._named[group.name] = group
        self._agenda.state[x] = CLOSED
        self._has_founded[x] = True
        self._due = True

    def _young(self, group: Group) -> bool:
        """Whether a small cluster may still be the class of others that fit nowhere."""
        return group.size < 4 and group.asked < 16 and self.answers - group.born < 8 * self.settings.window

    def _may_found(self, x: int) -> bool:
        """Few clusters are founded at a time: the next item that fits nowhere is asked at the young ones first."""
        young = sum(map(self._young, self._groups))
        return young < 3 + len(self._groups) // 10 and not self._has_founded[x]

    def _remove(self, *gone: Group) -> None:
        self._groups[:] = [group for group in self._groups if group not in gone]
        for column, group in enumerate(self._groups, 1):
            group.column = column

    # Questions

    def _fill(self) -> None:
        while len(self._outstanding) < self.settings.window:
            ask = self._next()
            if ask is None and self._groups and self._runs_dry():
                self._take_stock(last=True)
                ask = self._next()
            if ask is None:
                break
            self._outstanding.append(ask)
            self._new.append(ask)
        self.done = not self._outstanding

    def _runs_dry(self) -> bool:
        """Whether it is time for the last questions: nothing is outstanding, or little for a while."""
        few = len(self._outstanding) < self.settings.window // 4
        return not self._outstanding or (few and self._since >= 8)

    def _next(self) -> Ask | None:
        while self._to_compare:
            _, key = heapq.heappop(self._to_compare)
            if (comparison := self._compare(key)) is not None:
                return comparison
        idle = self.answers >= self._table.items and len(self._outstanding) < self.settings.window // 2
        ask = self._agenda.next(self._asked + 1, idle=idle)
        self._asked += ask is not None
        return ask

    def _compare(self, key: Key) -> ComparisonAsk | None:
        a, b = self._named[key[0]], self._named[key[1]]
        if a.into or b.into or a.gone or b.gone or key in self._comparing:
            return None
        k = self.settings.representatives
        for turn in range(12):
            left, right = a.side(k, turn), b.side(k, turn + turn // 3)
            if left and right and (left, right) not in self._compared:
                self._compared.add((left, right))
                self._comparing.add(key)
                self._asked += 1
                return ComparisonAsk(self._asked, (left, right), (a, b))
        if self._ending and self._pairs.likely(key):
            # No others could stand for them: what was said has to do.
            shown = (a.side(k, 0), b.side(k, 0))
            self._decided.append(Decision(self._pairs.odds(key), bound(a, b), "united", clusters=shown))
            self._unite(a, b)
        return None

    # Stock-taking

    def _take_stock(self, last: bool = False) -> None:
        # BLAS's other threads would wait busily between small products, for longer than these take.
        small = self._likeness.items * self._likeness.width * max(len(self._groups), 1) < SMALL
        with _THREADS.limit(limits=1 if small else None):
            self._stock_taking(last)

    def _stock_taking(self, last: bool) -> None:
        self._since, self._due, self._ending = 0, False, last
        self._dissolve()
        self._weigh()
        if self._found_by_looks(last):
            self._weigh()
        spread = self._table.spread
        needed = MEMBERS * (1 + spread.within / spread.between)
        self._agenda.middles_known = sorted(g.size for g in self._groups)[len(self._groups) // 2] >= needed
        self._settle_all()
        self._to_compare, proven = self._pairs.weigh(self._groups, self._table, last)
        for key in proven:
            a, b = (self._named[name].now() for name in key)
            if a is not b:
                shown = (a.side(self.settings.representatives, 0), b.side(self.settings.representatives, 0))
                self._decided.append(Decision(self._pairs.odds(key), bound(a, b), "united", clusters=shown))
                self._unite(a, b)

    def _note(self, did: str, items: Indices) -> None:
        odds = self._table.belief[items].max(axis=1)
        self._decided += [
            Decision(log_odds(p), self._settled, did, x) for x, p in zip(items.tolist(), odds.tolist(), strict=True)
        ]

    def _weigh(self) -> None:
        young = np.array([self._young(group) for group in self._groups])
        self._table.weigh_all(young, self._pairs.apart(self._table.sizes))

    def _dissolve(self) -> None:
        """Remove clusters without members, and those of one that is not what it looks like."""
        home = self._table.home
        for group in self._groups:
            if group.size == 1 and group.disappointed >= 1.8 and len(np.unique(home[home > 0])) > 1:
                seed = np.flatnonzero(home == group.column)
                self._note("left", seed)
                home[seed] = 0
                self._agenda.state[seed] = np.where(self._agenda.state[seed] == ASKED, ASKED, OPEN)
        sizes = self._table.sizes
        empty = [group for group in self._groups if sizes[group.column] == 0]
        for group in empty:
            group.gone = True
        if empty:
            self._table.drop([group.column for group in empty])
            self._remove(*empty)

    def _found_by_looks(self, last: bool) -> bool:
        """Found a cluster with an item that most probably belongs to none; whether one was founded.

        At the end also with those that were refused everywhere while too many clusters were young.
        """
        far = (self._table.belief[:, 0] >= 0.5) & (self._table.home == 0)
        far &= ~self._has_founded if last else self._agenda.state == OPEN
        far &= self._agenda.state != ASKED
        if not far.any():
            return False
        x = int(np.argmax(np.where(far, self._centrality, -np.inf)))
        if not last and not self._may_found(x):
            return False
        self._note("founded", np.array([x]))
        self._found(x)
        self._due = False
        return True

    def _settle_all(self) -> None:
        """Judge all items that are not being asked about, and choose every cluster's trusted members anew."""
        table, doubt = self._table, self.settings.doubt
        rows = np.arange(table.items)
        top = table.belief.argmax(axis=1)
        best = table.belief[rows, top]
        free = self._agenda.state != ASKED
        sure = free & table.answered & (top > 0) & (best >= 1 - doubt)
        self._note("joined", np.flatnonzero(sure & (table.home == 0)))
        self._note("moved", np.flatnonzero(sure & (table.home > 0) & (table.home != top)))
        table.home[sure] = top[sure]
        self._agenda.state[sure] = CLOSED
        alone = self._alone
        here = table.belief[rows, table.home]
        doubted = free & ~sure & (self._agenda.state == CLOSED) & ~alone & (here < 1 - 2 * doubt)
        if self.answers >= 2 * self.settings.window:
            doubted |= free & alone & (best < 1 - doubt)
        self._agenda.state[doubted] = OPEN
        limit = TRUSTED * self.settings.representatives
        trusted: list[list[int]] = [[] for _ in range(len(self._groups) + 1)]
        for v in np.lexsort((rows, -np.round(np.where(alone, 1.0, here), 4))).tolist():
            members = trusted[table.home[v]]
            if len(members) < limit:
                members.append(v)
        sizes = table.sizes
        for group in self._groups:
            group.trusted, group.size, group.ahead = trusted[group.column], int(sizes[group.column]), []
        self._agenda.put_up(np.flatnonzero((self._agenda.state == OPEN) | (self._agenda.state == PUT_OFF)))
