"""Prompt sets: those that ship and the versions that were kept or used, one of them in full, two side by side, and the
editor that checks, keeps and plans a trial of what is written in it.

A name in an address is a shipped set's or a hash, never a file's.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, Query
from starlette.responses import RedirectResponse, Response

from agents.prompt_sets import PromptSet, parse_prompts, shipped_names
from agents.prompt_yaml import differences
from partita.prompts import choose, compare, keep_text, prompts_of, shipped_yaml, yaml_of
from partita.result import TEACHER
from partita.trying import Plan, plan_trial
from partita.web.desk import Desk
from partita.web.given import ADesk
from partita.web.rendering import page, session_url
from storage.database import Database
from storage.errors import PartitaError, PromptError, UsageError
from storage.prompts import Version, find, is_hash, versions
from storage.sessions import SessionRecord, list_sessions, load_session

router = APIRouter()
FEWEST, USUAL, MOST = 2, 4, 6
"""Items of a trial."""
_AT_ONCE = 50
"""Versions on one page."""
_OFFERED = 200
"""Sessions that are offered, the newest."""
_NAMED = 200
"""Sessions that used a version, on its page."""
_LINES = 400
"""Lines of a difference."""
_CRITERION = "$criterion"
_ORIGINS = {"shipped": "shipped", "file": "from a file", "page": "kept here", "drafted": "drafted by a model"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A prompt set as the list shows it; `key` is what it is called in addresses."""

    key: str
    name: str
    criterion: str
    hash: str | None
    """None of a shipped set that has ``$criterion`` in it."""
    source: str | None
    at: datetime | None
    sessions: tuple[str, ...]

    @property
    def origin(self) -> str:
        """Where it came from, in words."""
        return "" if self.at is None else _ORIGINS.get(self.source or "", "of a session")

    @property
    def href(self) -> str:
        """Its page."""
        return prompts_url(self.key)


@dataclass(frozen=True, slots=True)
class Draught:
    """What is in the editor's form."""

    text: str
    criterion: str = ""
    session: str = ""
    """To try it on."""
    items: int = USUAL
    base: str = ""
    """What it was copied from: a shipped name or a hash."""

    def prompts(self, criterion: str | None = None) -> PromptSet:
        """As a prompt set.

        Args:
            criterion: stands for ``$criterion`` where the form has no other.

        Raises:
            PromptError: it is none.
        """
        return _parsed(self.text, self.criterion or criterion)

    def planned(self, db: Database) -> Plan:
        """What a trial of it would ask.

        Raises:
            UsageError: it is no prompt set, or can't be tried on that session.
        """
        if not self.session:
            raise UsageError("choose a session to try it on")
        if not FEWEST <= self.items <= MOST:
            raise UsageError(f"try it on {FEWEST} to {MOST} items")
        record = load_session(db, self.session)
        return plan_trial(db, record.name, self.prompts(record.criterion), items=self.items)


def written(
    text: Annotated[str, Form()] = "",
    criterion: Annotated[str, Form()] = "",
    session: Annotated[str, Form()] = "",
    items: Annotated[int, Form()] = USUAL,
    base: Annotated[str, Form()] = "",
) -> Draught:
    """What a form sent."""
    # Browsers send lines as networks do.
    return Draught(text.replace("\r\n", "\n"), criterion.strip(), session, items, base)


Written = Annotated[Draught, Depends(written)]


@router.get("/prompts")
def listing(desk: ADesk, start: int = 0) -> Response:
    """The versions, the last first, and the shipped sets."""
    found = [version for version in versions(desk.db) if is_hash(version.hash)]
    used = {version.hash: version.sessions for version in found}
    start = max(0, start)
    kept = [_listed(version) for version in found[start : start + _AT_ONCE]]
    following = start + _AT_ONCE if start + _AT_ONCE < len(found) else None
    shipped = [_shipped(name, used) for name in shipped_names()]
    return page("prompts", kept=kept, shipped=shipped, count=len(found), start=start, following=following)


@router.get("/prompts/diff")
def difference(desk: ADesk, which: Annotated[list[str] | None, Query()] = None) -> Response:
    """What differs between two of them."""
    if which is None or len(which) != 2:
        raise UsageError("choose two prompt sets to see what differs between them: go back and tick two")
    # What is older, or ships, comes first.
    one, other = sorted(which, key=lambda named: (named not in shipped_names(), -which.index(named)))
    lines = compare(desk.db, one, other, files=False)
    sides = [(named, prompts_url(named), _called(desk.db, named)) for named in (one, other)]
    return page("prompt_diff", lines=lines[2:][:_LINES], more=max(0, len(lines) - 2 - _LINES), sides=sides)


@router.get("/prompts/edit")
def edit(
    desk: ADesk,
    based: Annotated[str, Query(alias="from")] = "",
    session: str = "",
    criterion: str = "",
    job: str = "",
) -> Response:
    """The editor: with a copy of a set, of what a session asks, or of what was tried."""
    if job:
        tried = desk.jobs.get(job)
        if tried is not None and isinstance(form := getattr(tried.about, "draught", None), Draught):
            return editor(desk, form)
    if session and not based:
        based = load_session(desk.db, session).prompt_set_hash
    text = _text(desk.db, based or "default")
    return editor(desk, Draught(text, criterion, session, base=based or "default"))


@router.post("/prompts/edit")
def edited(desk: ADesk, form: Written, do: Annotated[str, Form()] = "check") -> Response:
    """Check what is written, keep it as a version, or plan a trial of it."""
    try:
        if do in ("keep", "fork"):
            criterion = form.criterion or (load_session(desk.db, form.session).criterion if do == "fork" else None)
            form.prompts(criterion)  # says what is wrong in the editor's words
            kept, _ = keep_text(desk.db, form.text, criterion or None, "page")
            to = session_url(form.session, "fork", prompts=kept.hash) if do == "fork" else prompts_url(kept.hash)
            return RedirectResponse(to, 303)
        if do == "try":
            return editor(desk, form, plan=form.planned(desk.db))
        return editor(desk, form, checked=True)
    except PartitaError as e:
        return editor(desk, form, why=str(e), status=400)


@router.get("/prompts/fork")
def fork(desk: ADesk, session: str, prompts: str) -> Response:
    """To the form that forks a session, with a set in it."""
    return RedirectResponse(session_url(load_session(desk.db, session).name, "fork", prompts=prompts), 303)


@router.get("/prompts/{named}")
def shown(named: str, desk: ADesk) -> Response:
    """One set: what is asked, as YAML, and who asked it."""
    if named in shipped_names():
        used = {version.hash: version.sessions for version in versions(desk.db)}
        head, prompts, text = _shipped(named, used), choose(None, _CRITERION, named).prompts, shipped_yaml(named)
    else:
        version = find(desk.db, named)
        head, prompts, text = _listed(version), prompts_of(version), yaml_of(version)
    return page(
        "prompt", head=head, edit=prompts_url("edit", **{"from": head.key}), prompts=prompts, text=text,
        used=head.sessions[:_NAMED], more=max(0, len(head.sessions) - _NAMED), sessions=to_try(desk.db),
    )  # fmt: skip


def editor(
    desk: Desk, form: Draught, *, checked: bool = False, plan: Plan | None = None, why: str = "", status: int = 200
) -> Response:
    """The editor's page.

    Args:
        checked: tell what is written, beside the form.
        plan: a trial that waits for a yes.
        why: what is wrong.
    """
    fine = _fine(desk.db, form) if checked else None
    return page(
        "prompt_edit", status, form=form, fine=fine, plan=plan, why=why, sessions=to_try(desk.db),
        numbers=range(FEWEST, MOST + 1), number=secrets.token_urlsafe(12),
    )  # fmt: skip


def to_try(db: Database) -> Sequence[SessionRecord]:
    """Sessions whose agents asked something, the newest first."""
    return [record for record in list_sessions(db) if record.policy != TEACHER][:_OFFERED]


def prompts_url(*path: str, **query: str) -> str:
    """The address of a page about prompts."""
    parts = "".join("/" + quote(part, safe="") for part in path)
    return f"/prompts{parts}" + (f"?{urlencode(query)}" if query else "")


def _fine(db: Database, form: Draught) -> dict[str, Any]:
    """What is told of a set without faults.

    Raises:
        PromptError: it has some.
    """
    try:
        prompts, is_open = form.prompts(), False
    except PromptError:
        prompts, is_open = form.prompts(_CRITERION), True
    known = None if is_open else next((v for v in versions(db) if v.hash == prompts.hash), None)
    try:
        base = choose(db, prompts.criterion if is_open else form.criterion or prompts.criterion, form.base, files=False)
        lines = differences(base.prompts, prompts)[2:]
    except PromptError:  # it was copied from nothing that is there
        lines = []
    return {"set": prompts, "open": is_open, "known": known, "lines": lines[:_LINES]}


def _parsed(text: str, criterion: str | None) -> PromptSet:
    try:
        return parse_prompts(text, criterion or None, "prompts")
    except PromptError:
        if not criterion:
            parse_prompts(text, _CRITERION, "prompts")  # raises what else is wrong
            raise PromptError(
                "$criterion is left in it: say below what it stands for, or write the criterion out"
            ) from None
        raise


def _text(db: Database, named: str) -> str:
    """A set to be edited, as YAML."""
    if named in shipped_names():
        return shipped_yaml(named)
    version = find(db, named)
    return yaml_of(version).removeprefix(f"# The prompt set {version.hash}.\n")  # it becomes another


def _called(db: Database, named: str) -> str:
    return named if named in shipped_names() else f"{find(db, named).name} {named[:6]}"


def _listed(version: Version) -> Listed:
    return Listed(
        version.hash, version.name, version.criterion, version.hash, version.source, version.at, version.sessions
    )


def _shipped(name: str, used: dict[str, tuple[str, ...]]) -> Listed:
    prompts = choose(None, _CRITERION, name).prompts
    fixed = None if _CRITERION in shipped_yaml(name) else prompts.hash
    return Listed(name, name, prompts.criterion, fixed, "shipped", None, used.get(fixed or "", ()))
