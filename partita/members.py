"""The items of a partition, each with the cluster that it stands in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from partita.result import Result
from storage.items import Item

COLUMNS = ("item", "cluster", "name", "confidence")


@dataclass(frozen=True, slots=True)
class Member:
    """An item where it stands."""

    item: Item
    cluster: int
    """The cluster's number."""
    name: str
    """The cluster's name."""
    confidence: float | None
    """How probable it is that the item belongs there; None where the policy keeps no odds."""

    @property
    def row(self) -> tuple[str, int, str, float | None]:
        """As a row of a table with `COLUMNS`."""
        return self.item.name, self.cluster, self.name, self.confidence


def members_of(result: Result, items: Iterable[Item]) -> Iterator[Member]:
    """Every clustered item, cluster by cluster, representatives first."""
    by_name = {item.name: item for item in items}
    for c in result.clusters:
        sure: Sequence[float | None] = c.confidence or [None] * c.size
        for item, confidence in zip(c.items, sure, strict=True):
            yield Member(by_name[item], c.id, c.name, confidence)
