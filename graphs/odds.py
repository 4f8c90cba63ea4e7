"""Odds of memberships: what answers are worth, how often the agent errs, what the embeddings promise (METHOD 7).

All of it is arithmetic on tables with a row per item and a column per cluster; column 0 is "a cluster not found yet".
Logarithms are natural.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphs.likeness import Floats

Counts = npt.NDArray[np.int16]


def log_odds(p: float) -> float:
    """log(p / (1 - p)), within ±20.7."""
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))


@dataclass(frozen=True, slots=True)
class Rates:
    """How often the agent errs in one kind of question."""

    false_yes: float = 0.03
    false_no: float = 0.03
    hard: float = 0.02
    """Share of items about which its answers say nothing."""

    @property
    def yes(self) -> float:
        """What a YES adds to the log-odds."""
        return math.log((1 - self.false_no) / self.false_yes)

    @property
    def no(self) -> float:
        """What a NO adds to the log-odds."""
        return math.log(self.false_no / (1 - self.false_yes))


LEAN = 34
"""So many answers before the first are taken for counted."""


def error_rate(wrong: float, right: float, lean: float = 1.0) -> float:
    """An error rate from counts, as if of LEAN answers before them ``lean`` had been wrong; within [0.002, 0.3]."""
    return round(min(max((wrong + lean) / (wrong + right + LEAN), 0.002), 0.3), 5)


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is believed of some items after their answers."""

    belief: Floats
    """(rows, c + 1) probabilities."""
    hard: Floats
    """(rows,) probability that the agent can't judge the item."""
    evidence: Floats
    """(rows,) log-likelihood of the answers."""


def posterior(prior: Floats, yes: Counts, no: Counts, rates: Rates) -> Posterior:
    """Bayes' rule for rows of items; ``yes`` and ``no`` count the answers at each cluster (rows, c + 1).

    An item is hard with probability ``rates.hard``; then YES and NO are equally likely whatever is asked.
    """
    odds = np.log(prior) + yes * rates.yes + no * rates.no
    top = odds.max(axis=1)
    odds -= top[:, None]
    np.exp(odds, out=odds)
    mass = odds.sum(axis=1)
    n_yes, n_no = yes.sum(axis=1, dtype=np.float64), no.sum(axis=1, dtype=np.float64)
    easy = top + np.log(mass) + n_yes * math.log(rates.false_yes) + n_no * math.log1p(-rates.false_yes)
    easy += math.log1p(-rates.hard)
    guess = (n_yes + n_no) * math.log(0.5) + math.log(max(rates.hard, 1e-12))
    both = np.logaddexp(easy, guess)
    hard = np.exp(guess - both)
    belief = odds * ((1 - hard) / mass)[:, None] + hard[:, None] * prior
    return Posterior(belief, hard, both)


def learned_rates(after: Posterior, yes: Counts, no: Counts, apart: Floats) -> Rates:
    """The error rates that the beliefs make most likely: one step of expectation-maximisation.

    Args:
        apart: (rows, c + 1) 1 where the item's cluster and the one asked at are surely two, otherwise 0: a YES at
            another part of one's own class is no error.
    """
    easy = (1 - after.hard)[:, None]
    home = after.belief * easy
    away = (1 - after.belief) * easy * apart
    # Members of a class not found yet look like items that are refused wherever they belong. So beyond a bound a NO
    # counts as false only where other representatives of the cluster had a YES.
    seen = home * (yes > 0)
    seen_no = error_rate(float((seen * no).sum()), float((seen * yes).sum()))
    false_no = error_rate(float((home * no).sum()), float((home * yes).sum()))
    again = yes.sum(axis=1) + no.sum(axis=1) > 1
    return Rates(
        false_yes=error_rate(float((away * yes).sum()), float((away * no).sum())),
        false_no=min(false_no, max(0.1, round(1.5 * seen_no, 5))),
        hard=round(min(max((float(after.hard[again].sum()) + 1) / (len(yes) + 50), 0.002), 0.3), 5),
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """What likeness is worth: prior = (1 - stray)·softmax(log share + trust·likeness) + stray·share."""

    trust: float = 0.3
    stray: float = 0.1
    """Share of items whose embedding says nothing, or the wrong thing."""

    def prior(self, likeness: Floats, share: Floats) -> Floats:
        """(rows, c + 1) from likeness (rows, c + 1), log-odds against column 0, and the clusters' shares (c + 1,)."""
        odds = np.log(share) + self.trust * likeness
        odds -= odds.max(axis=1, keepdims=True)
        np.exp(odds, out=odds)
        odds *= ((1 - self.stray) / odds.sum(axis=1))[:, None]
        out: Floats = odds + self.stray * share
        return out


TRUSTS = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)
STRAYS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.15, 0.22, 0.33, 0.5)


def calibrated(
    likeness: Floats, share: Floats, yes: Counts, no: Counts, rates: Rates, before: Calibration
) -> Calibration:
    """The trust and the stray near ``before`` that make the answers most likely, leaning to little trust."""
    i, j = TRUSTS.index(before.trust), STRAYS.index(before.stray)
    best, chosen = -math.inf, before
    for trust in TRUSTS[max(0, i - 2) : i + 3]:
        soft = Calibration(trust, 0.0).prior(likeness, share)
        for stray in STRAYS[max(0, j - 2) : j + 3]:
            found = float(posterior((1 - stray) * soft + stray * share, yes, no, rates).evidence.sum())
            found = round(found - 2 * trust + 2 * math.log(stray) + 12 * math.log1p(-stray), 6)
            if found > best:
                best, chosen = found, Calibration(trust, stray)
    return chosen
