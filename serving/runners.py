"""Starts vLLM runners, waits until they answer, and watches them until it is asked to stop.

A runner that ends or no longer answers is killed with all that it started, and started again while the other goes on.
Each is a process group of its own under `serving.lifeline`, so that none outlives this process, whatever kills it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serving.restarts import Restarts
from serving.runner_log import RunnerLog
from serving.vllm import Runner
from storage.errors import EndpointUnreachable, UsageError

_LIFELINE = Path(__file__).with_name("lifeline.py")
_TITLES = {"generate": "the generating runner", "embed": "the embedding runner"}
_LOOK = 0.1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Patience:
    """How long we wait for what, in seconds."""

    start: float = 900.0
    """From starting a runner to its first answer."""
    tell: float = 15.0
    """Between two lines about the same wait."""
    every: float = 5.0
    """Between two questions after a runner's health."""
    answer: float = 10.0
    """For one answer. A runner that takes in a hundred images may have no time for us."""
    misses: int = 6
    """Questions in a row without a good answer, after which a runner is started again."""
    grace: float = 15.0
    """Between SIGTERM and SIGKILL."""
    gone: float = 5.0
    """After SIGKILL, until nothing is left in the process table. A GPU's memory takes a moment to be let go."""
    restarts: Restarts = field(default_factory=Restarts)


def serve_runners(
    runners: Sequence[Runner],
    logs: Path,
    *,
    take_turns: bool,
    say: Callable[[str], None],
    ready: Callable[[], None],
    patience: Patience | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then stop all runners; a second signal stops them by force.

    Args:
        logs: folder for the runners' logs.
        take_turns: start one after the other. vLLM takes memory that somebody else allocates meanwhile on the same GPU
            for its own, and has too little left (https://github.com/vllm-project/vllm/issues/55827).
        say: gets a line about whatever happens.
        ready: called once, when all runners answer.

    Raises:
        EndpointUnreachable: a runner did not start, or failed too often. None is left then.
        UsageError: a log can't be written.
    """
    _inherit_orphans()
    asyncio.run(_until_asked(_serve(runners, logs, patience or Patience(), take_turns, say, ready)))


async def _until_asked(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await work


async def _serve(
    runners: Sequence[Runner],
    logs: Path,
    patience: Patience,
    take_turns: bool,
    say: Callable[[str], None],
    ready: Callable[[], None],
) -> None:
    turn = asyncio.Semaphore(1 if take_turns else len(runners))
    watched = [_Watched(runner, logs, patience, turn, say) for runner in runners]
    try:
        if take_turns:  # the next begins only if this one answers: a failed one hands its turn on before all is ended
            for runner in watched:
                await runner.begin()
        else:
            await _together(*(runner.begin() for runner in watched))
        ready()
        await _together(*(runner.keep() for runner in watched))
    finally:
        say("stopping the runners")
        try:
            await _together(*(runner.stop() for runner in watched))
        finally:  # also when a second signal leaves them no time, be it to begin with stopping
            for runner in watched:
                runner.kill()


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """All at once; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


class _Watched:
    """One runner and the process that it is at the moment."""

    def __init__(
        self, runner: Runner, logs: Path, patience: Patience, turn: asyncio.Semaphore, say: Callable[[str], None]
    ) -> None:
        self._runner = runner
        self._title = _TITLES[runner.name]
        self._log = RunnerLog(logs / f"{runner.name}-{runner.port}.log")
        self._patience = patience
        self._turn = turn
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None

    async def begin(self) -> None:
        """Start it and wait until it answers.

        Raises:
            EndpointUnreachable: it ended, or did not answer in time.
        """
        async with self._turn:
            began = told = time.monotonic()
            self._start()
            self._say(f"starting {self._title} at {self._runner.url}; its log is {self._log.path}")
            within = min(self._patience.answer, self._patience.start)
            while not await healthy(self._runner.host, self._runner.port, within):
                if (how := self._ended()) is not None:
                    raise EndpointUnreachable(f"{self._title} did not start ({self._words(how)})")
                now = time.monotonic()
                if now - began > self._patience.start:
                    raise EndpointUnreachable(
                        f"{self._title} did not answer within {self._patience.start:g} s "
                        f"({self._words('still starting')}): give it longer with --start-timeout"
                    )
                if now - told >= self._patience.tell:
                    told = now
                    self._say(f"waiting for {self._title}, {now - began:.0f} s: {self._log.last_line()}")
                await asyncio.sleep(_LOOK)
            self._say(f"{self._title} answers after {time.monotonic() - began:.0f} s")

    async def keep(self) -> None:
        """Start it again whenever it fails.

        Raises:
            EndpointUnreachable: it failed too often.
        """
        restarts = replace(self._patience.restarts)
        served, why = await self._service()
        while (wait := restarts.after(served)) is not None:
            self._say(f"{why}: starting it again in {wait:g} s ({restarts.count} of {restarts.most})")
            await self._end()
            await asyncio.sleep(wait)
            try:
                await self.begin()
                served, why = await self._service()
            except (EndpointUnreachable, UsageError) as error:  # the latter: its log can't be written any more
                served, why = 0.0, str(error)
        raise EndpointUnreachable(f"{why}; given up after {restarts.count} restarts: see its log, then start again")

    async def stop(self) -> None:
        """End it in order: SIGTERM, and SIGKILL for what is left."""
        if self._child is None:
            return
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        await self._ended_within(self._patience.grace + 1)
        await self._end()

    def kill(self) -> None:
        """SIGKILL for it and all that it started."""
        if self._child is None or self._child.stdout is None or self._child.stdout.closed:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    async def _service(self) -> tuple[float, str]:
        """Watch it while it is well. Returns the seconds that it was, and what is wrong now."""
        began = time.monotonic()
        misses = 0
        while misses < self._patience.misses:
            if (how := await self._ended_within(self._patience.every)) is not None:
                return time.monotonic() - began, f"{self._title} ended ({self._words(how)})"
            if (trouble := self._log.shorten()) is not None:
                self._say(trouble)
            well = await healthy(self._runner.host, self._runner.port, self._patience.answer)
            misses = 0 if well else misses + 1
        return time.monotonic() - began, f"{self._title} gave {misses} times in a row no good answer to GET /health"

    def _start(self) -> None:
        command = self._runner.command
        with self._log.opened(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LIFELINE), f"{self._patience.grace:g}", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(self._runner.environment),
                start_new_session=True,
            )

    def _ended(self) -> str | None:
        """How the process ended; None while it runs."""
        assert self._child is not None and self._child.stdout is not None
        if self._child.poll() is None:
            return None
        if self._child.stdout.closed:
            return "killed"
        os.set_blocking(self._child.stdout.fileno(), False)
        report = self._child.stdout.read() or b""
        return report.decode("utf-8", "replace").strip() or f"killed by signal {-self._child.returncode}"

    async def _ended_within(self, seconds: float) -> str | None:
        until = time.monotonic() + seconds
        while True:
            how, left = self._ended(), until - time.monotonic()
            if how is not None or left <= 0:
                return how
            await asyncio.sleep(min(_LOOK, left))

    async def _end(self) -> None:
        """Kill it and all that it started, and wait until its port and its memory are free."""
        if self._child is None:
            return
        self.kill()
        until = time.monotonic() + self._patience.gone
        while _has_members(self._child.pid):
            if time.monotonic() > until:
                break  # what is dead counts as a member until its parent has taken note, and not every parent does
            await asyncio.sleep(0.02)
        self._child = None

    def _words(self, how: str) -> str:
        words = self._log.last_words()
        return f"{how}: {words}; log: {self._log.path}" if words else f"{how}; log: {self._log.path}"


async def healthy(host: str, port: int, within: float) -> bool:
    """Whether GET /health is answered with 200 within that many seconds."""
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError):  # a time limit is an OSError; what is no line of HTTP a ValueError
        return False
    return answer.split()[1:2] == [b"200"]


def _inherit_orphans() -> None:
    """On Linux: become the parent of what a dead runner leaves, so that its end is seen whatever init is like."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _has_members(group: int) -> bool:
    """Whether a process is left in the group, after taking note of those that ended as our children."""
    try:
        with suppress(ChildProcessError):
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # none, or the number is somebody else's by now
        return False
    return True
