"""Commands from a process that has imported Partita already: a fork takes milliseconds, a start a second or two.

A command runs in a process of its own as ever, with its own arguments, folder, environment, output, signals and exit
code. What it shares with the others is what Python does before the first line: imports and the seed of hashes. Where
one of these is what matters, start a process anew (`Cli.start`, `Cli.anew`).

This module, run as `python -m tests.warm SOCKET [MODULE...]`, is that process. It ends when its stdin does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

AT_START = ("PYTHON", "LANG", "LC_", "OMP_", "OPENBLAS_", "MKL_")
"""Beginnings of variables that are read before the first line, or while modules are imported (LANGSMITH_...)."""
READY = "ready"


class Warm:
    """The way to such a process."""

    def __init__(self, path: str) -> None:
        self._path = path

    def run(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float
    ) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of `partita` with these words; TimeoutExpired when it takes longer."""
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        ):
            connection.connect(self._path)
            asked = json.dumps({"words": list(words), "folder": str(folder), "environment": dict(environment)})
            socket.send_fds(connection, [b"\0"], [out.fileno(), err.fileno()])
            connection.sendall(asked.encode() + b"\n")
            connection.settimeout(seconds)
            with connection.makefile() as told:
                process = int(told.readline())
                try:
                    code = int(told.readline())
                except TimeoutError:
                    os.kill(process, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(words), seconds) from None
            written = []
            for file in (out, err):
                file.seek(0)
                written.append(file.read().decode())
        return code, written[0], written[1]


@contextmanager
def warmed(root: Path, *modules: str) -> Iterator[Warm]:
    """Start the process, with these modules imported too; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="partita-warm-") as folder:
        path = f"{folder}/socket"
        # No threads while modules are imported: neither of OpenBLAS nor of the allocator that pyarrow brings along.
        single = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false", "PYTHONPATH": str(root)}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", path, *modules],
            cwd=root, env=os.environ | single, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline().strip() == READY
            yield Warm(path)
            process.stdin.close()


def serve(path: str, *modules: str) -> None:
    """Fork for every connection; returns in the process that is to be the command, and where stdin has ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(64)
        preload(modules)
        gc.collect()
        gc.freeze()  # forks share these pages as long as nobody writes to them
        print(READY, flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                break
            connection.close()
    become(connection)


def preload(modules: Sequence[str]) -> None:
    """Import what verbs need, but nothing that starts threads: they would be missing in a fork."""
    import partita.commands

    for module in pkgutil.iter_modules(partita.commands.__path__, "partita.commands."):
        importlib.import_module(module.name)
    needed = ("graphs.session", "storage.saver", "alembic.command", "psycopg", "sklearn.metrics", "openai")
    for name in (*needed, *modules):
        importlib.import_module(name)
    threads = Path("/proc/self/task")
    assert not threads.exists() or len(list(threads.iterdir())) == 1


def become(connection: socket.socket) -> None:
    """Be the command that the other side asks for; a process between waits for it and tells its exit code."""
    _, files, _, _ = socket.recv_fds(connection, 1, 2)
    with connection.makefile("rb") as read:
        asked = json.loads(read.readline())
    if (process := os.fork()) != 0:
        connection.sendall(f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    connection.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in zip((nothing, *files), (0, 1, 2), strict=True):
        os.dup2(here, there)
        os.close(here)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    sys.path[0] = asked["folder"]
    sys.argv = [str(Path(importlib.import_module("partita").__file__ or "").with_name("__main__.py")), *asked["words"]]
    from partita.__main__ import main

    code = 0
    try:
        main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except Exception:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        code = 1
    # All that an interpreter does at its end but for taking itself apart, which would copy every page.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
