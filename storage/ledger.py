"""The ledger: one row per finished call, committed before its answer is used (CONTRACT 6, ARCHITECTURE 1 and 4).

A session is rebuilt by replaying it. Many calls finish at once, so they are written by group commit
(`storage.writer`): 32 concurrent `record`s cost a few commits, not 32. What the search made of an answer is written
along, for the trace; nothing is rebuilt from that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from sqlalchemy import JSON, Connection, bindparam, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from storage.database import Database
from storage.tables import answers, decisions, prompts
from storage.writer import Writer, failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["describe", "embed", "membership", "merge"]
Origin = Literal["model", "reused", "human"]

_PAGE = 1000
_DECIDED_SECONDS = 0.05


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
        conclusion: of a call with several candidates all of them, in order, joined by a space ("YES NO YES").
        prompt_hash: of the instruction that was really asked.
        reply: what the model said. Characters no database takes (NUL, lone surrogates) are replaced here, when the
            answer is made, so that live and replayed answers are the same.
        seconds: from asking to the answer. attempts: requests it took, faults included.
        at: an aware time.
        cached_tokens: those of the prompt tokens that the endpoint had in its cache.
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
    cached_tokens: int | None = None
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


@dataclass(slots=True, eq=False)
class _Decided:
    key: str
    decided: list[dict[str, Any]]


class Ledger:
    """The answers of one session. One process writes it at a time (`storage.locks`), from any event loop.

    Use as a context manager, or `close()` it: that waits until everything recorded is committed.
    """

    def __init__(self, db: Database, session_id: str) -> None:
        self.db = db
        self.session_id = session_id
        self._writer: Writer[_Waiting | _Decided] = Writer(self._commit, "the ledger")
        self._failure: Exception | None = None  # of decisions, which nobody waits for
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
            DatabaseError: it could not be committed, and nothing of the transaction is in the ledger; or it was, but
                decisions queued before could not.
            ValueError: another answer to the same question is in the ledger: an error of the program.
        """
        loop = asyncio.get_running_loop()
        prompt = None
        if prompt_text is not None and answer.prompt_hash not in self._known_prompts:
            prompt = {"hash": answer.prompt_hash, "text": storable(prompt_text)}
        waiting = _Waiting(self._row(answer), prompt, loop, loop.create_future())
        self._writer.put(waiting)
        await waiting.done
        self._check()

    def decided(self, key: str, decisions: list[dict[str, Any]]) -> None:
        """Queue what was made of the answer `key`, which is in the ledger; the same key again is ignored.

        A decision is `{"item": n, ...}`, `{"items": [n...], ...}` or `{"clusters": [[n...], [n...]], ...}` in node
        numbers, with "odds", "bound", "did" or whatever else the trace shall show. Returns at once; a failure comes out
        of the next `record` or `close`.
        """
        # As it will be read back. PostgreSQL's JSON has no infinite numbers.
        plain = json.loads(json.dumps(decisions), parse_constant=lambda _: None)
        self._writer.put(_Decided(key, plain), _DECIDED_SECONDS)

    def load_decided(self) -> set[str]:
        """The keys of the answers that `decided` was called for, in this process or another."""
        self._writer.flush()
        query = select(answers.c.key).join(decisions, decisions.c.answer == answers.c.id)
        with self.db.reading() as connection:
            return set(connection.scalars(query.where(answers.c.session_id == self.session_id)))

    def close(self) -> None:
        """Commit what is queued and stop the writer thread. Waiting `record`s get their outcome.

        Raises:
            DatabaseError: decisions could not be written.
        """
        self._writer.close()
        self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()
        if error is None:  # what went wrong first is what counts
            self._check()

    def _check(self) -> None:
        error, self._failure = self._failure, None
        if error is not None:
            raise failure(error, "A decision")

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

    def _commit(self, batch: list[_Waiting | _Decided]) -> None:
        waiting = [job for job in batch if isinstance(job, _Waiting)]
        outcomes = self._outcomes(waiting, [job for job in batch if isinstance(job, _Decided)])
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], BaseException | None]]] = {}
        for one, outcome in zip(waiting, outcomes, strict=True):
            by_loop.setdefault(one.loop, []).append((one.done, outcome))
        for loop, settled in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, settled)
            except RuntimeError:
                continue  # the loop is closed: nobody waits any more, and the rows are in

    def _outcomes(self, batch: list[_Waiting], decided: list[_Decided]) -> Sequence[BaseException | None]:
        """Write a group; what to tell each of those who wait."""
        outcomes: list[BaseException | None] = [None] * len(batch)
        new = {waiting.prompt["hash"]: waiting.prompt for waiting in batch if waiting.prompt is not None}
        try:
            try:
                with self.db.writing() as connection:
                    self._insert_prompts(connection, new.values())
                    if batch:
                        connection.execute(insert(answers), [waiting.row for waiting in batch])
                    self._insert_decided(connection, decided)
            except IntegrityError:
                # A key is there already: find out which, so that the others are written all the same.
                with self.db.writing() as connection:
                    self._insert_prompts(connection, new.values())
                    outcomes = [self._insert_one(connection, waiting.row) for waiting in batch]
                    self._insert_decided(connection, decided)
            self._known_prompts.update(new)
            return outcomes
        except Exception as error:  # noqa: BLE001 - whatever it is, the ones who wait must hear of it
            if decided:
                self._failure = error
            return [failure(error, "The answer") for _ in batch]

    def _insert_prompts(self, connection: Connection, rows: Iterable[dict[str, str]]) -> None:
        listed = list(rows)
        if listed:
            connection.execute(self._insert_new(prompts), listed)

    def _insert_decided(self, connection: Connection, decided: list[_Decided]) -> None:
        """In a savepoint: that a decision can't be kept is no fault of the answers.

        Only for a broken constraint, which undoes nothing else. After another error SQLite may have rolled back all.
        """
        if not decided:
            return
        rows = [{"of": one.key, "within": self.session_id, "made": one.decided} for one in decided]
        # An answer that isn't there is null, which the column refuses.
        answer = select(answers.c.id).where(
            answers.c.session_id == bindparam("within"), answers.c.key == bindparam("of")
        )
        row = {"answer": answer.scalar_subquery(), "decided": bindparam("made", type_=JSON)}
        try:
            with connection.begin_nested():
                connection.execute(self._insert_new(decisions).values(row), rows)
        except IntegrityError as error:
            self._failure = error

    def _insert_new(self, table: Any) -> Any:
        return (sqlite if self.db.kind == "sqlite" else postgresql).insert(table).on_conflict_do_nothing()

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

    Answers of the model by kind; of those, `unknown` conclusions (the first of them, when there are several) and
    `retries` (requests beyond the first); `reused` answers are counted apart.
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
                counts["unknown"] += number if (conclusion or "").startswith("UNKNOWN") else 0
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


def _vector(payload: bytes) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(payload, dtype="<f4").astype(np.float32)
