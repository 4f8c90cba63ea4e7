"""Forking a session from the page: other prompts for the same collection, checked, and run at once."""

from __future__ import annotations

import threading
from typing import Annotated, Any

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from agents.prompt_sets import PromptSet, parse_prompts, shipped_names
from agents.prompt_yaml import differences, to_yaml
from partita.forking import asked_anew, fork
from partita.prompts import Chosen, shipped_yaml, stored_set, yaml_of
from partita.result import TEACHER
from partita.session_names import check_name
from partita.web.clusters import head
from partita.web.desk import Desk
from partita.web.given import ADesk
from partita.web.labels import by_labels
from partita.web.rendering import page, session_url
from partita.web.work import bounds_of
from storage.database import Database
from storage.errors import PartitaError, SessionError, SessionExists
from storage.prompts import find, versions
from storage.sessions import SessionRecord, list_sessions, load_session

router = APIRouter()
_WHERE = "prompts"
"""What the text is called in errors."""
_LABELS = {"session": "name of the new session"}
_VERSIONS = 50
"""Kept versions that are offered."""
_one_at_a_time = threading.Lock()


@router.get("/s/{name}/fork")
def form(name: str, desk: ADesk, prompts: str = "") -> Response:
    """The session's prompts as YAML to be edited, or (`prompts`) those of a shipped set or a kept version."""
    record = _forkable(desk.db, name)
    return _page(desk, record, _text(desk.db, record, prompts), _free(desk.db, record.name), chosen=prompts)


@router.post("/s/{name}/fork")
def ordered(
    name: str,
    desk: ADesk,
    text: Annotated[str, Form()] = "",
    session: Annotated[str, Form()] = "",
    max_calls: Annotated[str, Form()] = "",
    max_cost: Annotated[str, Form()] = "",
    do: Annotated[str, Form()] = "check",
) -> Response:
    """Check what was written, or fork with it and go on with what came of that."""
    record = _forkable(desk.db, name)
    text = text.replace("\r\n", "\n")  # as browsers send lines
    kept: dict[str, Any] = {"max_calls": max_calls, "max_cost": max_cost}
    try:
        chosen = Chosen(parse_prompts(text, record.criterion, _WHERE), "page", text)
        bounds = bounds_of(max_calls, max_cost)
        named = check_name(session.strip() or _free(desk.db, record.name))
        if do != "run":
            return _page(desk, record, text, session, found=chosen.prompts, **kept)
        with _one_at_a_time:
            if not _is_second_click(desk, named, chosen.prompts):
                made = fork(desk.db, record.name, chosen, session=named)
                desk.work.resume(named, bounds, note=f"Forked from {record.name}: {made.line()}")
    except PartitaError as e:
        return _page(desk, record, text, session, status=400, why=by_labels(str(e), _LABELS), **kept)
    return RedirectResponse(session_url(named), 303)


def _page(
    desk: Desk,
    record: SessionRecord,
    text: str,
    session: str,
    *,
    status: int = 200,
    chosen: str = "",
    why: str | None = None,
    found: PromptSet | None = None,
    max_calls: str = "",
    max_cost: str = "",
) -> Response:
    old = stored_set(record.prompt_set, record.prompt_set_hash)
    checked = None
    if found is not None:
        checked = {"set": found, "again": asked_anew(old, found), "differences": differences(old, found)[2:]}
    return page(
        "fork", status, **head(desk, record.name), tab="fork", text=text, session=session, why=why, checked=checked,
        sets=shipped_names(), versions=versions(desk.db)[:_VERSIONS], chosen=chosen, max_calls=max_calls,
        max_cost=max_cost,
    )  # fmt: skip


def _forkable(db: Database, name: str) -> SessionRecord:
    record = load_session(db, name)
    if record.policy == TEACHER:
        raise SessionError(f"session {record.name!r} holds a teacher's answers: there is nothing to fork")
    return record


def _text(db: Database, record: SessionRecord, named: str) -> str:
    """Prompts as YAML. Never a file's, which a name may be on the command line."""
    if named in shipped_names():
        return shipped_yaml(named)
    if named or record.prompt_set_hash:
        version = find(db, named or record.prompt_set_hash)
        return yaml_of(version).removeprefix(f"# The prompt set {version.hash}.\n")  # it becomes another
    return to_yaml(stored_set(record.prompt_set, record.prompt_set_hash))


def _free(db: Database, name: str) -> str:
    """A name that shows what the session was forked from."""
    taken = {one.name for one in list_sessions(db)}
    return next(f"{name[:90]}-{n}" for n in range(2, len(taken) + 3) if f"{name[:90]}-{n}" not in taken)


def _is_second_click(desk: Desk, named: str, prompts: PromptSet) -> bool:
    """Whether just this was forked and begun from here already.

    Raises:
        SessionExists: there is another session of that name.
    """
    if named not in {one.name for one in list_sessions(desk.db)}:
        return False
    latest = desk.work.latest(named)
    if latest is None or not latest.note or load_session(desk.db, named).prompt_set_hash != prompts.hash:
        raise SessionExists(f"there is a session {named!r} already: give another name")
    return True
