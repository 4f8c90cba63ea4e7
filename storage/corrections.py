"""What people said of a session's partition: rows of the ledger with the origin `human`, never changed or removed.

To undo something is a row, too; undoing that brings it back.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select

from storage.database import Database
from storage.errors import UsageError
from storage.ledger import storable
from storage.tables import answers

KIND = "correction"
HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Said:
    """One correction as it is stored."""

    id: int
    subject: Mapping[str, Any]
    """`{"did": ..., "items": [n...], "others": [n...], "name": ...}` in node numbers; `{"did": "undo", "of": id}`."""
    why: str | None
    """What the person wrote about it."""
    at: datetime
    holds: bool
    """Whether it has not been undone."""


def said(db: Database, session_id: str) -> list[Said]:
    """All corrections in the order in which they were said, undone ones and undoing among them."""
    query = (
        select(answers.c.id, answers.c.subject, answers.c.reason, answers.c.at)
        .where(answers.c.session_id == session_id, answers.c.kind == KIND)
        .order_by(answers.c.id)
    )
    with db.reading() as connection:
        rows = connection.execute(query).all()
    undone: set[int] = set()
    found = []
    for number, subject, why, at in reversed(rows):
        holds = number not in undone
        if holds and subject["did"] == "undo":
            undone.add(subject["of"])
        found.append(Said(number, subject, why, at, holds))
    return found[::-1]


def say(db: Database, session_id: str, subject: Mapping[str, Any], why: str | None = None) -> int:
    """Store a correction; its id."""
    row = {
        "session_id": session_id,
        "key": f"{HUMAN}:{uuid.uuid4()}",
        "kind": KIND,
        "attempt": 0,
        "subject": dict(subject),
        "prompt_hash": "",
        "reply": "",
        "reason": None if why is None else storable(why),
        "model": HUMAN,
        "seconds": 0.0,
        "attempts": 0,
        "origin": HUMAN,
        "at": datetime.now(UTC),
    }
    with db.writing() as connection:
        number = connection.execute(insert(answers).returning(answers.c.id), row).scalar_one()
    return int(number)


def undo(db: Database, session_id: str, number: int | None = None) -> Said:
    """Undo a correction, the last one that holds where no number is given; what was undone.

    Raises:
        UsageError: there is none such, or it is undone already.
    """
    there = said(db, session_id)
    if number is None:
        holding = [one for one in there if one.holds and one.subject["did"] != "undo"]
        if not holding:
            raise UsageError("there is no correction to undo")
        one = holding[-1]
    else:
        known = {one.id: one for one in there}
        if number not in known:
            which = ", ".join(map(str, known)) or "none"
            raise UsageError(f"there is no correction {number}; there are: {which}")
        one = known[number]
        if not one.holds:
            raise UsageError(f"correction {number} is undone already")
    say(db, session_id, {"did": "undo", "of": one.id})
    return one
