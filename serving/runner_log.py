"""The log of a process that is started again and again: one file, kept short, and what its last words mean."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from storage.errors import UsageError

LONGEST = 32 << 20
"""Bytes of a log; what is older goes to one file beside it (`.1`), and what is older than that goes."""

_TAIL = 64 << 10
_ERROR = re.compile(r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit): .+)")
_HEARSAY = "See root cause above"
"""vLLM's front process says so last, and nothing else; its engine said before what was wrong."""


class RunnerLog:
    """The file at `path`; errors and last words are looked for in what was written since the last `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = 0
        self._told = False

    def opened(self, headline: str) -> IO[bytes]:
        """The file, to be handed to a process that starts.

        Raises:
            UsageError: the file can't be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab")
            file.write(f"=== {headline}\n".encode())
            file.flush()
        except OSError as error:
            raise UsageError(f"{self.path} can't be written ({error.strerror}): choose a folder with --logs") from None
        self._mark = file.tell()
        return file

    def last_line(self) -> str:
        """The last line that says something, or nothing."""
        lines = self._lines()
        return lines[-1][:200] if lines else ""

    def last_words(self) -> str:
        """The error that the process ended of, or else its last line."""
        return last_error(self._lines())

    def shorten(self) -> str | None:
        """Move what is in the file to the one beside it if it has become long; the process writes on.

        Where that can't be done the file is emptied all the same, and the first time it is told, in one line. No error
        is raised: the process is worth more than its log.
        """
        failed = None
        try:
            if not self.path.is_file() or self.path.stat().st_size <= LONGEST:
                return None
            try:
                shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
            except OSError as error:
                failed = f"{self.path}.1 can't be written ({error.strerror or error}): what was in the log is lost"
            os.truncate(self.path, 0)  # the process appends: it goes on at the new end
            self._mark = 0
        except OSError as error:
            failed = f"{self.path} can't be kept short ({error.strerror or error}): it grows"
        if failed is None or self._told:
            return None
        self._told = True
        return failed

    def _lines(self) -> list[str]:
        text = ""
        with suppress(OSError), self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._mark, end - _TAIL))
            text = file.read().decode("utf-8", "replace")
        # a progress bar writes its line again and again, and colours are no words
        lines = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]+", text)]
        return [line for line in lines if line]


def last_error(lines: Sequence[str]) -> str:
    """Of a log's lines the last that names an error, without what a logger put before it; or else the last."""
    errors = [found[1] for line in lines if (found := _ERROR.search(line))]
    causes = [error for error in errors if _HEARSAY not in error]
    return next(iter((causes or errors or list(lines))[-1:]), "")[:300]
