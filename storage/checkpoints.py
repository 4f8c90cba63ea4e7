"""LangGraph's checkpointer, in the same SQLite file or PostgreSQL database as everything else (ARCHITECTURE 1 to 6).

Checkpoints are a view of the ledger, never a second truth. They are read with a strict serialiser: only LangGraph's own
list of safe types is rebuilt, and nothing is ever unpickled. LangGraph itself is imported on use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from storage.database import Database
from storage.errors import DatabaseError

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    from storage.saver import Checkpointer


def strict_serializer(*allowed: type) -> JsonPlusSerializer:
    """A serialiser that rebuilds LangGraph's safe types and `allowed`, and never unpickles.

    The environment variable LANGGRAPH_STRICT_MSGPACK does the same, but is read once at import and by whoever set it.
    """
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    return JsonPlusSerializer(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=allowed or None)


@asynccontextmanager
async def open_checkpointer(db: Database, *allowed: type, thin: bool = False) -> AsyncIterator[Checkpointer]:
    """A saver on `db` that writes by group commit; everything is written when the block ends.

    `allowed` are types of ours that a state may hold. With `thin`, of several checkpoints of one thread that are queued
    together only the newest is written: enough to see where a session is.

    Raises:
        DatabaseError: the database can't be used; the saver's own methods raise it too.
    """
    from storage.saver import Checkpointer

    saver = Checkpointer(db, strict_serializer(*allowed), thin=thin)
    try:
        yield saver
    except BaseException:
        with suppress(DatabaseError):  # what went wrong first is what counts
            saver.close()
        raise
    saver.close()
