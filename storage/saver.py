"""LangGraph's checkpoints on our own database, written by group commit (ARCHITECTURE 1, 3, 4 and 6).

`put` and `put_writes` serialise and queue; a thread writes what came together within 50 ms in one transaction. Reading
flushes first, so a caller reads what it wrote. What a killed process had not written yet the ledger brings back.

A superstep is two small rows: the checkpoint with all values inline, and the writes of its task. Ids of checkpoints
are LangGraph's UUIDs, stored as 16 bytes that sort as the ids do. Writes are only ever appended; what repeats itself is
left out when they are read.
"""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from sqlalchemy import Connection, Select, and_, delete, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import Database
from storage.tables import graph_checkpoints, graph_threads, graph_writes
from storage.writer import Writer, failure

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

FLUSH_SECONDS = 0.05
_PAGE = 100
_SMALL = 200  # bytes that are not worth compressing


class _Thread(NamedTuple):
    """A LangGraph thread, and the namespace of a subgraph in it."""

    id: str
    ns: str


@dataclass(slots=True, frozen=True)
class _Put:
    thread: _Thread
    checkpoint: bytes
    parent: bytes | None
    payload: bytes


@dataclass(slots=True, frozen=True)
class _Writes:
    thread: _Thread
    checkpoint: bytes
    payload: bytes


_Jobs = list[_Put | _Writes]


class Checkpointer(BaseCheckpointSaver[int]):
    """A checkpoint saver for any thread and event loop; `storage.checkpoints.open_checkpointer` makes and closes it.

    With `thin`, of the checkpoints of one thread that are queued together only the newest is written, with its pending
    writes: a recent view, not a history.

    A failed transaction loses checkpoints, so nothing works after it: every call, and `close`, raises `DatabaseError`.
    """

    def __init__(self, db: Database, serde: JsonPlusSerializer, *, thin: bool = False) -> None:
        super().__init__(serde=serde)
        self.db = db
        self.thin = thin
        self._writer: Writer[_Put | _Writes] = Writer(self._commit, "the checkpointer")
        self._failures: _Failures = []  # a list, because LangGraph makes shallow copies of savers

    def close(self) -> None:
        """Write what is queued.

        Raises:
            DatabaseError: not everything could be written.
        """
        self._writer.close()
        self._check()

    # -- writing ------------------------------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Queue a checkpoint; its config carries the parent's id."""
        self._check()
        thread, parent = _thread(config), get_checkpoint_id(config)
        stored = {name: value for name, value in checkpoint.items() if name != "id"}
        payload = self._packed([get_checkpoint_metadata(config, metadata), stored])
        job = _Put(thread, _binary(checkpoint["id"]), _binary(parent) if parent else None, payload)
        self._writer.put(job, FLUSH_SECONDS)
        return _config(thread, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Queue what a task wrote."""
        self._check()
        payload = self._packed([task_id, task_path, [part for write in writes for part in write]])
        into = _binary(config["configurable"]["checkpoint_id"])
        self._writer.put(_Writes(_thread(config), into, payload), FLUSH_SECONDS)

    def _commit(self, jobs: _Jobs) -> None:
        if self._failures:
            return
        try:
            with self.db.writing() as connection:
                _write(connection, _newest(jobs) if self.thin else jobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next caller must hear of it
            self._failures.append(error)

    def _check(self) -> None:
        if self._failures:
            raise failure(self._failures[0], "A checkpoint")

    def _settle(self, thread_id: str | None = None) -> None:
        """Wait until what is queued for a thread, or for any, is written."""
        if thread_id is None or any(job.thread.id == thread_id for job in self._writer.waiting()):
            self._writer.flush()
        self._check()

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, or the newest of its thread."""
        thread, named = _thread(config), get_checkpoint_id(config)
        query = _CHECKPOINTS.where(graph_threads.c.thread_id == thread.id, graph_threads.c.ns == thread.ns)
        if named:
            try:
                query = query.where(graph_checkpoints.c.checkpoint == _binary(named))
            except ValueError:
                return None
        self._settle(thread.id)
        with self.db.reading() as connection:
            found = _read(connection, query.limit(1))
        return self._tuple(found[0]) if found else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first. `filter` compares metadata. Read page by page, each in a short transaction."""
        query, thread_id = _CHECKPOINTS, None
        if config is not None:
            thread_id = str(config["configurable"]["thread_id"])
            query = query.where(graph_threads.c.thread_id == thread_id)
            if (ns := config["configurable"].get("checkpoint_ns")) is not None:
                query = query.where(graph_threads.c.ns == ns)
            if named := get_checkpoint_id(config):
                query = query.where(graph_checkpoints.c.checkpoint == _binary(named))
        if before is not None and (named := get_checkpoint_id(before)):
            query = query.where(graph_checkpoints.c.checkpoint < _binary(named))
        self._settle(thread_id)
        size = _PAGE if limit is None or filter else max(1, min(limit, _PAGE))
        return islice(self._pages(query, filter or {}, size), limit)

    def _pages(self, query: _Query, wanted: dict[str, Any], size: int) -> Iterator[CheckpointTuple]:
        page = query
        while True:
            with self.db.reading() as connection:
                rows = _read(connection, page.limit(size))
            for row in rows:
                found = self._tuple(row)
                if all(dict(found.metadata).get(name) == value for name, value in wanted.items()):
                    yield found
            if len(rows) < size:
                return
            page = query.where(_after(rows[-1]))

    def _tuple(self, row: _Row) -> CheckpointTuple:
        metadata, stored = self._unpacked(row.payload)
        checkpoint: Any = stored | {"id": _text(row.checkpoint)}
        return CheckpointTuple(
            config=_config(row.thread, checkpoint["id"]),
            checkpoint=checkpoint,
            metadata=metadata,
            parent_config=None if row.parent is None else _config(row.thread, _text(row.parent)),
            pending_writes=_pending(map(self._unpacked, row.writes)),
        )

    def _packed(self, value: Sequence[Any]) -> bytes:
        data = self.serde.dumps_typed(value)[1]
        return data if len(data) < _SMALL else zlib.compress(data, 1)

    def _unpacked(self, payload: bytes) -> Any:
        # zlib's first byte is never that of a list in msgpack.
        data = zlib.decompress(payload) if payload[:1] == b"\x78" else payload
        return self.serde.loads_typed(("msgpack", data))

    # -- whole threads ------------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread with all of its namespaces."""
        self._settle()
        with self.db.writing() as connection:
            connection.execute(delete(graph_threads).where(graph_threads.c.thread_id == str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints, and their writes, that runs left. Looks at every checkpoint there is."""
        wanted = set(run_ids)
        found = [one.config for one in self.list(None) if dict(one.metadata).get("run_id") in wanted] if wanted else []
        with self.db.writing() as connection:
            numbers = _numbers(connection, {_thread(config) for config in found})
            for config in found:
                number, checkpoint = numbers[_thread(config)], _binary(get_checkpoint_id(config) or "")
                for table in (graph_checkpoints, graph_writes):
                    connection.execute(delete(table).where(table.c.thread == number, table.c.checkpoint == checkpoint))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another, which loses what it had."""
        if str(source_thread_id) == str(target_thread_id):
            return
        self.delete_thread(target_thread_id)
        with self.db.writing() as connection:
            query = select(graph_threads).where(graph_threads.c.thread_id == str(source_thread_id))
            sources = {_Thread(str(target_thread_id), row.ns): row.id for row in connection.execute(query)}
            for target, number in _numbers(connection, set(sources)).items():
                for table, order in ((graph_checkpoints, "checkpoint"), (graph_writes, "id")):
                    names = [column.name for column in table.c if column.name not in ("id", "thread")]
                    rows = select(literal(number), *(table.c[name] for name in names)).where(
                        table.c.thread == sources[target]
                    )
                    connection.execute(insert(table).from_select(["thread", *names], rows.order_by(table.c[order])))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all checkpoints of threads ("delete"), or all but the newest of each namespace ("keep_latest").

        Raises:
            NotImplementedError: a thread uses a DeltaChannel, whose value is spread over older checkpoints.
            ValueError: no such strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"no such strategy: {strategy!r}")
        self._settle()
        listed = [str(thread_id) for thread_id in thread_ids]
        with self.db.writing() as connection:
            if strategy == "delete":
                connection.execute(delete(graph_threads).where(graph_threads.c.thread_id.in_(listed)))
                return
            query = select(graph_threads.c.id).where(graph_threads.c.thread_id.in_(listed))
            for number in connection.scalars(query).all():
                newest = _read(connection, _CHECKPOINTS.where(graph_threads.c.id == number).limit(1))
                if newest:
                    self._keep_only(connection, newest[0])

    def _keep_only(self, connection: Connection, kept: _Row) -> None:
        if "counters_since_delta_snapshot" in self._unpacked(kept.payload)[0]:
            raise NotImplementedError(f"keep_latest can't prune threads that use a DeltaChannel: {kept.thread.id}")
        for table in (graph_checkpoints, graph_writes):
            connection.execute(delete(table).where(table.c.thread == kept.number, table.c.checkpoint < kept.checkpoint))
        here = and_(graph_checkpoints.c.thread == kept.number, graph_checkpoints.c.checkpoint == kept.checkpoint)
        connection.execute(update(graph_checkpoints).where(here).values(parent=None))

    # -- the same for event loops -------------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put`, which does not wait for the database."""
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`put_writes`, which does not wait for the database."""
        self.put_writes(config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple` in a thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list` in a thread, a page at a time."""
        found = await asyncio.to_thread(self.list, config, filter=filter, before=before, limit=limit)
        while page := await asyncio.to_thread(lambda: tuple(islice(found, _PAGE))):
            for one in page:
                yield one

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread` in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs` in a thread."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread` in a thread."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`prune` in a thread."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)


# -- rows -------------------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    number: int  # of the thread
    thread: _Thread
    checkpoint: bytes
    parent: bytes | None
    payload: bytes
    writes: list[bytes]  # in the order of writing


_Query = Select[Any]
_Failures = list[Exception]

_CHECKPOINTS: _Query = (
    select(
        graph_threads.c.id,
        graph_threads.c.thread_id,
        graph_threads.c.ns,
        graph_checkpoints.c.checkpoint,
        graph_checkpoints.c.parent,
        graph_checkpoints.c.payload,
    )
    .join(graph_checkpoints, graph_checkpoints.c.thread == graph_threads.c.id)
    .order_by(graph_checkpoints.c.checkpoint.desc(), graph_threads.c.id)
)


def _after(row: _Row) -> Any:
    older = graph_checkpoints.c.checkpoint < row.checkpoint
    return or_(older, and_(graph_checkpoints.c.checkpoint == row.checkpoint, graph_threads.c.id > row.number))


def _read(connection: Connection, query: _Query) -> list[_Row]:
    """The rows of a query, with their writes."""
    rows = [
        _Row(row.id, _Thread(row.thread_id, row.ns), row.checkpoint, row.parent, row.payload, [])
        for row in connection.execute(query)
    ]
    by_key = {(row.number, row.checkpoint): row for row in rows}
    wrote = (
        select(graph_writes.c.thread, graph_writes.c.checkpoint, graph_writes.c.payload)
        .where(graph_writes.c.thread.in_({row.number for row in rows}))
        .where(graph_writes.c.checkpoint.in_({row.checkpoint for row in rows}))
        .order_by(graph_writes.c.id)
    )
    for number, checkpoint, payload in connection.execute(wrote) if rows else ():
        if (number, checkpoint) in by_key:
            by_key[number, checkpoint].writes.append(payload)
    return rows


def _write(connection: Connection, jobs: _Jobs) -> None:
    numbers = _numbers(connection, {job.thread for job in jobs})
    checkpoints: list[dict[str, Any]] = []
    writes: list[dict[str, Any]] = []
    for job in jobs:
        row = {"thread": numbers[job.thread], "checkpoint": job.checkpoint, "payload": job.payload}
        if isinstance(job, _Put):
            checkpoints.append(row | {"parent": job.parent})
        else:
            writes.append(row)
    if checkpoints:
        new = _insert(connection, graph_checkpoints)
        values = {name: new.excluded[name] for name in ("parent", "payload")}
        connection.execute(new.on_conflict_do_update(index_elements=["thread", "checkpoint"], set_=values), checkpoints)
    if writes:
        connection.execute(insert(graph_writes), writes)


def _numbers(connection: Connection, threads: set[_Thread]) -> dict[_Thread, int]:
    """The numbers of threads; those that are new get one."""
    query = select(graph_threads).where(graph_threads.c.thread_id.in_({thread.id for thread in threads}))
    for attempt in range(2):
        numbers = {_Thread(row.thread_id, row.ns): row.id for row in connection.execute(query)}
        missing = [{"thread_id": thread.id, "ns": thread.ns} for thread in threads if thread not in numbers]
        if missing and attempt == 0:
            connection.execute(_insert(connection, graph_threads).on_conflict_do_nothing(), missing)
    return {thread: numbers[thread] for thread in threads}


def _insert(connection: Connection, table: Any) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def _newest(jobs: _Jobs) -> _Jobs:
    """`jobs` without the checkpoints that newer ones of the same thread supersede, and without their writes."""
    newest = {job.thread: job.checkpoint for job in jobs if isinstance(job, _Put)}
    return [job for job in jobs if job.checkpoint >= newest.get(job.thread, job.checkpoint)]


def _pending(stored: Iterable[Any]) -> list[PendingWrite]:
    """Writes as LangGraph wants them: the first of a regular one counts, the last of a special one (an error, ...)."""
    slots: dict[tuple[str, int], tuple[str, str, Any]] = {}
    for task_id, task_path, flat in stored:
        for position, (channel, value) in enumerate(zip(flat[::2], flat[1::2], strict=True)):
            slot = task_id, WRITES_IDX_MAP.get(channel, position)
            if slot[1] < 0 or slot not in slots:
                slots[slot] = task_path, channel, value
    ordered = sorted(slots.items(), key=lambda item: (item[1][0], *item[0]))  # as a run applies them: by path
    return [(task_id, channel, value) for (task_id, _), (_, channel, value) in ordered]


def _thread(config: RunnableConfig) -> _Thread:
    return _Thread(str(config["configurable"]["thread_id"]), config["configurable"].get("checkpoint_ns", ""))


def _config(thread: _Thread, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread.id, "checkpoint_ns": thread.ns, "checkpoint_id": checkpoint_id}}


def _binary(checkpoint_id: str) -> bytes:
    return uuid.UUID(checkpoint_id).bytes


def _text(checkpoint: bytes) -> str:
    return str(uuid.UUID(bytes=bytes(checkpoint)))
