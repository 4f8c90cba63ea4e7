"""Points in time as a user gives them: ``2026-11-28T10:30``, ``10:30``, or ``10m`` for ten minutes ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from storage.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MILLISECOND = timedelta(microseconds=999)


def read_moment(words: str, option: str, now: datetime | None = None) -> datetime:
    """A point in time, aware; one without a time zone is local time.

    Args:
        option: what it was given to, for the message.

    Raises:
        UsageError: it is none.
    """
    now = now or datetime.now(UTC)
    try:
        if (ago := re.fullmatch(r"(\d{1,9})\s*([smhdw])", words.strip(), re.ASCII)) is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if re.match(r"\d{1,2}:", words.strip()):
            moment = datetime.combine(now.astimezone(), time.fromisoformat(words.strip().zfill(5)))
        else:
            moment = datetime.fromisoformat(words.strip())
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {words!r}: give a time such as 2026-11-28T10:30 or 10:30, or how long ago: 90s, 10m, 2h, 1d"
        ) from None


def read_end(words: str, option: str, now: datetime | None = None) -> datetime:
    """The same for an end that is part of what is meant: the trace tells times to the millisecond.

    Raises:
        UsageError: it is no point in time.
    """
    return read_moment(words, option, now) + _MILLISECOND
