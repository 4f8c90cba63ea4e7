"""Asking the process that works on a session, wherever it runs, to pause."""

from __future__ import annotations

import time

from storage.database import Database
from storage.errors import SessionBusy, SessionError
from storage.locks import is_locked
from storage.sessions import SessionRecord, load_session, wish

WITHIN = 30.0
"""Seconds in which a process that was asked has paused, if its machine is not very busy."""
_LOOK = 0.1


def ask_to_pause(db: Database, name: str) -> SessionRecord:
    """Ask, and return at once; the session.

    Raises:
        UnknownSession: no session of that name.
        SessionError: no process works on it.
    """
    record = load_session(db, name)
    if record.status == "done":
        raise SessionError(f"session {record.name!r} is done: there is nothing to pause")
    if not is_locked(db, record.id, record.name):
        raise SessionError(
            f"session {record.name!r} is not running, so there is nothing to pause; "
            f"`partita show {record.name}` shows what it has come to"
        )
    wish(db, record.id, "pause")
    return record


def wait_for_pause(db: Database, asked: SessionRecord, within: float = WITHIN) -> None:
    """Wait until no process works on the session that was asked to pause. Calls in flight are recorded then, and
    another process may go on at once; it may also be done, or have failed.

    Raises:
        SessionBusy: it has not paused within so many seconds, or another process has gone on with it meanwhile.
    """
    deadline = time.monotonic() + within
    while True:
        record = load_session(db, asked.id)
        if not is_locked(db, record.id, record.name):
            return
        if record.status == "running" and record.wish is None:
            raise SessionBusy(
                f"session {record.name!r}: another process has gone on with it since; `partita pause {record.name}` "
                "asks that one"
            )
        if time.monotonic() > deadline:
            raise SessionBusy(
                f"session {record.name!r} was asked to pause and has not within {within:g} s; it pauses as soon as it "
                "can: `partita sessions` tells when"
            )
        time.sleep(_LOOK)
