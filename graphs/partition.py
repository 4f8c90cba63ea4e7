"""The result of a session: named clusters of nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.naming import name_clusters
from agents.prompt_sets import PromptSet
from graphs.traversal import Cluster

PARTITION = "partition"
"""The artefact that holds a session's partition."""


@dataclass(frozen=True, slots=True)
class NamedCluster:
    """One cluster of a partition."""

    name: str
    nodes: tuple[int, ...]
    """Its nodes; the representatives come first, then ascending."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Every node stands in exactly one cluster; the largest cluster is first."""

    clusters: tuple[NamedCluster, ...]

    def to_bytes(self) -> bytes:
        """As JSON, to be stored with the session."""
        return json.dumps([{"name": c.name, "nodes": c.nodes} for c in self.clusters]).encode()

    @classmethod
    def from_bytes(cls, payload: bytes) -> Partition:
        """Inverse of ``to_bytes``."""
        return cls(tuple(NamedCluster(c["name"], tuple(c["nodes"])) for c in json.loads(payload)))


def make_partition(
    clusters: Sequence[Cluster], descriptions: Mapping[int, str], prompts: PromptSet, representatives: int
) -> Partition:
    """Order and name the clusters that the search has found."""
    ordered = sorted(clusters, key=lambda c: (-len(c.members), min(c.members)))
    names = name_clusters(
        [[descriptions.get(v, "") for v in c.members] for c in ordered],
        criterion=prompts.criterion,
        values=prompts.values,
    )
    nodes = []
    for c in ordered:
        first = c.representatives(representatives)
        nodes.append((*first, *sorted(set(c.members) - set(first))))
    return Partition(tuple(NamedCluster(name, n) for name, n in zip(names, nodes, strict=True)))
