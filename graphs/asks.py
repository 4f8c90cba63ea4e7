"""What the search of policy ``evidence`` asks, what it may be told, and what it says of its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphs.groups import Group


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """What the search may be told."""

    representatives: int = 3
    """K: at most so many members stand for a cluster in a question."""
    window: int = 64
    """W: asks outstanding."""
    batch: int = 1
    """B: at most so many candidates in one ask."""
    doubt: float = 0.01
    """A membership is closed when the probability of its being wrong is below this."""
    asks: int = 6
    """Questions about one item at one cluster."""
    repeats: int = 12
    """Questions about one item that repeat a cluster at which it was asked before."""
    unknowns: int = 3
    """UNKNOWN answers about one item, after which it is asked no more."""


@dataclass(frozen=True, slots=True, eq=False)
class MembershipAsk:
    """Do these candidates belong with these representatives? One call, a conclusion for each candidate."""

    number: int
    """Its place in the order of asking, from 1."""
    representatives: tuple[int, ...]
    """Ascending."""
    candidates: tuple[int, ...]
    group: Group


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonAsk:
    """Are these two clusters one?"""

    number: int
    representatives: tuple[tuple[int, ...], tuple[int, ...]]
    """Of either cluster, ascending."""
    groups: tuple[Group, Group]


Ask = MembershipAsk | ComparisonAsk


@dataclass(frozen=True, slots=True)
class Decision:
    """What an answer did, or what the stock-taking after it did; for the trace."""

    odds: float
    """Log-odds, after the answer, of what was asked: that the item belongs to the cluster, or that two are one."""
    bound: float
    """Log-odds at which it counts as settled."""
    did: str
    """Of an item: joined, moved, founded, left, open. Of two clusters: united, apart, open. Of either: dissolved, when
    what was asked about is no more."""
    item: int | None = None
    clusters: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """The representatives of the two."""

    def to_json(self, node: Sequence[int]) -> dict[str, Any]:
        """For the ledger; ``node`` gives the node of each of the search's numbers."""
        about: dict[str, Any] = {} if self.item is None else {"item": node[self.item]}
        if self.clusters is not None:
            about["clusters"] = [[node[v] for v in side] for side in self.clusters]
        return about | {"odds": round(self.odds, 3), "bound": round(self.bound, 3), "did": self.did}
