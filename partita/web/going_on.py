"""Going on with a session from the page, and pausing it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from partita.stored import status_now
from partita.web.desk import Desk
from partita.web.given import ADesk
from partita.web.rendering import page, session_url
from partita.web.work import bounds_of
from storage.sessions import load_session

router = APIRouter()


@router.post("/s/{name}/resume")
def resume(
    name: str,
    desk: ADesk,
    max_calls: Annotated[str, Form()] = "",
    max_cost: Annotated[str, Form()] = "",
    back: Annotated[str, Form()] = "",
) -> Response:
    """Go on with a session in a process of its own."""
    desk.work.resume(name, bounds_of(max_calls, max_cost))
    return _back(name, back)


@router.post("/s/{name}/pause")
def pause(name: str, desk: ADesk, back: Annotated[str, Form()] = "") -> Response:
    """Ask the process that works on a session, wherever it runs, to pause."""
    desk.work.pause(name)
    return _back(name, back)


@router.get("/s/{name}/work")
def work(name: str, desk: ADesk) -> Response:
    """What can be done now, for a page that is open."""
    return page("_work", **at_work(desk, name))


def at_work(desk: Desk, name: str) -> dict[str, Any]:
    """What the form is made from with which a session is gone on with or paused."""
    record = load_session(desk.db, name)
    return {"record": record, "doing": desk.work.doing(record, status_now(desk.db, record))}


def _back(name: str, back: str) -> Response:
    """To the page that the form was on."""
    return RedirectResponse("/" if back == "/" else session_url(name), 303)
