"""The tables, as they are at revision `HEAD`. Migrations only ever append (`storage/migrations/versions`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

HEAD = "0004"
VERSION_TABLE = "partita_version"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC by both databases (SQLite has no time zones of its own)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a time zone: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_NUMBER = BigInteger().with_variant(Integer, "sqlite")


def _session_id(**kwargs: Any) -> Column[str]:
    return Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, **kwargs)


def _graph_thread(**kwargs: Any) -> Column[int]:
    return Column("thread", _NUMBER, ForeignKey("graph_threads.id", ondelete="CASCADE"), nullable=False, **kwargs)


sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),  # running | paused | done | failed
    Column("criterion", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("prompt_set", JSON, nullable=False),
    Column("prompt_set_hash", Text, nullable=False),
    Column("collection", Text, nullable=False),  # absolute path, as the user gave it
    Column("seconds", JSON, nullable=False),
    Column("why", Text),
    Column("version", Text, nullable=False),  # of partita
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("wish", Text),  # pause: what the process that works on it is asked to do
    Column("progress", JSON(none_as_null=True)),  # how far that process is
)

# Versions of prompt sets that somebody has kept; those of sessions are in `sessions`, too.
prompt_sets = Table(
    "prompt_sets",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("prompt_set", JSON, nullable=False),
    Column("source", Text, nullable=False),  # shipped | file | page | drafted
    Column("text", Text),  # the YAML as it was written
    Column("at", UtcDateTime, nullable=False),
)

items = Table(
    "items",
    metadata,
    _session_id(primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("content_hash", Text),  # null for a failed item, and so is `kind`
    Column("kind", Text),  # image | text
    Column("text", Text),
    Column("node", Integer),  # number in the relational graph
    Column("why", Text),  # for a failed item
)

prompts = Table(
    "prompts",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("text", Text, nullable=False),
)

# THE LEDGER: one row per finished call (ARCHITECTURE 1).
answers = Table(
    "answers",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    _session_id(),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),  # describe | embed | membership | merge
    Column("component", Integer),
    Column("step", Integer),
    Column("attempt", Integer, nullable=False),
    Column("subject", JSON, nullable=False),
    Column("prompt_hash", Text, nullable=False),
    Column("reply", Text, nullable=False),
    Column("conclusion", Text),  # YES | NO | UNKNOWN, one for each candidate, joined by a space
    Column("reason", Text),
    Column("model", Text, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("seconds", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("origin", Text, nullable=False),  # model | reused | human
    Column("at", UtcDateTime, nullable=False),
    Column("vector", LargeBinary),  # float32, little endian
    Column("cached_tokens", Integer),  # of the prompt tokens, those that the endpoint had in its cache
    UniqueConstraint("session_id", "key"),
    Index("ix_answers_session_id_kind", "session_id", "kind"),
    sqlite_autoincrement=True,
)

# What the search made of an answer, for the trace: at most one row per answer.
decisions = Table(
    "decisions",
    metadata,
    Column("answer", _NUMBER, ForeignKey("answers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("decided", JSON, nullable=False),
    sqlite_with_rowid=False,  # where a null number would be taken for "the next one"
)

artefacts = Table(
    "artefacts",
    metadata,
    _session_id(primary_key=True),
    Column("name", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("parts", Integer, nullable=False),
    Column("sha256", Text, nullable=False),  # of the whole payload
    Column("payload", LargeBinary, nullable=False),
)

# LangGraph's checkpoints (`storage.saver`): a view of the ledger.
graph_threads = Table(
    "graph_threads",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("thread_id", Text, nullable=False),
    Column("ns", Text, nullable=False),
    UniqueConstraint("thread_id", "ns"),
)

graph_checkpoints = Table(
    "graph_checkpoints",
    metadata,
    _graph_thread(primary_key=True, autoincrement=False),
    Column("checkpoint", LargeBinary, primary_key=True),  # UUID
    Column("parent", LargeBinary),  # UUID
    Column("payload", LargeBinary, nullable=False),  # metadata and checkpoint
)

graph_writes = Table(
    "graph_writes",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    _graph_thread(),
    Column("checkpoint", LargeBinary, nullable=False),  # UUID
    Column("payload", LargeBinary, nullable=False),  # task, its path, channels and values
    Index("ix_graph_writes_thread_checkpoint", "thread", "checkpoint"),
)
