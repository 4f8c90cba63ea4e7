"""LangGraph's checkpointers, in the same SQLite file or PostgreSQL database as everything else (ARCHITECTURE 1 to 6).

Checkpoints are a view of the ledger, never a second truth. They are read with a strict serialiser: only LangGraph's own
list of safe types is rebuilt, and nothing is ever unpickled.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from storage.database import BUSY_SECONDS, Database
from storage.errors import DatabaseError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

_SETUP_LOCK = int.from_bytes(hashlib.sha256(b"partita checkpoints").digest()[:8], signed=True)


def strict_serializer(*allowed: type) -> JsonPlusSerializer:
    """A serialiser that rebuilds LangGraph's safe types and `allowed`, and never unpickles.

    The environment variable LANGGRAPH_STRICT_MSGPACK does the same, but is read once at import and by whoever set it.
    """
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    return JsonPlusSerializer(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=allowed or None)


@asynccontextmanager
async def open_checkpointer(db: Database, *allowed: type) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """LangGraph's stock saver on `db`, its tables made; `allowed` are types of ours that a state may hold.

    Raises:
        DatabaseError: the database can't be used; the saver's own methods raise it too.
    """
    opened = _sqlite(db, allowed) if db.kind == "sqlite" else _postgresql(db, allowed)
    async with opened as saver:
        yield saver


def _explaining(stock: Any, db: Database, errors: type[Exception]) -> Any:
    """The class `stock`, but what its driver raises comes out as a `DatabaseError`."""

    class Explaining(stock):  # type: ignore[misc]
        async def aput(self, *arguments: Any, **named: Any) -> Any:
            with explained():
                return await super().aput(*arguments, **named)

        async def aput_writes(self, *arguments: Any, **named: Any) -> None:
            with explained():
                await super().aput_writes(*arguments, **named)

        async def aget_tuple(self, *arguments: Any, **named: Any) -> Any:
            with explained():
                return await super().aget_tuple(*arguments, **named)

        async def alist(self, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
            with explained():
                async for found in super().alist(*arguments, **named):
                    yield found

    @contextmanager
    def explained() -> Iterator[None]:
        try:
            yield
        except errors as error:
            raise db.explain(error) from error

    return Explaining


@asynccontextmanager
async def _sqlite(db: Database, allowed: tuple[type, ...]) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    import sqlite3

    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    serde = strict_serializer(*allowed)
    async with aiosqlite.connect(str(db.path), timeout=BUSY_SECONDS) as connection:
        saver = _explaining(AsyncSqliteSaver, db, sqlite3.Error)(connection, serde=serde)
        saver.jsonplus_serde = serde
        try:
            await connection.execute("PRAGMA synchronous = NORMAL")
            await saver.setup()
        except sqlite3.Error as error:
            raise db.explain(error) from error
        yield saver


@asynccontextmanager
async def _postgresql(db: Database, allowed: tuple[type, ...]) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    import psycopg
    from psycopg.rows import DictRow, dict_row
    from psycopg_pool import AsyncConnectionPool, PoolTimeout

    try:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    except ImportError as error:
        raise DatabaseError(
            "Checkpoints in PostgreSQL need langgraph-checkpoint-postgres: `pip install 'partita[postgres]'`."
        ) from error

    # The pool logs each failed try to connect; what the user needs is the one error below.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    pool: AsyncConnectionPool[psycopg.AsyncConnection[DictRow]] = AsyncConnectionPool(
        db.libpq_url(),
        connection_class=psycopg.AsyncConnection[DictRow],
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row, "application_name": "partita"},
        min_size=1,
        max_size=2,
        open=False,
    )
    try:
        await pool.open(wait=True, timeout=BUSY_SECONDS)
    except PoolTimeout as error:
        await pool.close()
        raise DatabaseError(f"PostgreSQL can't be reached at {db}: check that it runs.") from error
    async with pool:
        saver = _explaining(AsyncPostgresSaver, db, psycopg.Error)(pool, serde=strict_serializer(*allowed))
        try:
            await _set_up(pool, saver)
        except psycopg.Error as error:
            raise db.explain(error) from error
        yield saver


async def _set_up(pool: Any, saver: Any) -> None:
    """`saver.setup()` once for all processes: it builds indexes concurrently, and two of it at once fail.

    The lock is tried, not waited for: a statement that waits is what a concurrent index waits for in turn.
    """
    async with pool.connection() as connection:
        while not await _value(connection, "SELECT pg_try_advisory_lock(%s) AS value", (_SETUP_LOCK,)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        try:
            there = await _value(connection, "SELECT to_regclass('checkpoint_migrations') IS NOT NULL AS value", ())
            if there:
                done = await _value(connection, "SELECT max(v) AS value FROM checkpoint_migrations", ())
                if done is not None and done >= len(saver.MIGRATIONS) - 1:
                    return
            await saver.setup()
        finally:
            await connection.execute("SELECT pg_advisory_unlock(%s)", (_SETUP_LOCK,))


async def _value(connection: Any, query: str, parameters: tuple[Any, ...]) -> Any:
    cursor = await connection.execute(query, parameters)
    row = await cursor.fetchone()
    return None if row is None else row["value"]
