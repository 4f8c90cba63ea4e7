"""Whether the rooms beside us are ours. Imports nothing of ours, since that is what is in doubt."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ROOMS = ("agents", "graphs", "serving", "training", "storage")


def stranger() -> str | None:
    """One line about a package that stands in the way of one of our rooms; None when all is well.

    Another distribution may install a top-level package of the same name (openai-agents does).
    """
    home = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        spec = find_spec(room)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / room:
            return (
                f"the package {room!r} that Python finds is not Partita's ({found or 'missing'}): another distribution "
                "(openai-agents, say) installs one of the same name; install Partita in an environment of its own"
            )
    return None
