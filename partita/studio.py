"""Sessions in LangGraph's own server (`langgraph dev`), whose ``langgraph.json`` names what stands at the end.

The server reads checkpoints where the sessions write them, but lists only threads that were registered with it: that
is done here, at its start and for whatever begins while it runs. Nobody can run or change anything in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph_sdk import Auth, get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import LangGraphError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from graphs.component import component_graph
from graphs.merge import merge_graph
from graphs.session import session_graph
from partita.settings import read_environment
from partita.stored import status_now
from storage.database import Database, open_database
from storage.errors import PartitaError
from storage.sessions import list_sessions
from storage.view import ONLY_SHOWN, CheckpointView

ORIGIN = {"origin": "partita"}
"""What tells our threads from those of others."""
PAUSE = 2.0
"""Seconds between two looks at the database."""
HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""What the server answers to. A page whose own name was made to lead here (DNS rebinding) asks for another."""
_PAGE = 1000

_log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # not a line in the server's log for each thread


@dataclass(slots=True)
class Part:
    """A thread of a session: of the session itself, a component agent or the merge agent."""

    thread: str
    session: str
    """The session's id."""
    name: str
    """``session``, ``components``, ``component 3`` or ``merge``: what `graphs.context.SessionContext.config` says."""

    @property
    def graph(self) -> str:
        """Which of the graphs in ``langgraph.json`` walks it."""
        return "component" if self.name.startswith("component") else self.name

    @property
    def number(self) -> int | None:
        """The component's number; None where there is none, or one agent for all (policy evidence)."""
        number = self.name.removeprefix("component ")
        return int(number) if number.isdecimal() else None

    @property
    def place(self) -> tuple[bool, bool, int]:
        """In the order of registering: the server lists the newest first, and people look for the session first."""
        return self.name == "session", self.name == "merge", -(self.number or 0)


@dataclass(slots=True)
class Directory:
    """The threads of the sessions in a database, and what a person knows each by."""

    view: CheckpointView
    parts: dict[str, Part] = field(default_factory=dict)
    """Those found so far, by thread."""

    def entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Thread and metadata of all there are, in the order of registering."""
        for thread in self.view.thread_ids() - self.parts.keys():
            newest = self.view.get_tuple({"configurable": {"thread_id": thread}})
            told: Mapping[str, Any] = {} if newest is None else dict(newest.metadata)
            if "session" in told and "part" in told:
                self.parts[thread] = Part(thread, told["session"], told["part"])
        by_session: dict[str, list[Part]] = {}
        for part in self.parts.values():
            by_session.setdefault(part.session, []).append(part)
        for record in reversed(list_sessions(self.view.db)):
            said = ORIGIN | {
                "session": record.name,
                "session_id": record.id,
                "criterion": record.criterion,
                "policy": record.policy,
                "status": status_now(self.view.db, record),
            }
            for part in sorted(by_session.get(record.id, ()), key=lambda part: part.place):
                number = {} if part.number is None else {"component": part.number}
                yield part.thread, said | {"graph_id": part.graph, "part": part.name} | number


async def register(directory: Directory, client: LangGraphClient, known: dict[str, dict[str, Any]]) -> None:
    """Tell the server of threads that are new, or whose session has another status now.

    Args:
        known: thread and metadata of what the server has; follows.
    """
    for thread, said in await asyncio.to_thread(lambda: list(directory.entries())):
        if thread not in known:
            await client.threads.create(thread_id=thread, metadata=said, if_exists="do_nothing")
        elif said != known[thread]:
            await client.threads.update(thread, metadata=said)
        known[thread] = said


async def forget_others(directory: Directory, client: LangGraphClient) -> dict[str, dict[str, Any]]:
    """What the server remembers of an earlier run of it, without what is in another database."""
    known: dict[str, dict[str, Any]] = {}
    there = await asyncio.to_thread(directory.view.thread_ids)
    strangers: list[str] = []
    while page := await client.threads.search(metadata=ORIGIN, limit=_PAGE, offset=len(known) + len(strangers)):
        for thread in page:
            if thread["thread_id"] in there:
                known[thread["thread_id"]] = dict(thread["metadata"] or {})
            else:
                strangers.append(thread["thread_id"])
    for stranger in strangers:
        await client.threads.delete(stranger)
    return known


async def keep_registered(db: Database) -> None:
    """Register the threads of a database with the server that this runs in, until cancelled."""
    directory, client = Directory(CheckpointView(db)), get_client(headers={"host": HOSTS[0]})
    known: dict[str, dict[str, Any]] | None = None
    while True:
        try:
            if known is None:
                known = await forget_others(directory, client)
            await register(directory, client, known)
        except (PartitaError, LangGraphError) as e:  # it may go well at the next look
            _log.warning("Partita's sessions can't be registered now: %s", e)
        await asyncio.sleep(PAUSE)


@asynccontextmanager
async def checkpointer() -> AsyncIterator[CheckpointView]:
    """The checkpoints of the database that PARTITA_DB names."""
    with await asyncio.to_thread(open_database, read_environment().db) as db:
        yield CheckpointView(db)


@asynccontextmanager
async def _registering(app: Starlette) -> AsyncIterator[None]:
    with await asyncio.to_thread(open_database, read_environment().db) as db:
        task = asyncio.create_task(keep_registered(db))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _shown(graph: StateGraph[Any, Any, Any, Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    graph.context_schema = None  # handles of a run: the server has none, and can't make a schema of them
    return graph.compile()


session = _shown(session_graph())
component = _shown(component_graph())
merge = _shown(merge_graph())
app = Starlette(lifespan=_registering, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)])
auth = Auth()


@auth.authenticate
async def _anybody() -> str:
    """Who may look is settled by where the server listens: on loopback, unless it is told otherwise."""
    return "reader"


@auth.on
async def _only_look(ctx: Auth.types.AuthContext, value: Any) -> bool:
    if ctx.action in ("read", "search", "get", "list_namespaces"):
        return True
    raise Auth.exceptions.HTTPException(status_code=403, detail=ONLY_SHOWN)
