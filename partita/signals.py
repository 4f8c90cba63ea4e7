"""Ctrl-C and SIGTERM at the command line."""

from __future__ import annotations

import signal
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM as Python takes Ctrl-C."""
    raise KeyboardInterrupt


def ignore_signals() -> None:
    """The end is known: a Ctrl-C too many would end the interpreter by signal, not with our exit code, or make a
    library complain that it was interrupted while it closed. Does nothing in somebody else's program."""
    if signal.getsignal(signal.SIGTERM) is interrupt:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
