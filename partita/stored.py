"""Reading what a session has come to, from the database alone."""

from __future__ import annotations

from graphs.partition import PARTITION, Partition
from partita.result import ClusterResult, FailedItem, Result
from serving.llava.about import SUPERVISED
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
    stored = artefacts.get(db, record.id, PARTITION)
    partition = Partition.from_bytes(stored) if stored else Partition(())
    sure = partition.confidence
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
        status=status_now(db, record),
        criterion=record.criterion,
        policy=record.policy,
        items=sum(map(len, names.values())),
        clusters=clusters,
        failed_items=[FailedItem(row.name, row.why) for row in rows if row.why is not None],
        calls=tally(db, record.id),
        seconds=record.seconds,
        why=record.why,
        supervised=any(SUPERVISED in str(record.parameters.get(name)) for name in ("model", "embed_model")),
        texts={row.name: row.text for row in rows if row.text is not None},
    )


def status_now(db: Database, record: SessionRecord) -> str:
    """The recorded status; a session whose process was killed is ``paused``."""
    if record.status != "running":
        return record.status
    return "running" if is_locked(db, record.id, record.name) else "paused"
