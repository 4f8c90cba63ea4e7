"""Reading what a session has come to, from the database alone."""

from __future__ import annotations

from graphs.partition import PARTITION, Partition
from partita.result import ClusterResult, FailedItem, Result
from storage import artefacts
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
    stored = artefacts.get(db, record.id, PARTITION) if record.status == "done" else None
    clusters = [
        ClusterResult(i, c.name, len(items), items)
        for i, c in enumerate(Partition.from_bytes(stored).clusters if stored else (), 1)
        for items in [[name for node in c.nodes for name in names[node]]]
    ]
    return Result(
        session=record.name,
        status=status_now(db, record),
        criterion=record.criterion,
        policy=record.policy,
        items=sum(map(len, names.values())),
        clusters=clusters,
        failed_items=[FailedItem(row.name, row.why) for row in rows if row.why is not None],
        calls=tally(db, record.id),
        seconds=record.seconds,
        why=record.why,
    )


def status_now(db: Database, record: SessionRecord) -> str:
    """The recorded status; a session whose process was killed is ``paused``."""
    if record.status != "running":
        return record.status
    return "running" if is_locked(db, record.id, record.name) else "paused"
