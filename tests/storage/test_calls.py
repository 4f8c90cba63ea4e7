"""Which calls are wanted of a session: filters, alone and together, in both databases."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from storage.calls import KINDS, Wanted, calls, extents, held, name_in_calls
from storage.database import Database
from storage.errors import UsageError
from storage.items import Item
from storage.ledger import Ledger
from storage.sessions import SessionRecord, create_session
from storage.tables import answers
from tests.storage.conftest import answer, record

BEGAN = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


@pytest.fixture
async def filled(db: Database, session: SessionRecord) -> SessionRecord:
    """Items a.png to f.png are nodes 0 to 5."""

    def minutes(number: int) -> datetime:
        return BEGAN + timedelta(minutes=number)

    merge = {"representatives": [[0], [3]], "clusters": [[0], [3]]}
    several = {"representatives": [0], "candidates": [1, 2]}
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("0", kind="describe", subject={"item": 2}, conclusion=None, at=minutes(0)))
        await ledger.record(answer("1", at=minutes(1), model="other"))  # a, b and c
        await ledger.record(answer("2", subject=several, conclusion="YES NO", at=minutes(2)))
        await ledger.record(answer("3", kind="merge", component=None, subject=merge, conclusion="NO", at=minutes(3)))
        await ledger.record(
            answer("4", subject={"representatives": [3], "candidates": [4]}, conclusion="UNKNOWN", at=minutes(4))
        )
        ledger.decided("4", [{"item": 4, "odds": 0.0}, {"item": 5, "did": "moved"}, {"items": [1], "did": "left"}])
        await ledger.record(answer("5", kind="embed", subject={"item": 2}, conclusion=None, at=minutes(5)))
    return session


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        (Wanted(), "1234"),
        (Wanted(KINDS), "012345"),
        (Wanted(("describe", "embed")), "05"),
        (Wanted(conclusion="YES"), "12"),
        (Wanted(conclusion="NO"), "23"),
        (Wanted(conclusion="UNKNOWN"), "4"),
        (Wanted(KINDS, conclusion="NO"), "23"),
        (Wanted(item="b.png"), "12"),
        (Wanted(item="b.png", conclusion="NO"), ""),  # what was said of b.png was YES both times
        (Wanted(item="c.png", conclusion="NO"), "2"),
        (Wanted(item="a.png", conclusion="NO"), "23"),
        (Wanted(since=BEGAN + timedelta(minutes=2)), "234"),
        (Wanted(until=BEGAN + timedelta(minutes=2)), "12"),
        (Wanted(since=BEGAN + timedelta(minutes=2), until=BEGAN + timedelta(minutes=3)), "23"),
        (Wanted(model="other"), "1"),
        (Wanted(model="nobody"), ""),
        (Wanted(last=2), "34"),
        (Wanted(last=99), "1234"),
        (Wanted(item="a.png", last=2), "23"),
        (Wanted(conclusion="YES", last=1), "2"),
        (Wanted(cluster_items=["e.png", "b.png"]), "124"),
        (Wanted(cluster_items=["b.png"], item="c.png", conclusion="NO"), "2"),
        (Wanted(item="f.png"), ""),
        (Wanted(item="f.png", story=()), "4"),  # it was moved then
        (Wanted(item="b.png", story=()), "124"),
        (Wanted(item="e.png", story=["d.png", "e.png"]), "34"),
    ],
)
async def test_filters(db: Database, filled: SessionRecord, wanted: Wanted, keys: str, monkeypatch) -> None:
    assert "".join(call.key for call in calls(db, filled.id, wanted)) == keys
    monkeypatch.setattr("storage.calls._PAGE", 2)
    assert "".join(call.key for call in calls(db, filled.id, wanted)) == keys


async def test_what_is_not_there(db: Database, filled: SessionRecord) -> None:
    for wanted, says in (
        (Wanted(("guess",)), "--kind"),
        (Wanted(conclusion="MAYBE"), "--conclusion"),
        (Wanted(item="\x1b[31mnobody"), r"x1b.*partita show"),
    ):
        with pytest.raises(UsageError, match=says):
            calls(db, filled.id, wanted)
    there = [(one.kind, one.conclusion, one.calls) for one in held(db, filled.id)]
    assert sorted(there, key=str) == sorted(
        [
            ("describe", None, 1), ("embed", None, 1), ("membership", "YES", 1), ("membership", "YES NO", 1),
            ("membership", "UNKNOWN", 1), ("merge", "NO", 1),
        ],
        key=str,
    )  # fmt: skip
    assert min(one.first for one in held(db, filled.id)) == BEGAN


async def test_names_of_copies_and_in_folders(db: Database) -> None:
    items = [
        Item(name, content * 64, "image") for name, content in (("x/1.png", "1"), ("y/1.png", "1"), ("z.png", "2"))
    ]
    session = create_session(db, record("copies"), items)
    assert name_in_calls(db, session.id, "y/1.png") == "x/1.png"
    with pytest.raises(UsageError, match=r"did you mean 'x/1.png' or 'y/1.png'"):
        name_in_calls(db, session.id, "1.png")


async def test_when_calls_were_made(db: Database, filled: SessionRecord) -> None:
    found = extents(db, filled.id)
    assert found["membership", 0] == (
        BEGAN + timedelta(minutes=1, seconds=-0.25),
        BEGAN + timedelta(minutes=4),
    )
    assert found.keys() == {("describe", 0), ("membership", 0), ("merge", None), ("embed", 0)}


async def test_a_long_session_is_streamed(db: Database, session: SessionRecord) -> None:
    """4,000 replies of 10,000 characters are 40 MB."""
    one = {name: getattr(answer("k"), name) for name in answer("k").__dataclass_fields__ if name != "id"}
    rows = [one | {"session_id": session.id, "key": str(n), "reply": f"{n:010}" * 1000} for n in range(4000)]
    for n in range(0, 4000, 500):
        with db.writing() as connection:
            connection.execute(insert(answers), rows[n : n + 500])
    del rows
    tracemalloc.start()
    try:
        assert sum(1 for _ in calls(db, session.id, Wanted())) == 4000
        assert [call.key for call in calls(db, session.id, Wanted(last=2))] == ["3998", "3999"]
        assert tracemalloc.get_traced_memory()[1] < 25e6
    finally:
        tracemalloc.stop()
