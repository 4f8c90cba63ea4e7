"""Sessions: what was asked of a collection, how far it came, and the items it is about."""

from __future__ import annotations

import difflib
import importlib.metadata
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.database import Database
from storage.errors import SessionExists, UnknownSession
from storage.items import Collection, FailedItem, Item, ItemRow
from storage.tables import items as items_table
from storage.tables import sessions as sessions_table
from storage.urls import without_secrets

Status = Literal["running", "paused", "done", "failed"]
Wish = Literal["pause"]


def _now() -> datetime:
    return datetime.now(UTC)


def _version() -> str:
    try:
        return importlib.metadata.version("partita")
    except importlib.metadata.PackageNotFoundError:
        return "0"


@dataclass(slots=True)
class SessionRecord:
    """One row of `sessions`: everything `partita resume` needs besides the collection's files.

    Attributes:
        collection: the collection's path as given, made absolute.
        parameters: the options of the run; keys of the API are never among them.
        prompt_set: the whole prompt set, so that a later change of its file changes nothing here.
        seconds: wall time by phase.
        why: what a failed or paused session stopped for.
        wish: what the process that works on it is asked to do: "pause", or None.
        progress: how far that process is, as it last told.
        version: of Partita, when the session was made.
    """

    name: str
    criterion: str
    policy: str
    collection: str
    parameters: dict[str, Any] = field(default_factory=dict)
    prompt_set: dict[str, Any] = field(default_factory=dict)
    prompt_set_hash: str = ""
    status: Status = "running"
    seconds: dict[str, float] = field(default_factory=dict)
    why: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    version: str = field(default_factory=_version)
    created_at: datetime = field(default_factory=_now)
    updated_at: datetime = field(default_factory=_now)
    wish: str | None = None
    progress: dict[str, Any] | None = None


_FIELDS = frozenset(column.name for column in fields(SessionRecord))


def create_session(
    db: Database, record: SessionRecord, items: Collection | Iterable[Item | FailedItem]
) -> SessionRecord:
    """Store a new session with its items, all or nothing.

    Usable items get node numbers 0, 1, ... in their order; those of the same content share one, and failed ones have
    none. Userinfo in URLs is not stored.

    Raises:
        SessionExists: the name is taken.
    """
    rows = _rows(record.id, items, 0, {})
    values = asdict(record)
    values["collection"] = str(Path(record.collection).absolute())
    values["parameters"] = _without_secrets(record.parameters)
    with db.writing() as connection:
        try:
            connection.execute(insert(sessions_table), [values])
        except IntegrityError as error:
            raise SessionExists(
                f"There is a session {record.name!r} already: `partita resume {record.name}` goes on with it, "
                "--session NAME starts another."
            ) from error
        if rows:
            connection.execute(insert(items_table), rows)
    record.collection, record.parameters = values["collection"], values["parameters"]
    return record


def add_items(db: Database, session_id: str, items: Collection | Iterable[Item | FailedItem]) -> list[ItemRow]:
    """Add what a session lacks of a collection that has grown or changed; all its items, by position.

    What it has keeps its position and node number, also where the collection has it no more.
    """
    there = load_items(db, session_id)
    known = {(row.name, row.content_hash) for row in there}
    listed = [item for item in _listed(items) if (item.name, getattr(item, "content_hash", None)) not in known]
    nodes = {row.content_hash: row.node for row in there if row.content_hash is not None and row.node is not None}
    if rows := _rows(session_id, listed, max((row.position for row in there), default=-1) + 1, nodes):
        with db.writing() as connection:
            connection.execute(insert(items_table), rows)
    return load_items(db, session_id)


def load_session(db: Database, name: str) -> SessionRecord:
    """The session called `name` (or with that id).

    Raises:
        UnknownSession: with the names that look alike.
    """
    with db.reading() as connection:
        for column in (sessions_table.c.name, sessions_table.c.id) if "\0" not in name else ():
            row = connection.execute(select(sessions_table).where(column == name)).mappings().first()
            if row is not None:
                return SessionRecord(**row)
        names = list(connection.scalars(select(sessions_table.c.name)))
    if not names:
        raise UnknownSession(f"There is no session {name!r}: {db} has none yet; `partita run` starts one.")
    alike = difflib.get_close_matches(name[:100], names, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(alike)}? " if alike else ""
    raise UnknownSession(f"There is no session {name!r} in {db}: {meant}`partita sessions` lists them.")


def list_sessions(db: Database) -> list[SessionRecord]:
    """All sessions, the newest first."""
    newest = sessions_table.c.created_at.desc(), sessions_table.c.name
    with db.reading() as connection:
        rows = connection.execute(select(sessions_table).order_by(*newest))
        return [SessionRecord(**row) for row in rows.mappings()]


def update_session(db: Database, session_id: str, **changes: Any) -> None:
    """Change columns of a session (`status="done"`, `seconds={...}`, ...); `updated_at` follows.

    Raises:
        UnknownSession: there is no session of that id.
        TypeError: no such column, or one that never changes.
    """
    wrong = changes.keys() - (_FIELDS - {"id", "created_at"})
    if wrong:
        raise TypeError(f"not a column of a session that can change: {', '.join(sorted(wrong))}")
    if "parameters" in changes:
        changes["parameters"] = _without_secrets(changes["parameters"])
    changes.setdefault("updated_at", _now())
    with db.writing() as connection:
        done = connection.execute(update(sessions_table).where(sessions_table.c.id == session_id).values(**changes))
        if done.rowcount == 0:
            raise UnknownSession(f"There is no session with the id {session_id} in {db}.")


def wish(db: Database, session_id: str, what: Wish) -> None:
    """Ask the process that works on a session to do something.

    It goes unheard where no process does (`storage.locks.is_locked`), and a process that begins to work on a session
    takes back what was asked before it had the lock.
    """
    _tell(db, session_id, wish=what)


def wished(db: Database, session_id: str) -> Wish | None:
    """What the process that works on a session is asked to do."""
    with db.reading() as connection:
        return connection.scalar(select(sessions_table.c.wish).where(sessions_table.c.id == session_id))


def tell_progress(db: Database, session_id: str, progress: Mapping[str, Any]) -> None:
    """Keep how far the process that works on a session is, for others to see."""
    _tell(db, session_id, progress=dict(progress))


def _tell(db: Database, session_id: str, **values: Any) -> None:
    """What processes tell each other changes nothing of the session: `updated_at` stays."""
    with db.writing() as connection:
        connection.execute(update(sessions_table).where(sessions_table.c.id == session_id).values(**values))


def load_items(db: Database, session_id: str) -> list[ItemRow]:
    """The items of a session by position; `collection_from_rows` makes a collection of them."""
    with db.reading() as connection:
        return [ItemRow(*row) for row in connection.execute(_items_of(session_id).order_by(items_table.c.position))]


def load_item(db: Database, session_id: str, position: int) -> ItemRow | None:
    """The item at a position; None where there is none."""
    if not 0 <= position < 2**31:
        return None
    with db.reading() as connection:
        row = connection.execute(_items_of(session_id).where(items_table.c.position == position)).first()
    return None if row is None else ItemRow(*row)


def _items_of(session_id: str) -> Select[Any]:
    columns = [items_table.c[name.name] for name in fields(ItemRow)]
    return select(*columns).where(items_table.c.session_id == session_id)


def _listed(items: Collection | Iterable[Item | FailedItem]) -> tuple[Item | FailedItem, ...]:
    return (*items.items, *items.failed) if isinstance(items, Collection) else tuple(items)


def _rows(
    session_id: str, items: Collection | Iterable[Item | FailedItem], position: int, nodes: dict[str, int]
) -> list[dict[str, Any]]:
    """Rows of the table of items from a position on; ``nodes`` has the numbers by content, and gets the new ones."""
    rows: list[dict[str, Any]] = []
    for place, item in enumerate(_listed(items), position):
        row: dict[str, Any] = {"session_id": session_id, "position": place, "name": item.name}
        if isinstance(item, Item):
            node = nodes.setdefault(item.content_hash, len(nodes))
            row |= {"content_hash": item.content_hash, "kind": item.kind, "text": item.text, "node": node, "why": None}
        else:
            row |= {"content_hash": None, "kind": None, "text": None, "node": None, "why": item.why}
        rows.append(row)
    return rows


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value) if "://" in value else value
    if isinstance(value, Mapping):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(inner) for inner in value]
    return value
