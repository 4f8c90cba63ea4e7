"""The application: routes of all pages behind the guard, and errors as pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from partita.web import (
    begin,
    clusters,
    compare,
    fork,
    going_on,
    item,
    listing,
    map,
    prompts,
    steer,
    strip,
    trace,
    tree,
    trials,
)
from partita.web.desk import Desk
from partita.web.pictures import Pictures
from partita.web.rendering import STATIC, page
from storage.errors import EndpointError, PartitaError, PromptError, SessionBusy, UnknownSession, UsageError

_STATUS: dict[type[PartitaError], int] = {
    UnknownSession: 404,
    SessionBusy: 409,
    UsageError: 400,
    PromptError: 400,
    EndpointError: 502,
}


PAGES = (listing, clusters, item, map, tree, compare, steer, going_on, fork, begin, trials, prompts, strip, trace)
"""Modules with a `router` of their own."""


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        # Addresses change with the files (`rendering.static`).
        answer.headers["Cache-Control"] = "private, max-age=31536000, immutable"
        return answer


def build_app(desk: Desk) -> FastAPI:
    """The pages over one database, without the guard (`partita.web.guard`), which belongs around it."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.desk, app.state.pictures = desk, Pictures()
    app.mount("/static", _Static(directory=STATIC))
    for module in PAGES:
        app.include_router(module.router)
    app.add_exception_handler(PartitaError, _handler(_told))
    app.add_exception_handler(Exception, _handler(_failed))
    app.add_exception_handler(HTTPException, _handler(_missed))
    app.add_exception_handler(RequestValidationError, _handler(_misread))
    return app


def _handler(tell: Callable[[Exception], tuple[int, str]]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        status, why = tell(error)
        # A form that was sent has an address of its own, to which nobody can go back.
        of_session = request.url.path.startswith("/s/") and not isinstance(error, UnknownSession)
        session = request.path_params.get("name") if of_session else None
        return page("error", status, why=why, session=session)

    return answer


def _told(error: Exception) -> tuple[int, str]:
    status = next((number for kind, number in _STATUS.items() if isinstance(error, kind)), 500)
    return status, str(error)


def _failed(error: Exception) -> tuple[int, str]:
    # It goes on to the server, which logs it.
    return 500, "Partita failed at this; the terminal in which its server runs says how. What is stored is unharmed."


def _missed(error: Exception) -> tuple[int, str]:
    assert isinstance(error, HTTPException)
    return error.status_code, "There is no such page." if error.status_code == 404 else error.detail


def _misread(error: Exception) -> tuple[int, str]:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return 400, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}"
