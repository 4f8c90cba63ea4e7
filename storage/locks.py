"""One process per session: a lock that dies with its process (CONTRACT 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import text

from storage.database import Database
from storage.errors import DatabaseError, SessionBusy
from storage.filelock import FileLock, hold, let_go

_PROBED_SECONDS = 0.3
"""For so long a file's lock is tried: somebody may only be looking whether it is held."""


@contextmanager
def session_lock(db: Database, session_id: str, name: str) -> Iterator[None]:
    """Hold the session for this process; it is free again however the process ends.

    SQLite: an OS lock on a file beside the database. PostgreSQL: an advisory lock on a connection of its own, so it
    is seen from other machines. An in-memory database needs none.

    Raises:
        SessionBusy: another process (or another part of this one) holds it.
    """
    if db.memory:
        yield
    elif db.path is not None:
        with _file(db, session_id, name):
            yield
    else:
        with _advisory(db, session_id, name):
            yield


def is_locked(db: Database, session_id: str, name: str) -> bool:
    """Whether a process holds the session now. Who looks is in nobody's way: a `session_lock` at that moment is taken.

    Raises:
        DatabaseError: it can't be found out.
    """
    if db.memory:
        return False
    if db.path is not None:
        lock = _lock_file(db, session_id)
        try:
            return lock.held()
        except OSError as error:
            raise DatabaseError(
                f"Whether {name!r} is being worked on can't be seen ({error.strerror}): "
                f"check the permissions of {lock.path}."
            ) from error
    key = _key(session_id) & (2**64 - 1)
    query = text(
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND classid::bigint = :high AND objid::bigint = :low)"
    )
    with db.reading() as connection:
        return bool(connection.scalar(query, {"high": key >> 32, "low": key & (2**32 - 1)}))


def _lock_file(db: Database, session_id: str) -> FileLock:
    assert db.path is not None
    return FileLock(db.path.with_name(f"{db.path.name}.{session_id}.lock"))


def _key(session_id: str) -> int:
    """PostgreSQL's advisory locks are signed numbers of 64 bits."""
    return int.from_bytes(hashlib.sha256(f"partita session {session_id}".encode()).digest()[:8], signed=True)


def _busy(name: str) -> SessionBusy:
    return SessionBusy(
        f"Another process is working on the session {name!r}: wait for it, or `partita pause {name}` and try again."
    )


@contextmanager
def _file(db: Database, session_id: str, name: str) -> Iterator[None]:
    lock = _lock_file(db, session_id)
    try:
        taken = lock.acquire(timeout=_PROBED_SECONDS)
    except OSError as error:
        raise DatabaseError(
            f"The lock file {lock.path} can't be made ({error.strerror}): check the permissions of its folder."
        ) from error
    if not taken:
        raise _busy(name)
    with lock:
        yield


@contextmanager
def _advisory(db: Database, session_id: str, name: str) -> Iterator[None]:
    import psycopg

    try:
        # Outside the pool, and in no transaction: it idles for as long as the session runs.
        connection = psycopg.connect(
            db.libpq_url(),
            autocommit=True,
            connect_timeout=10,
            application_name="partita session lock",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
    except psycopg.Error as error:
        raise db.explain(error) from error
    with connection:
        descriptor = connection.fileno()
        hold(descriptor)
        try:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_key(session_id),)).fetchone()
            if row is None or not row[0]:
                raise _busy(name)
            yield
        finally:
            with suppress(psycopg.Error):  # the server notices a closed connection only a moment later
                connection.execute("SELECT pg_advisory_unlock_all()")
            let_go(descriptor)
