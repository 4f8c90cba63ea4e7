"""The first page: all sessions, how far they are and what they have spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from graphs.budget import USED_UP
from partita.estimate import count
from partita.result import TEACHER
from partita.stored import status_now
from partita.web.desk import Desk
from partita.web.given import ADesk
from partita.web.rendering import page, session_url
from partita.web.work import Doing
from storage.sessions import SessionRecord, list_sessions, load_item

router = APIRouter()
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Line:
    """A session as the list shows it."""

    record: SessionRecord
    doing: Doing
    calls: int
    """Chat calls that were answered."""
    spent: str
    """Tokens and cost; empty where no token was counted."""
    progress: dict[str, Any] | None
    """How far a running one is."""
    of_teacher: bool
    """Whether it holds a teacher's answers, and so has no clusters."""
    used_up: bool
    """Whether it paused before it passed a limit: going on wants another one, or none, said where it can be written."""
    strip: str | None
    """The address of its strip of pictures; None for texts, and while there are no clusters."""


@router.get("/")
def sessions(desk: ADesk, start: int = 0) -> Response:
    """All sessions, the newest first."""
    return page("sessions", **_listed(desk, start))


@router.get("/live")
def live(desk: ADesk, start: int = 0) -> Response:
    """The list alone, for a page that is open."""
    return page("_sessions", **_listed(desk, start))


def _listed(desk: Desk, start: int) -> dict[str, Any]:
    records = list_sessions(desk.db)
    start = max(0, start)
    lines = [_line(desk, record) for record in records[start : start + _AT_ONCE]]
    following = start + _AT_ONCE if start + _AT_ONCE < len(records) else None
    return {"lines": lines, "count": len(records), "start": start, "following": following, "db": str(desk.db)}


def _line(desk: Desk, record: SessionRecord) -> Line:
    status = status_now(desk.db, record)
    calls = desk.tally(record)
    asked = sum(calls.get(kind, 0) for kind in ("describe", "membership", "merge"))
    progress = record.progress if status == "running" else None
    doing, of_teacher = desk.work.doing(record, status), record.policy == TEACHER
    took = desk.amount(record)
    spent = f"{count(took.tokens)} tokens, {took.price()}" if took.tokens or took.cost else ""
    used_up = status == "paused" and (record.why or "").startswith(USED_UP)
    return Line(record, doing, asked, spent, progress, of_teacher, used_up, _strip(desk, record))


def _strip(desk: Desk, record: SessionRecord) -> str | None:
    partition, first = desk.partition(record.id), load_item(desk.db, record.id, 0)
    if partition is None or (first is not None and first.kind == "text"):
        return None
    return session_url(record.name, "strip", v=partition)
