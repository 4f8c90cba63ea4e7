"""Group commit: a thread writes what many callers give it, all that queued up in one go (ARCHITECTURE 4)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from storage.errors import DatabaseError

T = TypeVar("T")


class Writer(Generic[T]):
    """Hands what is `put` to `commit` in groups, in the order of putting, from a thread of its own.

    The next group goes as soon as the last one is done and something in it is due. `commit` must not raise: it tells
    whoever waits itself. Everything here may be called from any thread.
    """

    def __init__(self, commit: Callable[[list[T]], None], name: str) -> None:
        self._commit = commit
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._written = threading.Condition(self._lock)
        self._queue: list[T] = []
        self._writing: list[T] = []
        self._due = inf
        self._taken = self._done = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, job: T, within: float = 0.0) -> None:
        """Queue `job`; the group it is in starts at the latest `within` seconds from now, or when the last has ended.

        Raises:
            RuntimeError: the writer is closed.
        """
        due = time.monotonic() + within
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name} is closed")
            self._queue.append(job)
            self._taken += 1
            if due < self._due:
                self._due = due
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def waiting(self) -> list[T]:
        """What is not committed yet."""
        with self._lock:
            return self._writing + self._queue

    def flush(self) -> None:
        """Return once everything put so far went through `commit`."""
        with self._lock:
            last = self._taken
            if self._queue:
                self._due = -inf
                self._changed.notify()
            while self._done < last:
                self._written.wait()

    def close(self) -> None:
        """Write what is queued and stop the thread."""
        with self._lock:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._closed and (left := self._due - time.monotonic()) > 0:
                    self._changed.wait(None if left == inf else left)
                self._writing, self._queue, self._due = self._queue, [], inf
                if not self._writing:
                    return
            self._commit(self._writing)
            with self._lock:
                self._done += len(self._writing)
                self._writing = []
                self._written.notify_all()


def failure(error: Exception, what: str) -> DatabaseError:
    """`error` for one of those it concerns, in one line: an exception object must not be raised in several places."""
    if isinstance(error, DatabaseError):
        told = DatabaseError(str(error))
    else:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        told = DatabaseError(f"{what} could not be written ({type(error).__name__}: {said}).")
    told.__cause__ = error
    return told
