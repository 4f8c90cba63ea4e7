"""Versions of prompt sets: those that somebody kept, and those that sessions used, each by its hash.

A version never changes. What a session asks is in the session itself; a version that only sessions have is listed, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.database import Database
from storage.errors import PromptError
from storage.tables import prompt_sets, sessions

Source = Literal["shipped", "file", "page", "drafted"]
"""Where a version came from."""

SHORTEST = 4
"""Hex digits that name a version, at least."""
_HASH = re.compile(rf"[0-9a-f]{{{SHORTEST},16}}")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a prompt set.

    Attributes:
        prompt_set: the whole set, rendered for its criterion.
        source: None where only sessions have it, which began before versions were kept.
        text: the YAML as somebody wrote it, comments and variables included.
        at: when it was kept, or first used.
        sessions: names of the sessions that used it, the newest first.
    """

    hash: str
    prompt_set: Mapping[str, Any]
    source: Source | None
    text: str | None
    at: datetime
    sessions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the set is called."""
        return str(self.prompt_set.get("name", ""))

    @property
    def criterion(self) -> str:
        """Its criterion in words."""
        return str(self.prompt_set.get("criterion", ""))

    def to_json(self) -> dict[str, Any]:
        """For a list of versions: without the texts."""
        return {
            "hash": self.hash,
            "name": self.name,
            "criterion": self.criterion,
            "source": self.source,
            "at": self.at.isoformat(timespec="seconds"),
            "sessions": list(self.sessions),
        }


def keep(db: Database, hashed: str, prompt_set: Mapping[str, Any], source: Source, text: str | None = None) -> bool:
    """Keep a version; whether it is new. One that is there stays as it is, but for a text that it lacks."""
    row = {"hash": hashed, "prompt_set": dict(prompt_set), "source": source, "text": text, "at": datetime.now(UTC)}
    with db.writing() as connection:
        try:
            with connection.begin_nested():
                connection.execute(insert(prompt_sets), [row])
        except IntegrityError:
            lacking = (prompt_sets.c.hash == hashed) & prompt_sets.c.text.is_(None)
            connection.execute(update(prompt_sets).where(lacking).values(text=text))
            return False
    return True


def versions(db: Database) -> list[Version]:
    """All versions, those kept or first used last come first."""
    return sorted(_versions(db, ""), key=lambda v: (v.at, v.hash), reverse=True)


def is_hash(named: str) -> bool:
    """Whether something may be the hash of a version, or the beginning of one."""
    return _HASH.fullmatch(named) is not None


def find(db: Database, named: str) -> Version:
    """The version whose hash is, or begins with, these hex digits.

    Raises:
        PromptError: there is none, or several.
    """
    if not is_hash(named):
        raise PromptError(f"{named!r} is no hash of a prompt set: give {SHORTEST} to 16 hex digits of one")
    found = _versions(db, named)
    if len(found) > 1:
        which = ", ".join(sorted(v.hash for v in found)[:4])
        raise PromptError(f"{named!r} begins the hashes of {len(found)} prompt sets ({which}): give more digits")
    if not found:
        raise PromptError(
            f"no prompt set with the hash {named!r} was kept or used here: `partita prompts list` lists them"
        )
    return found[0]


def _versions(db: Database, beginning: str) -> list[Version]:
    used = (
        select(sessions.c.id, sessions.c.name, sessions.c.prompt_set_hash, sessions.c.created_at)
        .where(sessions.c.prompt_set_hash.startswith(beginning, autoescape=True))
        .order_by(sessions.c.created_at.desc(), sessions.c.name)
    )
    names: dict[str, list[str]] = {}
    first: dict[str, tuple[str, datetime]] = {}
    with db.reading() as connection:
        kept = connection.execute(select(prompt_sets).where(prompt_sets.c.hash.startswith(beginning, autoescape=True)))
        found = {row["hash"]: Version(**row) for row in kept.mappings()}
        for number, name, hashed, at in connection.execute(used):
            names.setdefault(hashed, []).append(name)
            first[hashed] = (number, at)
        for hashed in first.keys() - found.keys():
            number, at = first[hashed]
            theirs = connection.scalar(select(sessions.c.prompt_set).where(sessions.c.id == number))
            found[hashed] = Version(hashed, theirs or {}, None, None, at)
    return [replace(version, sessions=tuple(names.get(hashed, ()))) for hashed, version in found.items()]
