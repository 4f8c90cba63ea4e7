"""What sessions are called."""

from __future__ import annotations

import re
from datetime import datetime

from storage.errors import UsageError


def default_name(criterion: str, now: datetime | None = None) -> str:
    """A session's name from its criterion and the time."""
    slug = re.sub(r"[^a-z0-9]+", "-", criterion.lower()).strip("-")[:40] or "session"
    return f"{slug}-{(now or datetime.now()):%Y%m%d-%H%M%S}"


def free_name(criterion: str, taken: set[str]) -> str:
    """The default name, numbered where a session has it already."""
    named = first = default_name(criterion)
    number = 1
    while named in taken:
        number += 1
        named = f"{first}-{number}"
    return named


def check_name(name: str) -> str:
    """The name; raises UsageError where a session can't be called so."""
    if not re.fullmatch(r"[\w][\w.-]{0,99}", name):
        raise UsageError(f"--session {name!r}: use up to 100 letters, digits, '.', '-' and '_'")
    return name
