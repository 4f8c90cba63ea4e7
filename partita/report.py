"""What a report tells of a session: its partition, what is least certain and why, and what it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from partita.prices import Prices
from partita.result import Result
from partita.spend import Spend, spend_of
from partita.steering import Steering
from partita.stored import result_of
from storage.database import Database
from storage.items import Item, collection_from_rows
from storage.sessions import SessionRecord, load_items, load_session
from storage.trace import trace

DOUBTS = 12
"""Items that are told as the least certain."""
_PLACING = ("move", "split", "together", "apart")
"""Corrections that are about items themselves; the others name items to say which cluster is meant."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The last question about an item."""

    beside: tuple[str, ...]
    """The items that it was compared with."""
    conclusion: str
    """YES, NO or UNKNOWN, as it was about this item."""
    reason: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """An item whose place is less certain than that of others."""

    item: str
    cluster: int
    confidence: float
    last: Assessment | None
    """None if no question was about it alone: it began its cluster."""
    by_hand: str
    """What a person said of its place, as a sentence; empty if nobody has, or it is undone."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a session has come to, and how."""

    result: Result
    record: SessionRecord
    spend: Spend
    items: Mapping[str, Item]
    """By name."""
    doubts: tuple[Doubt, ...]
    """The least certain first; empty where the policy keeps no odds."""


def report_of(db: Database, name: str, prices: Prices) -> Report:
    """What there is to tell of a session, at the prices of now.

    Raises:
        UnknownSession: no session of that name.
    """
    result, record = result_of(db, name), load_session(db, name)
    rows = load_items(db, record.id)
    first: dict[int, str] = {}
    same = {row.name: first.setdefault(row.node, row.name) for row in rows if row.node is not None}
    doubtful = _least_certain(result, same)
    last = _last(trace(db, record.id, cluster_items=[item for item, _, _ in doubtful], kind="membership"))
    placing = [one for one in Steering(db, name).told() if one.holds and one.did in _PLACING]
    by_hand = {item: one.words for one in placing for item in one.items}
    items = collection_from_rows(record.collection, rows).items
    return Report(
        result,
        record,
        spend_of(db, name, prices),
        {item.name: item for item in items},
        tuple(Doubt(item, cluster, sure, last.get(item), by_hand.get(item, "")) for item, cluster, sure in doubtful),
    )


def _least_certain(result: Result, same: Mapping[str, str]) -> list[tuple[str, int, float]]:
    """(item, cluster, confidence), the least certain first; of the items with the same content the first."""
    all_of_them = [
        (sure, c.id, item)
        for c in result.clusters
        for item, sure in zip(c.items, c.confidence or (), strict=False)
        if same[item] == item
    ]
    return [(item, cluster, sure) for sure, cluster, item in sorted(all_of_them)[:DOUBTS]]


def _last(rows: Iterable[dict[str, Any]]) -> dict[str, Assessment]:
    """The last question about each item, from membership rows of the trace."""
    last: dict[str, Assessment] = {}
    for row in rows:
        candidates = row["candidates"]
        said = (row["conclusion"] or "").split()
        for place, item in enumerate(candidates):
            conclusion = said[place] if len(said) == len(candidates) else "UNKNOWN"
            reason = row["reason"] or row["reply"] or ""
            last[item] = Assessment(tuple(map(str, row["representatives"])), conclusion, reason)
    return last
