"""Sessions with a partition of one's choosing, stored as a run leaves them, with no model asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphs.partition import PARTITION, NamedCluster, Partition
from storage import artefacts
from storage.database import Database
from storage.items import Item, scan
from storage.sessions import SessionRecord, create_session

SURE = 0.75
"""Confidence of every item but the first of a cluster, which has 0.5."""


def make_session(
    db: Database,
    collection: Path,
    clusters: Mapping[str, Sequence[str]],
    *,
    name: str = "s",
    odds: bool = True,
    criterion: str = "kind",
    **record: Any,
) -> SessionRecord:
    """A session over a collection, with clusters by name of items by name."""
    found = scan(collection)
    made = SessionRecord(name, criterion, "evidence", str(collection), status="done", **record)
    create_session(db, made, found)
    nodes: dict[str, int] = {}
    by_hash: dict[str, int] = {}
    for item in found.items:
        assert isinstance(item, Item)
        nodes[item.name] = by_hash.setdefault(item.content_hash, len(by_hash))
    named = tuple(
        NamedCluster(called, tuple(dict.fromkeys(nodes[item] for item in items))) for called, items in clusters.items()
    )
    sure = {v: 0.5 if place == 0 else SURE for c in named for place, v in enumerate(c.nodes)} if odds else None
    artefacts.put(db, made.id, PARTITION, Partition(named, sure).to_bytes())
    return made
