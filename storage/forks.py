"""A session made from another: its items, the answers that still hold, and what people said."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Column, Connection, Table, and_, func, insert, literal, or_, select
from sqlalchemy.exc import IntegrityError

from storage.corrections import HUMAN, KIND, said
from storage.database import Database
from storage.errors import SessionExists
from storage.sessions import SessionRecord
from storage.tables import answers, artefacts, items, sessions

REUSED = "reused"
_OWN = ("id", "session_id", "origin")


def fork(
    db: Database, of: str, record: SessionRecord, asked: Mapping[str, str], kept: Collection[str]
) -> dict[str, int]:
    """Store `record` as a new session with the items of the session with the id `of`, all or nothing.

    Taken over are answers to questions that the new session would ask in the same words, with the origin `reused`, and
    corrections that hold.

    Args:
        asked: the hash of the instruction of every kind of answer that is taken over; embeddings have that of the
            description.
        kept: names of artefacts that are the new session's, too.

    Returns:
        How many answers of each kind were taken over.

    Raises:
        SessionExists: the name is taken.
    """
    still = or_(*(and_(answers.c.kind == kind, answers.c.prompt_hash == hashed) for kind, hashed in asked.items()))
    own = and_(answers.c.session_id == of, answers.c.origin != HUMAN, still)
    spoken = [one for one in said(db, of) if one.holds and one.subject["did"] != "undo"]
    with db.writing() as connection:
        try:
            connection.execute(insert(sessions), [asdict(record)])
        except IntegrityError as error:
            raise SessionExists(f"there is a session {record.name!r} already: give another --session") from error
        columns = [column for column in items.c if column.name != "session_id"]
        _copy(connection, items, columns, record.id, items.c.session_id == of)
        columns = [column for column in artefacts.c if column.name != "session_id"]
        _copy(connection, artefacts, columns, record.id, and_(artefacts.c.session_id == of, artefacts.c.name.in_(kept)))
        columns = [column for column in answers.c if column.name not in _OWN]
        _copy(connection, answers, columns, record.id, own, origin=REUSED)
        for one in spoken:
            mine = and_(answers.c.id == one.id, answers.c.kind == KIND)
            _copy(connection, answers, columns, record.id, mine, origin=HUMAN)
    return reused(db, record.id)


def reused(db: Database, session_id: str) -> dict[str, int]:
    """How many answers of each kind a session has taken over from another."""
    counts = select(answers.c.kind, func.count()).where(answers.c.session_id == session_id, answers.c.origin == REUSED)
    with db.reading() as connection:
        return dict(connection.execute(counts.group_by(answers.c.kind)).all())


def _copy(connection: Connection, table: Table, columns: list[Column[Any]], to: str, which: Any, **more: str) -> None:
    """Rows of a table once more, for the session with the id `to`, in the same order."""
    given = {"session_id": to, **more}
    query = select(*columns, *(literal(value) for value in given.values())).where(which)
    if "id" in table.c:
        query = query.order_by(table.c.id)
    names = [column.name for column in columns]
    connection.execute(insert(table).from_select([*names, *given], query))
