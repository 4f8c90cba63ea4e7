"""The clusters that ``EvidenceSearch`` grows, and who stands for them in a question."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import combinations

TRUSTED = 8
"""Representatives are drawn from the surest TRUSTED · K members."""


@dataclass(slots=True, eq=False)
class Group:
    """A cluster of the search."""

    name: int
    """Its number in the order of founding."""
    column: int
    """Where it stands in the table of beliefs; changes when other clusters go."""
    trusted: list[int]
    """Its surest members, the surest first."""
    born: int
    """Answers applied when it was founded."""
    size: int = 1
    asked: int = 0
    """Memberships judged here."""
    outstanding: int = 0
    """Memberships being judged here."""
    disappointed: float = 0.0
    """YES answers that a cluster of one promised by its looks and that did not come."""
    ahead: list[tuple[float, int]] = field(default_factory=list)
    """Heap of (-probability, item): whom to ask here next."""
    into: Group | None = None
    """The cluster with which it was united."""
    gone: bool = False
    """It was dissolved: answers about it say nothing any more."""
    turn: int = 0

    def now(self) -> Group:
        """What it has become."""
        group = self
        while group.into is not None:
            group = group.into
        return group

    def representatives(self, k: int, item: int, used: Collection[tuple[int, ...]]) -> tuple[int, ...]:
        """Up to k trusted members, ascending, with whom the item was not judged yet; empty if there are none left.

        Each question shows the next members in turn, so that one bad representative spoils few answers.
        """
        others = [v for v in self.trusted if v != item]
        k = min(k, len(others))
        for _ in range(8 if others else 0):
            shown = _turn(others, self.turn, k)
            self.turn += 1
            if shown not in used:
                return shown
        for size in range(k, 0, -1):
            for some in combinations(others[: 2 * k], size):
                shown = tuple(sorted(some))
                if shown not in used:
                    return shown
        return ()

    def side(self, k: int, turn: int) -> tuple[int, ...]:
        """Up to k trusted members for a comparison, others for every turn."""
        return _turn(self.trusted, turn, min(k, len(self.trusted)))


def _turn(members: list[int], turn: int, k: int) -> tuple[int, ...]:
    return tuple(sorted({members[(turn * k + j) % len(members)] for j in range(k)})) if members else ()
