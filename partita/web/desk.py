"""What pages are made from: the database, and each session as it was last read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import func, select

from graphs.partition import PARTITION
from partita.prices import Prices
from partita.result import ClusterResult, Result
from partita.spend import Spend, spend_of
from partita.stored import result_of, status_now
from partita.web.jobs import Jobs
from partita.web.work import Work
from storage.database import Database
from storage.errors import UsageError
from storage.items import Item, ItemRow, collection_from_rows
from storage.sessions import SessionRecord, load_items, load_session
from storage.tables import answers, artefacts

_KEPT = 6
"""Sessions that stay in memory as they were last read."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A session as it was read."""

    record: SessionRecord
    result: Result
    rows: list[ItemRow]
    """By position, which is an item's number in addresses."""
    partition: str
    """Changes with the clusters: for whoever has to know whether they are still the same."""

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """What can be shown, by name."""
        return {item.name: item for item in collection_from_rows(self.record.collection, self.rows).items}

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """An item's number, by its name."""
        return {row.name: row.position for row in self.rows}

    @cached_property
    def place(self) -> Mapping[str, tuple[ClusterResult, int]]:
        """Where each item stands: the cluster, and its place in it."""
        return {item: (c, at) for c in self.result.clusters for at, item in enumerate(c.items)}

    @cached_property
    def node(self) -> Mapping[str, int]:
        """The node of each item, by name."""
        return {row.name: row.node for row in self.rows if row.node is not None}

    @cached_property
    def named(self) -> Mapping[int, str]:
        """The name that a node has in the trace: that of the first item of its content."""
        first: dict[int, str] = {}
        for row in self.rows:
            if row.node is not None:
                first.setdefault(row.node, row.name)
        return first

    def item(self, number: int) -> ItemRow:
        """The item with this number.

        Raises:
            UsageError: there is none.
        """
        if 0 <= number < len(self.rows) and self.rows[number].position == number:
            return self.rows[number]
        for row in self.rows:
            if row.position == number:
                return row
        raise UsageError(f"session {self.record.name!r} has no item {number}")

    def sure(self, item: str) -> float | None:
        """How probable it is that an item belongs where it stands, where that is known."""
        if item not in self.place:
            return None
        cluster, at = self.place[item]
        return None if cluster.confidence is None else cluster.confidence[at]


class Desk:
    """Reads sessions; those that have not changed since are not read again. For any thread."""

    def __init__(self, db: Database, prices: Prices) -> None:
        self.db = db
        self.prices = prices
        self.work = Work(db)
        self.jobs = Jobs()
        self._seen: OrderedDict[str, tuple[Any, Seen]] = OrderedDict()
        self._spends: OrderedDict[str, tuple[Any, Spend]] = OrderedDict()
        self._lock = threading.Lock()

    def seen(self, name: str) -> Seen:
        """The session called `name`, as it is now.

        Raises:
            UnknownSession: there is none.
        """
        record = load_session(self.db, name)
        stamp, partition = self._stamp(record)
        with self._lock:
            kept = self._seen.get(record.id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        seen = Seen(record, result_of(self.db, record.name), load_items(self.db, record.id), partition)
        self._keep(self._seen, record.id, (stamp, seen))
        return seen

    def spend(self, name: str) -> Spend:
        """What a session has spent, at the prices of now."""
        record = load_session(self.db, name)
        stamp, _ = self._stamp(record)
        with self._lock:
            kept = self._spends.get(record.id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        spend = spend_of(self.db, record.name, self.prices)
        self._keep(self._spends, record.id, (stamp, spend))
        return spend

    def _keep(self, kept: OrderedDict[str, tuple[Any, Any]], key: str, value: tuple[Any, Any]) -> None:
        with self._lock:
            kept[key] = value
            kept.move_to_end(key)
            while len(kept) > _KEPT:
                kept.popitem(last=False)

    def _stamp(self, record: SessionRecord) -> tuple[Any, str]:
        """What changes whenever anything of a session has, and what changes with its clusters."""
        last = select(func.max(answers.c.id)).where(answers.c.session_id == record.id)
        corrected = last.where(answers.c.kind == "correction")
        stored = select(artefacts.c.sha256).where(
            artefacts.c.session_id == record.id, artefacts.c.name == PARTITION, artefacts.c.part == 0
        )
        with self.db.reading() as connection:
            newest, corrections = connection.scalar(last), connection.scalar(corrected)
            digest = connection.scalar(stored)
        partition = f"{(digest or '')[:16]}.{corrections or 0}"
        return (status_now(self.db, record), record.updated_at, record.wish, newest, partition), partition
