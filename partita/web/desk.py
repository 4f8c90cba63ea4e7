"""What pages are made from: the database, and each session as it was last read."""

from __future__ import annotations

import threading
import time
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import func, select, union_all

from graphs.partition import PARTITION, Partition
from partita.prices import Prices
from partita.result import ClusterResult, Result
from partita.spend import Amount, Spend, amount_of, spend_of
from partita.stored import found_by_agents, result_of, status_now
from partita.web.earlier import Earlier
from partita.web.embeddings import Embeddings
from partita.web.jobs import Jobs
from partita.web.maps import Maps
from partita.web.work import Work
from storage import artefacts
from storage.calls import TRACED
from storage.corrections import KIND as CORRECTION
from storage.database import Database
from storage.errors import UsageError
from storage.items import Collection, Item, ItemRow, collection_from_rows
from storage.ledger import tally
from storage.sessions import SessionRecord, load_item, load_items, load_session
from storage.tables import answers
from storage.tables import items as items_table

V = TypeVar("V")

_KEPT = 6
"""Sessions that stay in memory as they were last read."""
_LISTED = 200
"""Sessions whose counts of calls, and what they took, stay in memory."""
_TRIES = 3
"""Readings of a session whose clusters change while they are read."""
_RESTS = 8
"""What a running session has spent is added up again after so many times the time that it took."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A session as it was read."""

    record: SessionRecord
    result: Result
    found: Partition
    """The clusters as agents left them, whatever people corrected."""
    rows: list[ItemRow]
    """By position, which is an item's number in addresses."""
    partition: str
    """Changes with the clusters: for whoever has to know whether they are still the same."""
    extent: int
    """Items that there were."""

    @cached_property
    def collection(self) -> Collection:
        """What can be shown, and the folder it lies in."""
        return collection_from_rows(self.record.collection, self.rows)

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """What can be shown, by name."""
        return {item.name: item for item in self.collection.items}

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """An item's number, by its name."""
        return {row.name: row.position for row in self.rows}

    @cached_property
    def place(self) -> Mapping[str, tuple[ClusterResult, int]]:
        """Where each item stands: the cluster, and its place in it."""
        return {item: (c, at) for c in self.result.clusters for at, item in enumerate(c.items)}

    @cached_property
    def places(self) -> Sequence[int]:
        """The number of the cluster in which the item of each row stands; 0 where it stands in none."""
        return array("i", (self.place[row.name][0].id if row.name in self.place else 0 for row in self.rows))

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
        """How probable it is by the session's odds that an item belongs where it stands; None where that isn't known,
        or a person placed it."""
        if item not in self.place or item in self.result.placed:
            return None
        cluster, at = self.place[item]
        return None if cluster.confidence is None else cluster.confidence[at]

    def least(self, cluster: ClusterResult) -> float | None:
        """How sure the least certain of a cluster's items is, of those that have odds (`sure`)."""
        return min((sure for item in cluster.items if (sure := self.sure(item)) is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Told quickly by the database: what changes whenever something of a session has."""

    status: str
    updated: Any
    newest: int
    """Id of the last answer."""
    partition: str
    """Changes with the clusters."""
    extent: int
    """Items that there are."""


class _Kept(Generic[V]):
    """The values that were used last, each under a stamp. For any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, tuple[Any, V]] = OrderedDict()
        self._lock = threading.Lock()

    def last(self, key: str) -> tuple[Any, V] | None:
        """The stamp and the value that were kept last."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get(self, key: str, stamp: Any) -> V | None:
        """The value, if it was kept under this stamp."""
        kept = self.last(key)
        return kept[1] if kept is not None and kept[0] == stamp else None

    def keep(self, key: str, stamp: Any, value: V) -> V:
        """Keep a value in place of an older one; gives it back."""
        with self._lock:
            self._values[key] = stamp, value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class Desk:
    """Reads sessions; those that have not changed since are not read again. For any thread."""

    def __init__(self, db: Database, prices: Prices) -> None:
        self.db = db
        self.prices = prices
        self.work = Work(db)
        self.jobs = Jobs()
        self.embeddings = Embeddings(db)
        self.maps = Maps(db, self.embeddings)
        self.earlier = Earlier()
        self._seen: _Kept[Seen] = _Kept(_KEPT)
        self._spends: _Kept[tuple[Spend, float]] = _Kept(_KEPT)
        self._tallies: _Kept[dict[str, int]] = _Kept(_LISTED)
        self._amounts: _Kept[Amount] = _Kept(_LISTED)

    def seen(self, name: str) -> Seen:
        """The session called `name`, as it is now.

        Raises:
            UnknownSession: there is none.
        """
        for _ in range(_TRIES):
            record = load_session(self.db, name)
            stamp = self._stamp(record)
            kept = self._seen.get(record.id, stamp)
            if kept is not None:
                return kept
            read = self._read(record, stamp)
            # Other clusters may have been stored between the two: their numbers must not go by the older ones' stamp.
            if (self.partition(record.id) or "") == stamp.partition:
                if read.result.clusters:
                    self.earlier.keep(record.id, stamp.partition, read.places)
                return self._seen.keep(record.id, stamp, read)
        # A stamp of its own for clusters of which it isn't known whether they are still the same.
        return replace(read, partition=f"?{uuid.uuid4()}")

    def item(self, name: str, number: int) -> tuple[SessionRecord, Path, Item | None]:
        """A session, the folder of its collection and one of its items, for what needs nothing else; None for an item
        that could not be read.

        Raises:
            UnknownSession: there is no such session.
            UsageError: it has no such item.
        """
        record = load_session(self.db, name)
        row = load_item(self.db, record.id, number)
        if row is None:
            raise UsageError(f"session {record.name!r} has no item {number}")
        collection = collection_from_rows(record.collection, [row])
        return record, collection.root, next(iter(collection.items), None)

    def spend(self, name: str) -> Spend:
        """What a session has spent, at the prices of now, not told apart by clusters. Of a large one that is running
        it may be some seconds old: all of its answers are gone through for it.

        Raises:
            UnknownSession: there is none.
        """
        record = load_session(self.db, name)
        stamp = self._stamp(record)
        kept, began = self._spends.last(record.id), time.monotonic()
        if kept is not None:
            before, (spend, again) = kept
            if before == stamp or (before.status == stamp.status == "running" and began < again):
                return spend
        spend = spend_of(self.db, record.name, self.prices, by_cluster=False)
        ended = time.monotonic()
        self._spends.keep(record.id, stamp, (spend, ended + _RESTS * (ended - began)))
        return spend

    def tally(self, record: SessionRecord) -> dict[str, int]:
        """A session's answers by kind, as `storage.ledger.tally` counts them."""
        newest = self._newest(record.id)
        kept = self._tallies.get(record.id, newest)
        return kept if kept is not None else self._tallies.keep(record.id, newest, tally(self.db, record.id))

    def amount(self, record: SessionRecord) -> Amount:
        """What a session has spent in all, without its images."""
        newest = self._newest(record.id)
        kept = self._amounts.get(record.id, newest)
        if kept is not None:
            return kept
        return self._amounts.keep(record.id, newest, amount_of(self.db, record, self.prices))

    def _read(self, record: SessionRecord, stamp: _Stamp) -> Seen:
        last = self._seen.last(record.id)
        if last is None or (last[0].partition, last[0].extent) != (stamp.partition, stamp.extent):
            found = found_by_agents(self.db, record.id)
            result, rows = result_of(self.db, record.name, found), load_items(self.db, record.id)
            return Seen(record, result, found, rows, stamp.partition, stamp.extent)
        # The agents have gone on, and the clusters are still the same.
        before = last[1]
        told = replace(
            before.result,
            status=stamp.status,
            calls=self.tally(record),
            seconds=record.seconds,
            why=record.why,
            progress=record.progress if stamp.status == "running" else None,
        )
        return replace(before, record=record, result=told)

    def partition(self, session_id: str) -> str | None:
        """What changes with a session's clusters; None while there are none."""
        digest = artefacts.digest(self.db, session_id, PARTITION)
        corrected = select(func.max(answers.c.id)).where(
            answers.c.session_id == session_id, answers.c.kind == CORRECTION
        )
        with self.db.reading() as connection:
            corrections = connection.scalar(corrected)
        return None if digest is None else f"{digest[:16]}.{corrections or 0}"

    def _stamp(self, record: SessionRecord) -> _Stamp:
        extent = select(func.max(items_table.c.position)).where(items_table.c.session_id == record.id)
        newest, partition = self._newest(record.id), self.partition(record.id) or ""
        with self.db.reading() as connection:
            last = connection.scalar(extent)
        updated = record.updated_at, record.wish
        return _Stamp(status_now(self.db, record), updated, newest, partition, -1 if last is None else last)

    def _newest(self, session_id: str) -> int:
        """The id of a session's last answer. Kind by kind it is the end of an index."""
        last = func.max(answers.c.id).label("last")
        ends = [select(last).where(answers.c.session_id == session_id, answers.c.kind == kind) for kind in TRACED]
        each = union_all(*ends).subquery()
        with self.db.reading() as connection:
            return int(connection.scalar(select(func.max(each.c.last))) or 0)
