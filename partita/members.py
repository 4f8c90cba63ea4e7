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


def class_names(members: Iterable[Member]) -> dict[int, str]:
    """A name for each cluster, by its number, where names are all that tells clusters apart: people may call two the
    same, and these are `con` and `con (2)` here."""
    names = {member.cluster: member.name for member in members}
    taken, given, used = set(names.values()), dict[int, str](), set[str]()
    for cluster, name in names.items():
        told, number = name, 1
        while told in used or (number > 1 and told in taken):
            number += 1
            told = f"{name} ({number})"
        given[cluster] = told
        used.add(told)
    return given
