"""The ledger: one row per finished call, committed before its answer is used (CONTRACT 6, ARCHITECTURE 1 and 4).

A session is rebuilt by replaying it. Many calls finish at once, so one writer thread gathers everything that queued
up while its previous transaction ran into the next one: 32 concurrent `record`s cost a few commits, not 32.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from storage.database import Database
from storage.errors import DatabaseError
from storage.tables import answers, prompts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["describe", "embed", "membership", "merge"]
Origin = Literal["model", "reused", "human"]

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered question.

    Attributes:
        key: hash of everything that determines the question; unique in its session.
        component, step: where in the traversal it was asked; None outside it.
        attempt: 0 for the first time of asking, 1 for the first time after an UNKNOWN, ...
        subject: what it was about, in node numbers: `{"item": n}` for describe and embed, `{"representatives": [n...],
            "candidates": [n...]}` for membership, `{"representatives": [[n...], [n...]], "clusters": [[n...], [n...]]}`
            for merge (numbers that stand directly under "clusters" are ids of clusters and left alone).
        prompt_hash: of the instruction that was really asked.
        reply: what the model said. Characters no database takes (NUL, lone surrogates) are replaced here, when the
            answer is made, so that live and replayed answers are the same.
        seconds: from asking to the answer. attempts: requests it took, faults included.
        at: an aware time.
        vector: float32, one dimension; only `load(vectors=True)` reads it back.
    """

    key: str
    kind: Kind
    component: int | None
    step: int | None
    attempt: int
    subject: dict[str, Any]
    prompt_hash: str
    reply: str
    conclusion: str | None
    reason: str | None
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    attempts: int
    origin: Origin
    at: datetime
    vector: NDArray[np.float32] | None = field(default=None, compare=False)
    id: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reply", storable(self.reply))
        if self.reason is not None:
            object.__setattr__(self, "reason", storable(self.reason))


def storable(text: str) -> str:
    """`text` as both databases can hold it: NUL and lone surrogates become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_PLAIN = [column.name for column in fields(Answer) if column.name not in ("vector", "id")]


@dataclass(slots=True, eq=False)
class _Waiting:
    row: dict[str, Any]
    prompt: dict[str, str] | None
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Ledger:
    """The answers of one session. One process writes it at a time (`storage.locks`), from any event loop.

    Use as a context manager, or `close()` it: that waits until everything recorded is committed.
    """

    def __init__(self, db: Database, session_id: str) -> None:
        self.db = db
        self.session_id = session_id
        self._changed = threading.Condition()
        self._queue: list[_Waiting] = []
        self._closed = False
        self._thread: threading.Thread | None = None
        self._known_prompts: set[str] = set()

    def load(self, *, vectors: bool = False) -> dict[str, Answer]:
        """All committed answers by key, in the order they were written; embeddings only if `vectors`."""
        names = [*_PLAIN, "id", *(["vector"] if vectors else [])]
        query = select(*(answers.c[name] for name in names)).where(answers.c.session_id == self.session_id)
        found: dict[str, Answer] = {}
        with self.db.reading() as connection:
            rows = connection.execution_options(yield_per=_PAGE).execute(query.order_by(answers.c.id))
            for row in rows:
                values = dict(zip(names, row, strict=True))
                if values.get("vector") is not None:
                    values["vector"] = _vector(values["vector"])
                found[values["key"]] = Answer(**values)
        return found

    async def record(self, answer: Answer, prompt_text: str | None = None) -> None:
        """Write one answer; returns once it is committed. Recording the same row again does nothing.

        `prompt_text` is the instruction behind `answer.prompt_hash`, stored once.

        Raises:
            DatabaseError: it could not be committed. Nothing of the transaction is in the ledger.
            ValueError: another answer to the same question is in the ledger: an error of the program.
        """
        loop = asyncio.get_running_loop()
        prompt = None
        if prompt_text is not None and answer.prompt_hash not in self._known_prompts:
            prompt = {"hash": answer.prompt_hash, "text": storable(prompt_text)}
        waiting = _Waiting(self._row(answer), prompt, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise RuntimeError("the ledger is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="partita-ledger", daemon=True)
                self._thread.start()
            self._queue.append(waiting)
            self._changed.notify()
        await waiting.done

    def close(self) -> None:
        """Commit what is queued and stop the writer thread. Waiting `record`s get their outcome."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _row(self, answer: Answer) -> dict[str, Any]:
        row = {name: getattr(answer, name) for name in _PLAIN}
        row["session_id"] = self.session_id
        row["subject"] = json.loads(json.dumps(answer.subject))  # as it will be read back
        row["vector"] = None
        if answer.vector is not None:
            import numpy as np

            vector = np.asarray(answer.vector, dtype="<f4")
            if vector.ndim != 1:
                raise ValueError(f"an embedding has one dimension, not {vector.ndim}")
            row["vector"] = vector.tobytes()
        return row

    # -- the writer thread --------------------------------------------------------------------------------------------

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                batch, self._queue = self._queue, []
                if not batch:
                    return
            outcomes = self._commit(batch)
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], BaseException | None]]] = {}
            for waiting, outcome in zip(batch, outcomes, strict=True):
                by_loop.setdefault(waiting.loop, []).append((waiting.done, outcome))
            for loop, settled in by_loop.items():
                try:
                    loop.call_soon_threadsafe(_settle, settled)
                except RuntimeError:
                    continue  # the loop is closed: nobody waits any more, and the rows are in

    def _commit(self, batch: list[_Waiting]) -> list[BaseException | None]:
        new = {waiting.prompt["hash"]: waiting.prompt for waiting in batch if waiting.prompt is not None}
        try:
            try:
                with self.db.writing() as connection:
                    self._insert_prompts(connection, new.values())
                    connection.execute(insert(answers), [waiting.row for waiting in batch])
                outcomes: list[BaseException | None] = [None] * len(batch)
            except IntegrityError:
                # A key is there already: find out which, so that the others are written all the same.
                with self.db.writing() as connection:
                    self._insert_prompts(connection, new.values())
                    outcomes = [self._insert_one(connection, waiting.row) for waiting in batch]
            self._known_prompts.update(new)
            return outcomes
        except Exception as error:  # noqa: BLE001 - whatever it is, the ones who wait must hear of it
            return [_again(error) for _ in batch]

    def _insert_prompts(self, connection: Connection, rows: Iterable[dict[str, str]]) -> None:
        listed = list(rows)
        if listed:
            dialect = sqlite if self.db.kind == "sqlite" else postgresql
            connection.execute(dialect.insert(prompts).on_conflict_do_nothing(), listed)

    def _insert_one(self, connection: Connection, row: dict[str, Any]) -> BaseException | None:
        try:
            with connection.begin_nested():
                connection.execute(insert(answers), [row])
        except IntegrityError as error:
            there = connection.execute(
                select(*(answers.c[name] for name in row)).where(
                    answers.c.session_id == self.session_id, answers.c.key == row["key"]
                )
            ).first()
            if there is None:
                return error
            if dict(there._mapping) != row:
                return ValueError(f"the ledger has another answer to the question {row['key']}")
        return None


def tally(db: Database, session_id: str) -> dict[str, int]:
    """The `calls` of CONTRACT 3, as far as the ledger knows them.

    Answers of the model by kind; of those, `unknown` conclusions and `retries` (requests beyond the first); `reused`
    answers are counted apart.
    """
    counts = {"describe": 0, "embed": 0, "membership": 0, "merge": 0, "reused": 0, "unknown": 0, "retries": 0}
    faults = func.sum(answers.c.attempts - 1)
    query = (
        select(answers.c.kind, answers.c.origin, answers.c.conclusion, func.count(), faults)
        .where(answers.c.session_id == session_id)
        .group_by(answers.c.kind, answers.c.origin, answers.c.conclusion)
    )
    with db.reading() as connection:
        for kind, origin, conclusion, number, retries in connection.execute(query):
            if origin == "model":
                counts["retries"] += int(retries)
                counts[kind] = counts.get(kind, 0) + number
                counts["unknown"] += number if conclusion == "UNKNOWN" else 0
            elif origin == "reused":
                counts["reused"] += number
    return counts


def _settle(settled: list[tuple[asyncio.Future[None], BaseException | None]]) -> None:
    for future, error in settled:
        if future.done():  # cancelled meanwhile
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _again(error: Exception) -> Exception:
    """The same error for each of those who wait: one exception object must not be raised in several tasks."""
    if isinstance(error, DatabaseError):
        copy = DatabaseError(str(error))
        copy.__cause__ = error.__cause__
        return copy
    wrapped = DatabaseError(
        f"The answer could not be written ({type(error).__name__}: {' '.join(str(error).split())})."
    )
    wrapped.__cause__ = error
    return wrapped


def _vector(payload: bytes) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(payload, dtype="<f4").astype(np.float32)
