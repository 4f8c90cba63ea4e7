"""What a person says of a partition, done to whatever partition the agents come to.

A correction names items, never numbers of clusters: those change when agents go on. A cluster is meant by some of its
members, and is the one that holds most of them. Corrections are done in the order in which they were said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from graphs.partition import NamedCluster, Partition

Did = Literal["move", "split", "unite", "rename", "together", "apart"]
MEANT = 24
"""So many members are enough to say which cluster is meant."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One thing that a person did.

    | did | what comes of it |
    |---|---|
    | move | `items` stand in the cluster of `others` |
    | split | `items` are a cluster of their own, called `name` |
    | unite | the clusters of `items` and of `others` are one |
    | rename | the cluster of `items` is called `name` |
    | together | `items` stand in the cluster that holds most of them (of equals: see `_gathers`) |
    | apart | `items` that stand where one of `others` stands leave it, and are a cluster of their own |

    Items are nodes.
    """

    did: Did
    items: tuple[int, ...]
    others: tuple[int, ...] = ()
    name: str | None = None


@dataclass(slots=True, eq=False)
class _Cluster:
    name: str
    nodes: dict[int, None] = field(default_factory=dict)
    """In order: those that stand for it come first."""


def corrected(partition: Partition, corrections: Sequence[Correction]) -> Partition:
    """The partition with all corrections done; what a person placed is certain. Nodes that it doesn't hold are left
    out."""
    if not corrections:
        return partition
    hands = _Hands(partition)
    for correction in corrections:
        hands.do(correction)
    return hands.partition(partition)


class _Hands:
    def __init__(self, partition: Partition) -> None:
        self._clusters = [_Cluster(c.name, dict.fromkeys(c.nodes)) for c in partition.clusters]
        self._home = {node: c for c in self._clusters for node in c.nodes}
        self._placed: dict[int, None] = {}
        """Nodes that a person placed, the last at the end."""

    def do(self, correction: Correction) -> None:
        items = [node for node in dict.fromkeys(correction.items) if node in self._home]
        others = [node for node in dict.fromkeys(correction.others) if node in self._home]
        here, there = self._meant(items), self._meant(others)
        if here is None:
            return
        match correction.did:
            case "move":
                if there is not None:
                    self._put(items, there)
            case "together":
                self._put(items, self._gathers(items))
            case "split":
                self._put(items, self._new(correction.name or here.name))
            case "apart":
                # A copy of an item is the item: whoever named it among the others meant the rest of them.
                homes = {id(self._home[node]) for node in set(others) - set(items)}
                if leaving := [node for node in items if id(self._home[node]) in homes]:
                    self._put(leaving, self._new(correction.name or here.name))
            case "unite":
                if there is not None and there is not here:
                    kept, gone = sorted((here, there), key=lambda c: -len(c.nodes))
                    self._put(list(gone.nodes), kept, certain=False)
            case "rename":
                here.name = correction.name or here.name

    def partition(self, before: Partition) -> Partition:
        left = sorted((c for c in self._clusters if c.nodes), key=lambda c: (-len(c.nodes), min(c.nodes)))
        sure = before.confidence
        if sure is not None:
            sure = {**sure, **dict.fromkeys(self._placed, 1.0)}
        named = tuple(NamedCluster(c.name, tuple(c.nodes)) for c in left)
        return Partition(named, sure, frozenset(self._placed))

    def _meant(self, nodes: Sequence[int]) -> _Cluster | None:
        """The cluster that holds most of them; of equals the larger, then the one whose member is named first."""
        counts = Counter(id(self._home[node]) for node in nodes)
        homes = list({id(self._home[node]): self._home[node] for node in nodes}.values())
        return max(homes, key=lambda c: (counts[id(c)], len(c.nodes)), default=None)

    def _gathers(self, nodes: Sequence[int]) -> _Cluster:
        """The cluster that holds most of them; of equals the one in which a person placed one of them last, otherwise
        that of the first named."""
        counts = Counter(id(self._home[node]) for node in nodes)
        most = max(counts.values())
        equals = dict.fromkeys(node for node in nodes if counts[id(self._home[node])] == most)
        placed = next((node for node in reversed(self._placed) if node in equals), None)
        return self._home[next(iter(equals)) if placed is None else placed]

    def _new(self, name: str) -> _Cluster:
        taken = {c.name for c in self._clusters if c.nodes}
        made, number = name, 1
        while made in taken:
            number += 1
            made = f"{name} ({number})"
        self._clusters.append(_Cluster(made))
        return self._clusters[-1]

    def _put(self, nodes: Sequence[int], to: _Cluster, certain: bool = True) -> None:
        for node in nodes:
            del self._home[node].nodes[node]
            to.nodes[node] = None
            self._home[node] = to
        if certain:
            for node in nodes:
                self._placed.pop(node, None)
                self._placed[node] = None
