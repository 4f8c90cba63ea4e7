"""Reading what a session has come to, from the database alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphs.corrections import Correction, corrected
from graphs.partition import PARTITION, Partition
from partita.result import ClusterResult, FailedItem, Result
from serving.llava.about import SUPERVISED
from storage import artefacts
from storage.corrections import said
from storage.database import Database
from storage.ledger import tally
from storage.locks import is_locked
from storage.sessions import SessionRecord, load_items, load_session


def result_of(db: Database, name: str) -> Result:
    """What a session has come to so far.

    Raises:
        UnknownSession: no session of that name.
    """
    record = load_session(db, name)
    rows = load_items(db, record.id)
    names: dict[int, list[str]] = {}
    for row in rows:
        if row.node is not None:
            names.setdefault(row.node, []).append(row.name)
    stored = artefacts.get(db, record.id, PARTITION)
    hands = [correction_of(one.subject) for one in said(db, record.id) if one.holds and one.subject["did"] != "undo"]
    partition = corrected(Partition.from_bytes(stored), hands) if stored else Partition(())
    sure = partition.confidence
    status = status_now(db, record)
    clusters = [
        ClusterResult(
            i,
            c.name,
            len(items),
            [name for name, _ in items],
            None if sure is None else [sure[node] for _, node in items],
        )
        for i, c in enumerate(partition.clusters, 1)
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
        supervised=any(SUPERVISED in str(record.parameters.get(name)) for name in ("model", "embed_model")),
        corrections=len(hands) if stored else 0,
        progress=record.progress if status == "running" else None,
        texts={row.name: row.text for row in rows if row.text is not None},
        placed=frozenset(name for node in partition.placed for name in names[node]),
    )


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
