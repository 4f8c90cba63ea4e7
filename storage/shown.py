"""What a call showed the model: items, and how many of them were images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from storage.tables import items, sessions

Subject = Mapping[str, Any]
"""What a call was about, as `storage.ledger.Answer` has it."""


def items_shown(subject: Subject) -> int:
    """Items that a question about `subject` shows: representatives and candidates, both sides of a merge, or one."""

    shown = 1 if "item" in subject else 0
    for side in (subject.get("representatives", ()), subject.get("candidates", ())):
        shown += sum(len(one) if isinstance(one, list) else 1 for one in side)
    return shown


def images_shown(connection: Connection, session_id: str) -> Callable[[str, Subject], int]:
    """Gives, for kind and subject of a call of the session, the images that it showed.

    None where the items are texts, and none for the embedding of a description (CONTRACT 5, `caption`).
    """
    of_items = select(items.c.kind).where(items.c.session_id == session_id, items.c.kind.is_not(None)).limit(1)
    if connection.scalar(of_items) != "image":
        return lambda kind, subject: 0
    mode = select(sessions.c.parameters["embed_mode"].as_string()).where(sessions.c.id == session_id)
    native = connection.scalar(mode) == "native"
    return lambda kind, subject: items_shown(subject) if native or kind != "embed" else 0
