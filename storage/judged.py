"""What agents judged in a session, in node numbers and without words: what the story of its clusters is made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from storage.calls import ASSESSMENTS
from storage.database import Database
from storage.tables import answers, decisions

_PAGE = 2000
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Judged:
    """One answered question about memberships or about two clusters; the rest is as in `storage.ledger.Answer`."""

    id: int
    kind: str
    component: int | None
    step: int | None
    subject: Any
    conclusion: str | None
    decided: Any
    """What the search made of it; None where the ledger has nothing of that."""


def judged(db: Database, session_id: str) -> list[Judged]:
    """All assessments of a session in the order of writing."""
    columns = (answers.c[name] for name in ("id", "kind", "component", "step", "subject", "conclusion"))
    query = (
        select(*columns, decisions.c.decided)
        .outerjoin(decisions, decisions.c.answer == answers.c.id)
        .where(answers.c.session_id == session_id, answers.c.kind.in_(ASSESSMENTS))
        .order_by(answers.c.id)
    )
    with db.reading() as connection:
        rows: Iterable[Any] = connection.execution_options(yield_per=_PAGE).execute(query)
        return [Judged(*row) for row in rows]


def reasons(db: Database, session_id: str, numbers: Collection[int]) -> dict[int, str]:
    """The reasons given with some answers, by their ids; the reply where no reason was found in it."""
    wanted = sorted(set(numbers))
    found: dict[int, str] = {}
    with db.reading() as connection:
        for at in range(0, len(wanted), _AT_ONCE):
            query = select(answers.c.id, answers.c.reason, answers.c.reply).where(
                answers.c.session_id == session_id, answers.c.id.in_(wanted[at : at + _AT_ONCE])
            )
            found |= {number: reason or reply for number, reason, reply in connection.execute(query)}
    return found
