"""Work on sessions that was started from the page: processes of their own, none of which outlives the page's server.

Each runs `partita resume` or `partita run` under `serving.lifeline`: when the server ends, however that is, the session
pauses in order, or is killed after a while, which loses no answer either. The database's URL and keys, which may be
secret, go by the environment: command lines are seen by every user of a machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import serving
from partita.pausing import ask_to_pause
from partita.result import TEACHER
from partita.stored import status_now
from storage.database import Database
from storage.errors import SessionBusy, SessionError, SessionExists, UsageError
from storage.locks import is_locked
from storage.sessions import SessionRecord, list_sessions, load_session

GRACE = 10.0
"""Seconds that a process has to pause in order; calls in flight get five of them."""
_LIFELINE = Path(serving.__file__).with_name("lifeline.py")
_LINES, _LONGEST = 20, 2000
"""What is kept of what a process says: so many of its last lines, of so many bytes."""
_KEPT = 100
"""Processes that have ended and are remembered."""


class Started:
    """A process that was started from the page.

    Attributes:
        session: the name of the session that it works on.
        at: when it was started.
        words: what `partita` was given.
        note: what the session's page tells about how it came about.
        stopping: it was told to end.
        ended: when it did; None while it runs.
    """

    def __init__(self, session: str, words: Sequence[str], db: Database, note: str = "") -> None:
        self.session = session
        self.words = tuple(words)
        self.note = note
        self.at = datetime.now(UTC)
        self.stopping = False
        self.ended: datetime | None = None
        self._how = ""
        self._lines: deque[str] = deque(maxlen=_LINES)
        try:
            self._child = subprocess.Popen(
                # -P: it imports what this process imports, and nothing that happens to lie in the current folder
                [sys.executable, "-I", "-S", str(_LIFELINE), f"{GRACE:g}",
                 sys.executable, "-P", "-m", "partita", *words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=_environment(db), start_new_session=True,
            )  # fmt: skip
        except OSError as e:
            raise UsageError(f"no process can be started ({e.strerror}): try again when the machine has room") from None
        self._attending = threading.Thread(target=self._attend, name=f"work on {session}", daemon=True)
        self._attending.start()

    @property
    def pid(self) -> int:
        """Of the process that holds the lifeline; the one that works is its child."""
        return self._child.pid

    def stop(self) -> None:
        """Have it pause in order, or be killed after a while; returns at once."""
        self.stopping = True
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        self._attending.join(seconds)
        return not self._attending.is_alive()

    def trouble(self) -> str | None:
        """What it ended with, if that was neither the session's end nor a pause."""
        if self.ended is None or self.stopping or self._how in ("exit status 0", "exit status 3"):
            return None
        told = [line.removeprefix("partita: ") for line in self._lines if line.startswith("partita: ")]
        return (told or [line for line in self._lines if line.strip()] or [f"its process ended ({self._how})"])[-1]

    def _attend(self) -> None:
        child = self._child
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        for line in iter(partial(child.stderr.readline, _LONGEST), b""):
            self._lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
        report = child.stdout.read().decode("utf-8", "replace").strip()
        status = child.wait()
        self._how = report or f"killed by signal {-status}"
        for pipe in (child.stdin, child.stdout, child.stderr):
            with suppress(OSError):
                pipe.close()
        self.ended = datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a session may spend in all."""

    max_calls: int | None = None
    max_cost: float | None = None
    """In USD."""

    @property
    def options(self) -> list[str]:
        """Of `partita run` and `partita resume`."""
        calls = [] if self.max_calls is None else ["--max-calls", str(self.max_calls)]
        return calls + ([] if self.max_cost is None else ["--max-cost", f"{self.max_cost:f}"])


@dataclass(frozen=True, slots=True)
class Doing:
    """What is being done with a session, as its page shows it."""

    status: str
    """The session's status, or ``starting`` or ``pausing``."""
    resumable: bool
    note: str = ""
    """How it came about, where that happened on this page."""
    trouble: str | None = None
    """What the work that was started last from here ended with, where the session itself doesn't tell."""

    @property
    def pausable(self) -> bool:
        """Whether there is somebody to ask."""
        return self.status in ("running", "starting")

    @property
    def moves(self) -> bool:
        """Whether it is soon otherwise."""
        return self.status in ("running", "starting", "pausing")


class Work:
    """The processes that were started from the page, by the name of their session. For any thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._latest: dict[str, Started] = {}
        self._alive: list[Started] = []

    def latest(self, session: str) -> Started | None:
        """The process that was started last for a session."""
        return self._latest.get(session)

    def alive(self) -> list[Started]:
        """Those that have not ended."""
        with self._lock:
            self._alive = [one for one in self._alive if one.ended is None]
            return list(self._alive)

    def resume(self, name: str, bounds: Bounds | None = None, note: str = "") -> None:
        """Go on with a session, unless that was begun already.

        Args:
            note: what its page tells about how it came about.

        Raises:
            UsageError: it can't be gone on with, or another process works on it.
        """
        record = load_session(self._db, name)
        _check(record)
        with self._lock:
            status = status_now(self._db, record)
            latest = self._latest.get(record.name)
            if latest is not None and self._doing(record, status, latest) in ("starting", "running"):
                return  # a second click
            if is_locked(self._db, record.id, record.name):
                raise SessionBusy(
                    f"another process is working on session {record.name!r}: its page shows how far it is; if it was "
                    "asked to pause, try again when it has"
                )
            self._start(record.name, ["resume", *(bounds or Bounds()).options, "--", record.name], note)

    def begin(self, name: str, words: Sequence[str]) -> str:
        """Begin a session with these words for `partita run`, unless just that is being done.

        Returns:
            The session's name: that of the first click.

        Raises:
            SessionExists: another is being begun under this name.
        """
        with self._lock:
            there = {one.name for one in list_sessions(self._db)}
            for one in self._alive:
                if one.ended is None and one.session not in there:
                    if list(one.words[2:]) == list(words):
                        return one.session
                    if one.session == name:
                        raise SessionExists(f"a session {name!r} is being begun already: give another name")
            self._start(name, ["run", f"--session={name}", *words], "")
        return name

    def pause(self, name: str) -> None:
        """Ask whoever works on a session to pause.

        Raises:
            SessionError: nobody does.
        """
        record = load_session(self._db, name)
        latest = self._latest.get(record.name)
        if latest is not None and self._doing(record, status_now(self._db, record), latest) == "starting":
            latest.stop()  # it doesn't listen yet
        else:
            ask_to_pause(self._db, record.name)

    def doing(self, record: SessionRecord, status: str) -> Doing:
        """What is being done with a session whose status is this one now."""
        latest = self._latest.get(record.name)
        now = self._doing(record, status, latest)
        over = now in ("paused", "failed") and record.policy != TEACHER
        if latest is None:
            return Doing(now, over)
        trouble = latest.trouble()
        if latest.ended is None or record.updated_at > latest.ended or (trouble and trouble in (record.why or "")):
            trouble = None
        return Doing(now, over, latest.note, trouble)

    def end(self, say: Callable[[str], None]) -> None:
        """Have all of them pause, and wait for it."""
        alive = self.alive()
        for one in alive:
            one.stop()
        if not alive:
            return
        who, do = ("1 session", "pauses") if len(alive) == 1 else (f"{len(alive)} sessions", "pause")
        say(f"{who} started from the page {do}: {', '.join(sorted(one.session for one in alive))}")
        until = time.monotonic() + GRACE + 2
        for one in alive:
            one.wait(max(0.0, until - time.monotonic()))

    def _start(self, name: str, words: Sequence[str], note: str) -> None:
        if self._db.memory:
            raise UsageError(
                "the database is in this process's memory, where no other can work on it: use a file's URL"
            )
        started = Started(name, words, self._db, note)
        self._latest.pop(name, None)
        self._latest[name] = started
        self._alive = [one for one in self._alive if one.ended is None] + [started]
        for old in [one for one in self._latest.values() if one.ended is not None][:-_KEPT]:
            del self._latest[old.session]

    def _doing(self, record: SessionRecord, status: str, latest: Started | None) -> str:
        """The status that is shown."""
        ours = latest is not None and latest.ended is None
        if status == "running":
            return "pausing" if record.wish == "pause" or (ours and latest is not None and latest.stopping) else status
        if not ours or latest is None:
            return status
        if record.updated_at <= latest.at or is_locked(self._db, record.id, record.name):
            return "pausing" if latest.stopping else "starting"
        return status  # it has ended, and its process soon will have


def bounds_of(max_calls: str, max_cost: str) -> Bounds:
    """What somebody wrote into a form's fields; empty fields bound nothing.

    Raises:
        UsageError: it is no such number.
    """
    calls, cost = max_calls.strip(), max_cost.strip()
    if calls and not (calls.isascii() and calls.isdecimal() and len(calls) <= 9):
        raise UsageError("calls: give a whole number, such as 500, or leave it empty for no limit")
    if cost and not re.fullmatch(r"[0-9]{1,9}([.][0-9]{0,6})?|[.][0-9]{1,6}", cost):
        raise UsageError("cost: give an amount in USD, such as 2.50, or leave it empty for no limit")
    return Bounds(int(calls) if calls else None, float(cost) if cost else None)


def _check(record: SessionRecord) -> None:
    if record.policy == TEACHER:
        raise SessionError(
            f"session {record.name!r} holds a teacher's answers: `partita train` with the same teacher goes on with it"
        )
    if record.status == "done":
        raise SessionError(f"session {record.name!r} is done: there is nothing to go on with")


def _environment(db: Database) -> dict[str, str]:
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    # Whom to ask is the session's own, or is told in words.
    inherited = {name: value for name, value in os.environ.items() if name not in ("PARTITA_ENDPOINT", "PARTITA_MODEL")}
    return inherited | {"PARTITA_DB": db.url.render_as_string(hide_password=False), "PYTHONPATH": paths}
