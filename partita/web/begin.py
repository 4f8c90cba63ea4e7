"""Beginning a session from the page: what `partita run` and `partita estimate` do, by form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import RedirectResponse, Response

from agents.prompt_sets import shipped_names
from partita.endpoints import check_built_in, check_kind
from partita.estimate import Estimate
from partita.expected import expected, measured
from partita.prompts import choose
from partita.session_names import check_name, free_name
from partita.settings import EMBEDDED, Parameters, make_parameters, read_environment
from partita.web.desk import Desk
from partita.web.given import ADesk
from partita.web.labels import by_labels
from partita.web.rendering import page, session_url
from partita.web.work import bounds_of
from storage.errors import PartitaError, SessionExists, UnknownSession, UsageError
from storage.items import scan
from storage.prompts import versions
from storage.sessions import list_sessions, load_session

router = APIRouter()
_ASKED = ("endpoint", "model", "embed_endpoint", "embed_model", "embed_mode", "policy")
"""Fields that are parameters of the session."""
_LABELS = {
    "session": "Name",
    "endpoint": "Endpoint",
    "model": "Model",
    "embed_endpoint": "Embeddings from",
    "embed_model": "Embedding model",
    "embed_mode": "Embeddings of",
    "policy": "Policy",
    "prompts": "Prompts",
}
_VERSIONS = 50
"""Kept versions of prompts that are offered."""


class Order(BaseModel):
    """What the form says; an empty field leaves the default."""

    model_config = ConfigDict(frozen=True, str_strip_whitespace=True, extra="ignore")

    collection: str = Field(default="", max_length=4096)
    criterion: str = Field(default="", max_length=2000)
    session: str = Field(default="", max_length=100)
    endpoint: str = Field(default="", max_length=2000)
    model: str = Field(default="", max_length=500)
    embed_endpoint: str = Field(default="", max_length=2000)
    embed_model: str = Field(default="", max_length=500)
    embed_mode: Literal["", "native", "caption"] = ""
    policy: Literal["", "evidence", "paper"] = ""
    prompts: str = Field(default="", max_length=500)
    max_calls: str = Field(default="", max_length=20)
    max_cost: str = Field(default="", max_length=20)

    def given(self) -> dict[str, str]:
        """Fields that were filled in."""
        return {name: value for name, value in self.model_dump().items() if value}

    def parameters(self) -> Parameters:
        """What a session of this order has.

        Raises:
            UsageError: something is missing, or is none of what may be given.
        """
        if any("\0" in value for value in self.given().values()):
            raise UsageError("a field holds a NUL, which nothing is called by: remove it")
        if not self.collection:
            raise UsageError("Collection: name a folder of images, or a table, on this machine")
        if not self.criterion:
            raise UsageError("By: say in words what to cluster by, such as suit")
        return make_parameters({name: value for name, value in self.given().items() if name in _ASKED})

    @property
    def folder(self) -> Path:
        """The collection's path.

        Raises:
            UsageError: nothing is there.
        """
        try:
            path = Path(self.collection).expanduser()
        except RuntimeError:
            raise UsageError(f"{self.collection}: there is no such user's home; give the whole path") from None
        if not path.exists():
            raise UsageError(f"{path}: there is no such folder or file on this machine")
        return path


@router.get("/new")
def new(desk: ADesk, order: Annotated[Order, Query()]) -> Response:
    """The form; fields may be filled in by the address."""
    environment = read_environment()
    usual = {"endpoint": environment.endpoint or "", "model": environment.model or ""}
    return _form(desk, order if order.given() else Order.model_validate(usual))


@router.post("/new")
def order(desk: ADesk, order: Annotated[Order, Form()], do: Annotated[str, Form()] = "estimate") -> Response:
    """Estimate, or begin."""
    try:
        if do != "run":
            return _form(desk, order, would=_estimate(desk, order))
        named = _begun(desk, order)
    except PartitaError as e:
        return _form(desk, order, status=400, why=by_labels(str(e), _LABELS))
    return RedirectResponse(f"/begun/{named}?{urlencode(order.given())}", 303)


@router.get("/begun/{name}")
def begun(name: str, desk: ADesk, order: Annotated[Order, Query()]) -> Response:
    """Waits until a session that was begun here is there: its collection is read first."""
    again = "/new?" + urlencode(order.given())
    try:
        return RedirectResponse(session_url(load_session(desk.db, name).name), 303)
    except UnknownSession:
        latest = desk.work.latest(name)
        if latest is None:
            raise
        return page("begun", name=name, waits=latest.ended is None, trouble=latest.trouble(), again=again)


def _form(
    desk: Desk, order: Order, status: int = 200, why: str | None = None, would: Estimate | None = None
) -> Response:
    known = list(dict.fromkeys(str(s.parameters.get("endpoint") or "") for s in list_sessions(desk.db)))
    endpoints = [one for one in known if one and one != EMBEDDED][:20]
    shown: dict[str, Any] = {
        "order": order,
        "why": why,
        "sets": shipped_names(),
        "versions": versions(desk.db)[:_VERSIONS],
        "endpoints": endpoints,
    }
    told = None if would is None else {"rows": would.rows(), "notes": would.notes(), "items": would.job.items}
    return page("new", status, **shown, would=told)


def _estimate(desk: Desk, order: Order) -> Estimate:
    parameters, bounds = order.parameters(), bounds_of(order.max_calls, order.max_cost)
    folder, prompts = order.folder, choose(desk.db, order.criterion, order.prompts or None).prompts
    check_built_in(parameters, order.criterion)
    found = scan(folder)
    check_kind(parameters, found)
    took = measured(desk.db, parameters)
    return expected(found, prompts, parameters, desk.prices, took, max_calls=bounds.max_calls, max_cost=bounds.max_cost)


def _begun(desk: Desk, order: Order) -> str:
    """Start what was ordered, after what can be checked at once; the session's name."""
    parameters, bounds = order.parameters(), bounds_of(order.max_calls, order.max_cost)
    folder = order.folder
    choose(desk.db, order.criterion, order.prompts or None)
    check_built_in(parameters, order.criterion)
    taken = {session.name for session in list_sessions(desk.db)}
    named = check_name(order.session) if order.session else free_name(order.criterion, taken)
    if named in taken:
        raise SessionExists(f"there is a session {named!r} already: give another name")
    asked = [f"--{name.replace('_', '-')}={value}" for name, value in order.given().items() if name in _ASKED]
    if order.prompts:
        asked.append(f"--prompts={order.prompts}")
    words = [f"--by={order.criterion}", *asked, *bounds.options, "--", str(folder)]
    return desk.work.begin(named, words)
