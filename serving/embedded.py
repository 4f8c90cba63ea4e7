"""A model as a child process: the built-in one for `--endpoint embedded`, a sentence embedder for
`--embed-endpoint local`.

    async with embedded() as server:
        endpoint = Endpoint(server.url, model=None, api_key=server.api_key)

The child listens on a free port of the loopback interface, asks for a key made for this one run, and dies with this
process, whatever kills it. Ctrl-C in the terminal does not reach it, so that the parent can finish in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

from storage import errors
from storage.errors import EndpointUnreachable, PartitaError

START_TIMEOUT = 300.0
"""Seconds for loading the model: importing torch from a slow disk is what takes long."""

_FAREWELL = 5.0


class EmbeddedServer:
    """A running server: `url` is its base URL, `api_key` the key that it asks for, `pid` the child's."""

    def __init__(self, called: str, url: str, api_key: str, child: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self._called = called
        self.url = url
        self.api_key = api_key
        self._child = child
        self._log = log

    def __repr__(self) -> str:
        return f"EmbeddedServer({self.url!r}, pid={self.pid})"

    @property
    def pid(self) -> int:
        return self._child.pid

    def ended(self) -> str | None:
        """Why the child is gone, in one line; None while it runs."""
        status = self._child.poll()
        return None if status is None else f"{self._called}'s process ended ({_last_words(status, self._log)})"


@asynccontextmanager
async def embedded(
    model_path: Path | None = None,
    threads: int | None = None,
    *,
    loader: str = "serving.server:load_model",
    called: str = "the built-in model",
) -> AsyncIterator[EmbeddedServer]:
    """Start a server and wait until it answers; stop it at the end.

    Args:
        model_path: folder of the model; None takes the one that ships with Partita.
        threads: for torch; None leaves it to torch.
        loader: `module:function(model_path, threads)` that gives the model, in the child.
        called: what messages call the model.

    Raises:
        UsageError: no such model, or an extra is missing (what the loader raises).
        EndpointUnreachable: the child died or did not get ready in time.
    """
    key = secrets.token_urlsafe(32)
    order = {
        "model_path": None if model_path is None else str(model_path),  # the child has our current folder
        "threads": threads,
        "loader": loader,
        "called": called,
        "api_key": key,
    }
    with tempfile.TemporaryFile() as log:
        child = _start(log)
        try:
            url = await _ready(child, order, log)
            yield EmbeddedServer(called, url, key, child, log)
        finally:
            await _stop(child)


def _start(log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment["HF_HUB_OFFLINE"] = "1"  # what a model needs is on this machine
    # the child imports what this process imports, and nothing that happens to lie in the current folder (-P)
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "serving.embedded_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


async def _ready(child: subprocess.Popen[bytes], order: dict[str, Any], log: IO[bytes]) -> str:
    """Give the child its order and wait for its one line: where it listens, or why it can't."""

    def exchange() -> bytes:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            return b""
        return child.stdout.readline()

    try:
        async with asyncio.timeout(START_TIMEOUT):
            line = await _in_thread(exchange, child)
    except TimeoutError:
        raise EndpointUnreachable(
            f"{order['called']} was not ready within {START_TIMEOUT:g} s: is the machine short of memory?"
        ) from None
    if not line:
        why = _last_words(await asyncio.to_thread(child.wait), log)
        raise EndpointUnreachable(f"{order['called']} did not start ({why}): install Partita again, or report it")
    report: dict[str, str] = json.loads(line)
    if "url" in report:
        return report["url"]
    kind = getattr(errors, report["error"], EndpointUnreachable)
    raise kind(report["message"]) if issubclass(kind, PartitaError) else EndpointUnreachable(report["message"])


async def _in_thread(exchange: Any, child: subprocess.Popen[bytes]) -> bytes:
    """`exchange` in a thread that ends when the child does: it is killed when we are cancelled."""
    work = asyncio.ensure_future(asyncio.to_thread(exchange))
    try:
        line: bytes = await asyncio.shield(work)
    except asyncio.CancelledError:
        child.kill()
        await asyncio.wait([work])
        raise
    return line


async def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the child: closing its stdin is enough; if not, by force. Leaves no process, even when cancelled."""
    assert child.stdin is not None and child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.close()
    try:
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(child.wait, _FAREWELL)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        child.stdout.close()


def _last_words(status: int, log: IO[bytes]) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - 4096))
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{how}: {lines[-1][:200]}" if lines else how
