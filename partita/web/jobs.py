"""Short work that pages begin and wait for, each in a thread with an event loop of its own: drafts and trials.

It is kept in memory, the last few of it, and ends with the server: none of it belongs to a session.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.errors import PartitaError, UsageError

AT_ONCE, KEPT = 2, 20
"""Jobs that run side by side, and that are remembered."""
_NOTES = 5
_NUMBER = re.compile(r"[A-Za-z0-9_-]{8,64}")

State = Literal["running", "done", "stopped", "failed"]


@dataclass(eq=False)
class Job:
    """Work that was ordered once.

    Attributes:
        number: given by the form that ordered it, so that the same form sent twice orders one.
        same: what is equal for the same work; it isn't done twice side by side.
        about: what its page tells beside the result.
        total: calls that it makes; 0 where that isn't known.
        done: calls that were answered.
        notes: its last notes, a line each.
        why: why it failed.
    """

    number: str
    same: Hashable
    about: Any
    total: int = 0
    done: int = 0
    state: State = "running"
    notes: list[str] = field(default_factory=list)
    why: str = ""
    result: Any = None
    _stopping: bool = False
    _loop: asyncio.AbstractEventLoop | None = None
    _task: asyncio.Task[Any] | None = None
    _thread: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.state == "running"

    @property
    def stopping(self) -> bool:
        """Whether it was told to end and has not yet."""
        return self._stopping and self.runs

    def note(self, line: str) -> None:
        """Tell something on the way."""
        self.notes = [*self.notes, line][-_NOTES:]

    def answered(self, number: int) -> None:
        """Tell how many calls were answered."""
        self.done = number

    def stop(self) -> None:
        """Have it end without a result; returns at once."""
        with self._lock:
            self._stopping = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        assert self._thread is not None
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def begin(self, work: Callable[[Job], Awaitable[Any]]) -> None:
        """Do it, in another thread."""
        self._thread = threading.Thread(target=self._run, args=(work,), name=f"job {self.number}", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Job], Awaitable[Any]]) -> None:
        try:
            self.result = asyncio.run(self._main(work))
            self.state = "done"
        except asyncio.CancelledError:
            self.state = "stopped"
        except PartitaError as e:
            self.why, self.state = str(e), "failed"
        except BaseException as e:
            self.why, self.state = f"an error inside Partita ({type(e).__name__}): please report it", "failed"
            raise

    async def _main(self, work: Callable[[Job], Awaitable[Any]]) -> Any:
        with self._lock:
            if self._stopping:
                raise asyncio.CancelledError
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            return await work(self)
        finally:
            with self._lock:
                self._loop = self._task = None


class Jobs:
    """The jobs of one server. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def get(self, number: str) -> Job | None:
        """The job of this number, while it is remembered."""
        return self._jobs.get(number)

    def order(
        self, number: str, same: Hashable, about: Any, work: Callable[[Job], Awaitable[Any]], total: int = 0
    ) -> Job:
        """Begin a job, unless its form was sent before or just the same is being done: then it is that one.

        Raises:
            UsageError: enough is being done, or the number is none of a form of ours.
        """
        if not _NUMBER.fullmatch(number):
            raise UsageError("this was not sent by a form of this page: go back, load it again, and repeat it")
        with self._lock:
            if number in self._jobs:
                return self._jobs[number]
            running = [job for job in self._jobs.values() if job.runs]
            for job in running:
                if job.same == same and not job.stopping:
                    return job
            if len(running) >= AT_ONCE:
                raise UsageError(f"{AT_ONCE} drafts or trials are running already: wait for one, or stop one")
            ended = [job for job in self._jobs.values() if not job.runs]
            for old in ended[: max(0, len(self._jobs) + 1 - KEPT)]:
                del self._jobs[old.number]
            job = self._jobs[number] = Job(number, same, about, total)
            job.begin(work)
            return job

    def end(self, seconds: float = 5.0) -> None:
        """Stop all of them, and wait for each so long at most."""
        running = [job for job in list(self._jobs.values()) if job.runs]
        for job in running:
            job.stop()
        for job in running:
            job.wait(seconds)
