"""Runs a command that does not outlive its parent, nor leaves processes of its own: python lifeline.py SECONDS COMMAND.

stdin is a lifeline whose end means that the parent is gone or wants the command to end: the process group gets
SIGTERM, and SIGKILL after SECONDS. stdout gets one line when the command ended by itself: how. Whatever the command
started and left in the process group is killed with it. This file is run as a script, with nothing but the standard
library, so that the command gets the user's environment as it is. It has to lead a process group.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Run the command, report how it ended, and kill the process group, this process included."""
    seconds, *command = sys.argv[1:]
    # handled, not ignored: the command would inherit that it is to ignore them
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        # its output goes where our errors go: stdout is for the report
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())
    except OSError as error:
        _tell(f"{command[0]} can't be started ({error.strerror})")
    else:
        threading.Thread(target=_hold_the_line, args=(float(seconds),), daemon=True).start()
        status = child.wait()
        _tell(f"killed by signal {-status}" if status < 0 else f"exit status {status}")
    _kill()


def _tell(report: str) -> None:
    with suppress(BrokenPipeError):
        os.write(1, f"{report}\n".encode())


def _hold_the_line(seconds: float) -> NoReturn:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(seconds)  # the main thread ends us sooner, when the command is through
    _kill()


def _kill() -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("killed by our own signal")


if __name__ == "__main__":
    main()
