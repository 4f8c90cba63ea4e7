"""Whether two clusters are one: the comparisons of ``EvidenceSearch`` (METHOD 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agents.conclusions import Conclusion
from graphs.groups import Group
from graphs.likeness import Floats
from graphs.memberships import Memberships
from graphs.odds import LEAN, Rates, error_rate

NEAREST = 3
"""Each cluster is compared at least with so many."""
COMPARISONS = 9
"""Questions about one pair."""
_CERTAIN = 5.0
"""Likeness and memberships alone never make a pair's log-odds larger than this, nor smaller than its negative."""

Key = tuple[int, int]
"""The names of two groups, ascending."""


def key_of(a: Group, b: Group) -> Key:
    """The name of a pair."""
    return min(a.name, b.name), max(a.name, b.name)


def bound(a: Group, b: Group) -> float:
    """The log-odds at which two clusters are united: a mistake spoils as many items as the smaller one has."""
    return 2.5 + math.log1p(min(a.size, b.size))


def stake(odds: float, smaller: int) -> float:
    """How many items would probably change their cluster if the two are compared: the largest come first."""
    return round(smaller / (1 + math.exp(-odds)), 9)


class Pairs:
    """What is known of each pair of clusters."""

    def __init__(self) -> None:
        self.rates = Rates(hard=0.0)
        self.prior: dict[Key, float] = {}
        """Log-odds of each pair before it is compared."""
        self.answers: dict[Key, list[int]] = {}
        """YES, NO and UNKNOWN answers of each pair."""
        self._apart: npt.NDArray[np.bool_] = np.ones((1, 1), dtype=np.bool_)
        self._united = [0, 0]

    def odds(self, key: Key) -> float:
        """Log-odds that the two are one."""
        yes, no, _ = self.answers.get(key, (0, 0, 0))
        return self.prior.get(key, -3.0) + yes * self.rates.yes + no * self.rates.no

    def answered(self, key: Key, conclusion: Conclusion) -> None:
        """Take the answer to a comparison."""
        counts = self.answers.setdefault(key, [0, 0, 0])
        counts[(Conclusion.YES, Conclusion.NO, Conclusion.UNKNOWN).index(conclusion)] += 1

    def proven(self, key: Key, proof: float) -> bool:
        """Whether the two are one; never without a YES to a comparison."""
        return self.odds(key) >= proof and self.answers.get(key, (0, 0, 0))[0] > 0

    def likely(self, key: Key) -> bool:
        """Whether more answers speak for the two being one than against it, and nothing else speaks loudly."""
        yes, no, _ = self.answers.get(key, (0, 0, 0))
        return yes > no and self.odds(key) > -3

    def worth_asking(self, key: Key, proof: float) -> bool:
        """Whether it is still open that the two are one."""
        counts = self.answers.get(key, (0, 0, 0))
        return (
            -2 - proof / 3 < self.odds(key)
            and not self.proven(key, proof)
            and sum(counts) < COMPARISONS
            and counts[2] < 3
        )

    def unite(self, kept: Group, gone: Group) -> None:
        """What was said of a cluster holds for the one it has become part of."""
        own = self.answers.pop(key_of(kept, gone), [0, 0, 0])
        self._united = [self._united[0] + own[0], self._united[1] + own[1]]
        for key in [k for k in self.answers if gone.name in k]:
            counts = self.answers.pop(key)
            other = key[0] if key[1] == gone.name else key[1]
            mine = self.answers.setdefault((min(other, kept.name), max(other, kept.name)), [0, 0, 0])
            mine[:] = [a + b for a, b in zip(mine, counts, strict=True)]

    def apart(self, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(c + 1, c + 1) pairs that are surely two clusters, as of the last weighing."""
        c = len(sizes)
        out = np.ones((c, c), dtype=np.bool_)
        if self._apart.shape == out.shape:
            out = self._apart.copy()
        out[:, sizes < 2] = False
        return out

    def weigh(
        self, groups: Sequence[Group], beliefs: Memberships, last: bool
    ) -> tuple[list[tuple[float, Key]], list[Key]]:
        """Take every pair's prior anew: (-stake, pair) of those to compare, the highest stake first; those proven one.

        With ``last``, pairs that nothing speaks for are compared once: each cluster with its nearest, small ones with
        all, or all with all when they are few.
        """
        c = len(groups)
        prior = self._priors(groups, beliefs)
        names = [g.name for g in groups]
        i, j = np.triu_indices(c, 1)
        keys = [(min(names[a], names[b]), max(names[a], names[b])) for a, b in zip(i.tolist(), j.tolist(), strict=True)]
        self.prior = dict(zip(keys, prior[i, j].tolist(), strict=True))
        self._learn(beliefs)
        counts = np.array([self.answers.get(key, (0, 0, 0)) for key in keys]).reshape(-1, 3)
        odds = prior[i, j] + counts[:, 0] * self.rates.yes + counts[:, 1] * self.rates.no
        self._apart = np.ones((c + 1, c + 1), dtype=np.bool_)
        self._apart[1:, 1:][i, j] = self._apart[1:, 1:][j, i] = odds < -2
        sizes = np.array([g.size for g in groups])
        smaller = np.minimum(sizes[i], sizes[j])
        proof = 2.5 + np.log1p(smaller.astype(np.float64))
        proven = (odds >= proof) & (counts[:, 0] > 0)
        wanted = (-2 - proof / 3 < odds) & ~proven & (counts.sum(axis=1) < COMPARISONS) & (counts[:, 2] < 3)
        wanted &= (smaller >= 2) | last
        if last:
            near = np.zeros((c, c), dtype=np.bool_)
            order = np.argsort(-prior + np.diag(np.full(c, np.inf)), axis=1, kind="stable")[:, :NEAREST]
            np.put_along_axis(near, order, True, axis=1)
            # What is left over of a class may look like anything: small clusters are compared with all, if few.
            few = max(beliefs.items // 15, 40)
            small = smaller < 6
            rest = small if small.sum() <= few else np.zeros_like(small)
            if c * (c - 1) <= few:
                rest = np.ones_like(small)
            wanted |= ((near | near.T)[i, j] | rest) & (counts.sum(axis=1) == 0)
        compare = sorted((-stake(float(odds[p]), int(smaller[p])), keys[p]) for p in np.flatnonzero(wanted).tolist())
        return compare, [keys[p] for p in np.flatnonzero(proven).tolist()]

    def _priors(self, groups: Sequence[Group], beliefs: Memberships) -> Floats:
        sizes: Floats = np.maximum(beliefs.sizes[1:], 1).astype(np.float64)
        # Two parts of one class lie apart, because each drew what is nearest to it: as if two members each were known.
        few = np.minimum(sizes, 2)
        likeness = beliefs.spread.one(beliefs.sums * (few / sizes)[:, None], few, beliefs.sums.shape[1])
        likeness = np.clip(beliefs.calibration.trust * likeness, -3.0, 3.0) - math.log(max(len(groups), 2))
        return np.asarray(
            np.round(np.clip(likeness + self._crossed(beliefs), -_CERTAIN, _CERTAIN), 6), dtype=np.float64
        )

    @staticmethod
    def _crossed(beliefs: Memberships) -> Floats:
        """(c, c) what members of one cluster that were asked at another say of the two being one."""
        rows = np.flatnonzero((beliefs.home > 0) & beliefs.answered)
        homes = np.zeros((len(rows), beliefs.clusters))
        homes[np.arange(len(rows)), beliefs.home[rows] - 1] = 1
        yes = homes.T @ beliefs.yes[rows, 1:].astype(np.float64)
        no = homes.T @ beliefs.no[rows, 1:].astype(np.float64)
        # Members of one class in two parts get a false NO at one part and then a YES at the other.
        expected = 2 + 3 * beliefs.rates.false_no * np.diag(yes)
        np.fill_diagonal(yes, 0)
        np.fill_diagonal(no, 0)
        no = np.maximum(no - expected, 0)
        odds = (yes + yes.T) * beliefs.rates.yes + np.maximum((no + no.T) * beliefs.rates.no, -4)
        return np.asarray(np.minimum(0.7 * odds, 6), dtype=np.float64)

    def _learn(self, beliefs: Memberships) -> None:
        """The agent's errors in comparisons, from the pairs that are decided.

        A pair that is wrongly answered YES is the last to be decided against, so comparisons alone would tell too well
        of an agent that says YES too often: before them stands its rate in memberships, the more so the more of these
        there are (early on, a YES at another part of an item's own class passes for an error).
        """
        usual = 1 / LEAN
        told = min(1.0, int(beliefs.yes.sum() + beliefs.no.sum()) / max(beliefs.items, 1))
        lean = LEAN * usual ** (1 - told) * beliefs.rates.false_yes**told
        false_yes, right_no = 0, 0
        for key, (yes, no, _) in self.answers.items():
            if self.odds(key) < -4:
                false_yes, right_no = false_yes + yes, right_no + no
        self.rates = Rates(
            false_yes=error_rate(false_yes, right_no, lean),
            false_no=error_rate(self._united[1], self._united[0]),
            hard=0.0,
        )
