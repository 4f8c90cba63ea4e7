"""Sessions and their items come back as they were stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.database import Database
from storage.errors import SessionExists, UnknownSession
from storage.items import Collection, FailedItem, Item, collection_from_rows
from storage.sessions import (
    SessionRecord,
    create_session,
    list_sessions,
    load_items,
    load_session,
    tell_progress,
    update_session,
    wish,
    wished,
)
from tests.storage.conftest import record


def test_round_trip(db: Database, tmp_path: Path) -> None:
    collection = Collection(
        tmp_path,
        (
            Item("a.png", "1" * 64, "image", None, tmp_path / "a.png"),
            Item("row 2", "2" * 64, "text", "zwei \U0001f600"),
        ),
        (FailedItem("b.png", "it is not an image"),),
    )
    made = create_session(
        db,
        record("one", collection=str(tmp_path), parameters={"seed": 0, "W": 8}, prompt_set={"name": "suit"}),
        collection,
    )
    loaded = load_session(db, "one")
    assert loaded == made
    assert load_session(db, made.id) == made
    assert list_sessions(db) == [made]
    rows = load_items(db, made.id)
    assert [(row.position, row.name, row.node, row.why) for row in rows] == [
        (0, "a.png", 0, None),
        (1, "row 2", 1, None),
        (2, "b.png", None, "it is not an image"),
    ]
    assert collection_from_rows(loaded.collection, rows) == collection


def test_names_are_taken_once(db: Database, session: SessionRecord) -> None:
    with pytest.raises(SessionExists, match="partita resume one"):
        create_session(db, record("one"), [])
    assert len(list_sessions(db)) == 1


def test_unknown_sessions(db: Database) -> None:
    with pytest.raises(UnknownSession, match="none yet"):
        load_session(db, "suits-1")
    create_session(db, record("suits-2"), [])
    with pytest.raises(UnknownSession, match="did you mean suits-2"):
        load_session(db, "suits-1")
    with pytest.raises(UnknownSession, match="partita sessions"):
        load_session(db, "zzz")


def test_update(db: Database, session: SessionRecord) -> None:
    update_session(db, session.id, status="paused", why="budget", seconds={"embed": 1.5})
    loaded = load_session(db, "one")
    assert loaded.updated_at > session.updated_at
    assert loaded == replace(
        session,
        status="paused",
        why="budget",
        seconds={"embed": 1.5},
        updated_at=loaded.updated_at,
    )
    with pytest.raises(TypeError, match="colour"):
        update_session(db, session.id, colour="red")
    with pytest.raises(UnknownSession):
        update_session(db, "nobody", status="done")


def test_they_are_listed_newest_first(db: Database) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    for name, day in (("old", 0), ("new", 2), ("middle", 1)):
        create_session(db, record(name, created_at=moment + timedelta(days=day)), [])
    assert [session.name for session in list_sessions(db)] == ["new", "middle", "old"]


def test_passwords_in_parameters_are_not_stored(db: Database) -> None:
    create_session(
        db, record("s", parameters={"endpoint": "http://me:pw@host/v1", "deep": [{"x": "https://a@b/"}]}), []
    )
    assert load_session(db, "s").parameters == {"endpoint": "http://host/v1", "deep": [{"x": "https://b/"}]}


def test_what_processes_tell_each_other_changes_nothing_else(db: Database, session: SessionRecord) -> None:
    assert wished(db, session.id) is None
    wish(db, session.id, "pause")
    tell_progress(db, session.id, {"stage": "traverse", "done": 3})
    assert wished(db, session.id) == "pause"
    assert load_session(db, "one") == replace(session, wish="pause", progress={"stage": "traverse", "done": 3})
    update_session(db, session.id, wish=None, progress=None)
    told = load_session(db, "one")
    assert told == replace(session, updated_at=told.updated_at) and wished(db, session.id) is None
