"""Where every item may belong: the table of beliefs behind ``EvidenceSearch`` (METHOD 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graphs.likeness import Floats, Indices, Likeness, Spread
from graphs.odds import Calibration, Counts, Rates, calibrated, learned_rates, posterior

_SMOOTH = 3.0
"""A cluster's share is its members and this."""
_FEW_ANSWERS = 16
_CALIBRATED_ON = 500
_NEVER = 1e-12


class Memberships:
    """Answers and beliefs, a row per item and a column per cluster; column 0 is a cluster not found yet."""

    def __init__(self, likeness: Likeness) -> None:
        self._likeness = likeness
        self.items = n = likeness.items
        self.yes: Counts = np.zeros((n, 1), dtype=np.int16)
        self.no: Counts = np.zeros((n, 1), dtype=np.int16)
        """(n, c + 1) answers to the item as a candidate."""
        self.prior: Floats = np.ones((n, 1))
        self.belief: Floats = np.ones((n, 1))
        """(n, c + 1) probabilities."""
        self.hard: Floats = np.zeros(n)
        """(n,) probability that the agent can't judge the item."""
        self.home: Indices = np.zeros(n, dtype=np.int64)
        """(n,) the cluster in which an item stands, 0 for none."""
        self.share: Floats = np.ones(1)
        """(c + 1,) how likely each cluster is before anything is known of an item."""
        self.sums: Floats = np.zeros((0, likeness.width))
        self.spread = Spread(1.0, 1.0)
        self.rates = Rates()
        self.calibration = Calibration()

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return int(self.belief.shape[1]) - 1

    @property
    def sizes(self) -> Indices:
        """(c + 1,) items that stand in each cluster."""
        return np.bincount(self.home, minlength=self.clusters + 1)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """(n,) whether anything was answered about an item."""
        return np.asarray(self.yes.any(axis=1) | self.no.any(axis=1))

    def found(self, item: int) -> int:
        """Begin a cluster with an item; its column."""
        nothing = np.zeros((self.items, 1), dtype=np.int16)
        self.yes, self.no = np.hstack([self.yes, nothing]), np.hstack([self.no, nothing])
        self.prior = np.hstack([self.prior, np.full((self.items, 1), _NEVER)])
        self.belief = np.hstack([self.belief, np.zeros((self.items, 1))])
        self.share = np.append(self.share, 0.0)
        self.home[item] = self.clusters
        return self.clusters

    def unite(self, kept: int, gone: int) -> None:
        """Give a cluster the members and the answers of another one, whose column goes."""
        self.yes[:, kept] += self.yes[:, gone]
        self.no[:, kept] += self.no[:, gone]
        self.home[self.home == gone] = kept
        self.drop([gone])

    def drop(self, columns: Sequence[int]) -> None:
        """Remove columns; no item may stand in them. What was answered there says nothing any more."""
        keep = np.setdiff1d(np.arange(self.clusters + 1), columns)
        place = np.zeros(self.clusters + 1, dtype=np.int64)
        place[keep] = np.arange(len(keep))
        self.home = place[self.home]
        self.yes, self.no = self.yes[:, keep], self.no[:, keep]
        self.prior, self.belief = self.prior[:, keep], self.belief[:, keep]
        self.share = self.share[keep]

    def weigh(self, item: int) -> None:
        """Bring one item's belief up to its answers."""
        row = slice(item, item + 1)
        after = posterior(self.prior[row], self.yes[row], self.no[row], self.rates)
        self.belief[item] = np.round(after.belief[0], 9)
        self.hard[item] = after.hard[0]

    def weigh_all(self, young: npt.NDArray[np.bool_], apart: npt.NDArray[np.bool_]) -> None:
        """Take the clusters' middles, the calibration and the error rates anew, and with them every belief.

        Args:
            young: (c,) clusters that were founded lately and are small.
            apart: (c + 1, c + 1) pairs of clusters that are surely two; row 0 belongs to items that stand nowhere.
        """
        sizes = self.sizes[1:].astype(np.float64)
        likeness = self._likeness_table(sizes)
        self.share = self._shares(sizes, young)
        rows = np.flatnonzero(self.answered)
        if len(rows) >= _FEW_ANSWERS:
            some = rows[:: max(1, len(rows) // _CALIBRATED_ON)]
            self.calibration = calibrated(
                likeness[some], self.share, self.yes[some], self.no[some], self.rates, self.calibration
            )
        prior = self.calibration.prior(likeness, self.share)
        alone = np.flatnonzero((self.home > 0) & (self.sizes[self.home] == 1))
        prior[alone, self.home[alone]] = 0  # what is alone in its cluster is of a cluster not found yet
        self.prior = np.maximum(prior, _NEVER)
        if len(rows) >= _FEW_ANSWERS:
            yes, no = self.yes[rows], self.no[rows]
            after = posterior(self.prior[rows], yes, no, self.rates)
            self.rates = learned_rates(after, yes, no, apart[self.home[rows]].astype(np.float64))
        everything = posterior(self.prior, self.yes, self.no, self.rates)
        self.belief = np.round(everything.belief, 9)
        self.hard = everything.hard

    def _likeness_table(self, sizes: Floats) -> Floats:
        """(n, c + 1) log-odds against column 0, members compared with their cluster without themselves."""
        like = self._likeness
        self.sums = np.stack([like.total(np.flatnonzero(self.home == c)) for c in range(1, self.clusters + 1)])
        norms = np.einsum("ij,ij->i", self.sums, self.sums)
        placed = np.flatnonzero(self.home)
        self.spread = Spread.of(like, sizes, norms, float(like.squares[placed].sum()))
        dots = like.dots(self.sums)
        table = np.zeros((self.items, self.clusters + 1))
        table[:, 1:] = self.spread.belongs(dots, like.squares, sizes, norms, like.width)
        home = self.home[placed] - 1
        own, squares = dots[placed, home], like.squares[placed]
        others = np.maximum(sizes[home] - 1, 1)
        without = self.spread.belongs(
            (own - squares)[:, None], squares, others[:, None], (norms[home] - 2 * own + squares)[:, None], like.width
        )
        table[placed, home + 1] = np.where(sizes[home] > 1, without[:, 0], 0.0)
        table[~like.known] = 0
        return np.round(table, 6)

    def _shares(self, sizes: Floats, young: npt.NDArray[np.bool_]) -> Floats:
        share = np.r_[(self.clusters + 1) / 2, sizes + _SMOOTH]
        # Items refused everywhere make it likely that the next one is of a class not found yet as well, or of one that
        # has only just been found.
        waiting = (self.home == 0) & self.no.any(axis=1)
        refused = float(self.belief[waiting, 0].sum())
        if young.any():
            share[1:][young] += refused / young.sum()
        else:
            share[0] += refused
        out: Floats = np.round(share / share.sum(), 9)
        return out
