"""One process per session: a lock that dies with its process (CONTRACT 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from storage.database import Database
from storage.errors import DatabaseError, SessionBusy
from storage.filelock import FileLock, hold, let_go


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


def _busy(name: str) -> SessionBusy:
    return SessionBusy(f"Another process is working on the session {name!r}: wait for it, or stop it and try again.")


@contextmanager
def _file(db: Database, session_id: str, name: str) -> Iterator[None]:
    assert db.path is not None
    lock = FileLock(db.path.with_name(f"{db.path.name}.{session_id}.lock"))
    try:
        taken = lock.acquire()
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

    key = int.from_bytes(hashlib.sha256(f"partita session {session_id}".encode()).digest()[:8], signed=True)
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
    except psycopg.OperationalError as error:
        with db.explained():
            raise exc.OperationalError("connect", None, error) from error
    with connection:
        descriptor = connection.fileno()
        hold(descriptor)
        try:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
            if row is None or not row[0]:
                raise _busy(name)
            yield
        finally:
            let_go(descriptor)
