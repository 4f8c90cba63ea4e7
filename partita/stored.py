"""Reading what a session has come to, from the database alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agents.naming import unnamed
from graphs.corrections import Correction, corrected
from graphs.partition import PARTITION, Partition
from partita.result import ClusterResult, FailedItem, Result
from serving.llava.about import is_supervised
from storage import artefacts
from storage.corrections import said
from storage.database import Database
from storage.ledger import tally
from storage.locks import is_locked
from storage.sessions import SessionRecord, load_items, load_session

_SPLIT_OFF = re.compile(r" \(\d+\)$")
"""How the name of what was split off a cluster ends, where it has no other."""


def result_of(db: Database, name: str, found: Partition | None = None) -> Result:
    """What a session has come to so far.

    Args:
        found: the clusters as agents left them, where they are read already.

    Raises:
        UnknownSession: no session of that name.
    """
    record = load_session(db, name)
    rows = load_items(db, record.id)
    names: dict[int, list[str]] = {}
    for row in rows:
        if row.node is not None:
            names.setdefault(row.node, []).append(row.name)
    found = found_by_agents(db, record.id) if found is None else found
    hands = [correction_of(one.subject) for one in said(db, record.id) if one.holds and one.subject["did"] != "undo"]
    partition = corrected(found, hands)
    sure = partition.confidence
    status = status_now(db, record)
    clusters = [
        ClusterResult(
            i,
            name_now,
            len(items),
            [name for name, _ in items],
            None if sure is None else [sure[node] for _, node in items],
        )
        for i, (c, name_now) in enumerate(zip(partition.clusters, _names(partition, found, hands), strict=True), 1)
        for items in [[(name, node) for node in c.nodes for name in names[node]]]
    ]
    return Result(
        session=record.name,
        status=status,
        criterion=record.criterion,
        policy=record.policy,
        items=sum(map(len, names.values())),
        clusters=clusters,
        failed_items=[FailedItem(row.name, row.why) for row in rows if row.why is not None],
        calls=tally(db, record.id),
        seconds=record.seconds,
        why=record.why,
        supervised=any(is_supervised(str(record.parameters.get(name))) for name in ("model", "embed_model")),
        corrections=len(hands) if found.clusters else 0,
        progress=record.progress if status == "running" else None,
        texts={row.name: row.text for row in rows if row.text is not None},
        placed=frozenset(name for node in partition.placed for name in names[node]),
    )


def _names(partition: Partition, found: Partition, hands: Sequence[Correction]) -> list[str]:
    """The names of the corrected clusters. One that is only a number follows the numbers that people see, unless a
    person chose it: corrections change these."""
    numbers = {c.name for i, c in enumerate(found.clusters, 1) if c.name == unnamed(i)} - {hand.name for hand in hands}
    return [
        unnamed(i) if _SPLIT_OFF.sub("", c.name) in numbers else c.name for i, c in enumerate(partition.clusters, 1)
    ]


def found_by_agents(db: Database, session_id: str) -> Partition:
    """The clusters as agents left them, whatever people corrected; none while there is no partition."""
    stored = artefacts.get(db, session_id, PARTITION)
    return Partition.from_bytes(stored) if stored else Partition(())


def found_with(db: Database, session_id: str, item: str) -> frozenset[str]:
    """The items that agents left in one cluster with an item, itself among them; none if it has no place."""
    node = node_of(db, session_id)
    clusters = (set(c.nodes) for c in found_by_agents(db, session_id).clusters if node.get(item) in c.nodes)
    together = next(clusters, set())
    return frozenset(name for name, v in node.items() if v in together)


def node_of(db: Database, session_id: str) -> dict[str, int]:
    """The node of each item that can be clustered, by the item's name, in their order."""
    return {row.name: row.node for row in load_items(db, session_id) if row.node is not None}


def correction_of(subject: Mapping[str, Any]) -> Correction:
    """A correction as the ledger holds it."""
    return Correction(subject["did"], tuple(subject["items"]), tuple(subject["others"]), subject["name"])


def status_now(db: Database, record: SessionRecord) -> str:
    """The recorded status; a session whose process was killed is ``paused``."""
    if record.status != "running":
        return record.status
    return "running" if is_locked(db, record.id, record.name) else "paused"
