"""The result of a session: named clusters of nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.naming import name_clusters
from agents.prompt_sets import PromptSet

PARTITION = "partition"
"""The artefact that holds a session's partition."""


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster that a search has found."""

    members: Sequence[int]
    representatives: Sequence[int]
    """Those of its members that stand for it."""


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
    confidence: Mapping[int, float] | None = None
    """How probable it is that each node stands where it belongs, where the policy keeps odds."""
    placed: frozenset[int] = frozenset()
    """Nodes that a person placed (`graphs.corrections`). Not stored: corrections are."""

    def to_bytes(self) -> bytes:
        """As JSON, to be stored with the session."""
        clusters: list[dict[str, Any]] = []
        for c in self.clusters:
            clusters.append({"name": c.name, "nodes": c.nodes})
            if self.confidence is not None:
                clusters[-1]["confidence"] = [self.confidence[v] for v in c.nodes]
        return json.dumps(clusters).encode()

    @classmethod
    def from_bytes(cls, payload: bytes) -> Partition:
        """Inverse of ``to_bytes``."""
        stored = json.loads(payload)
        clusters = tuple(NamedCluster(c["name"], tuple(c["nodes"])) for c in stored)
        if not all("confidence" in c for c in stored):
            return cls(clusters)
        sure = {v: p for c in stored for v, p in zip(c["nodes"], c["confidence"], strict=True)}
        return cls(clusters, sure)


def make_partition(
    found: Sequence[Found],
    descriptions: Mapping[int, str],
    prompts: PromptSet,
    confidence: Mapping[int, float] | None = None,
) -> Partition:
    """Order and name the clusters that the search has found."""
    ordered = sorted(found, key=lambda c: (-len(c.members), min(c.members)))
    names = name_clusters(
        [[descriptions.get(v, "") for v in c.members] for c in ordered],
        criterion=prompts.criterion,
        values=prompts.values,
    )
    nodes = [(*c.representatives, *sorted(set(c.members) - set(c.representatives))) for c in ordered]
    return Partition(tuple(NamedCluster(name, n) for name, n in zip(names, nodes, strict=True)), confidence)
