"""Locks that the operating system drops when their process dies, however it dies."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)

# Descriptors that stand for a lock. A forked child must not keep a lock alive that its parent holds.
_held: set[int] = set()


def hold(descriptor: int) -> None:
    """From now on, a forked child of this process lets go of `descriptor` (a locked file, a connection's socket)."""
    _held.add(descriptor)


def let_go(descriptor: int) -> None:
    """`descriptor` no longer stands for a lock."""
    _held.discard(descriptor)


def _let_go_in_child() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in _held:
        # Not a plain close: the number would be used again, under a library that still thinks it is its socket.
        with suppress(OSError):
            os.dup2(nowhere, descriptor, inheritable=False)
    _held.clear()
    os.close(nowhere)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


class FileLock:
    """An exclusive `flock` on `path`, for POSIX systems. The file is removed when the lock is given back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, timeout: float = 0.0) -> bool:
        """Take the lock within `timeout` seconds; False when somebody else holds it.

        Raises:
            OSError: the file can't be made.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self._try():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)

    def held(self) -> bool:
        """Whether somebody holds the lock. Makes no file and takes nothing but, for an instant, a shared lock.

        Raises:
            OSError: the file can't be read.
        """
        import fcntl

        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return True
        finally:
            os.close(descriptor)
        return False

    def release(self) -> None:
        """Give the lock back. Nothing happens when it is not held."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        let_go(descriptor)
        with suppress(OSError):
            self.path.unlink()
        os.close(descriptor)

    def _try(self) -> bool:
        import fcntl

        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it may have removed the file between our open and our lock: then ours is another file.
            if os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                self._descriptor = descriptor
                hold(descriptor)
                return True
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in _TAKEN:
                os.close(descriptor)
                raise
        os.close(descriptor)
        return False

    def __enter__(self) -> Self:
        if self._descriptor is None and not self.acquire():
            raise BlockingIOError(errno.EAGAIN, "locked by another process", str(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
