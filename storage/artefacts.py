"""What a session makes besides answers (its graph, say), in the database; files for the user, written atomically."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import delete, insert, select

from storage.database import Database
from storage.errors import DatabaseError, UsageError
from storage.tables import artefacts

PART_BYTES = 8 * 1024 * 1024


def put(db: Database, session_id: str, name: str, payload: bytes) -> None:
    """Store `payload` under `name`, in place of an older one: all of it or nothing.

    Raises:
        DatabaseError: it could not be committed.
    """
    digest = hashlib.sha256(payload).hexdigest()
    parts = max(1, -(-len(payload) // PART_BYTES))
    with db.writing() as connection:
        connection.execute(delete(artefacts).where(artefacts.c.session_id == session_id, artefacts.c.name == name))
        for part in range(parts):
            connection.execute(
                insert(artefacts),
                {
                    "session_id": session_id,
                    "name": name,
                    "part": part,
                    "parts": parts,
                    "sha256": digest,
                    "payload": payload[part * PART_BYTES : (part + 1) * PART_BYTES],
                },
            )


def get(db: Database, session_id: str, name: str) -> bytes | None:
    """The payload under `name`, or None when there is none.

    Raises:
        DatabaseError: a part is missing, or the payload does not match its hash.
    """
    query = (
        select(artefacts.c.parts, artefacts.c.sha256, artefacts.c.payload)
        .where(artefacts.c.session_id == session_id, artefacts.c.name == name)
        .order_by(artefacts.c.part)
    )
    with db.reading() as connection:
        rows = connection.execute(query).all()
    if not rows:
        return None
    payload = b"".join(bytes(row.payload) for row in rows)
    if len(rows) != rows[0].parts or hashlib.sha256(payload).hexdigest() != rows[0].sha256:
        raise DatabaseError(f"{name} of this session is damaged in {db}: put back a copy of the database.")
    return payload


def digest(db: Database, session_id: str, name: str) -> str | None:
    """The hash of the payload under `name`, without reading it, or None when there is none."""
    query = select(artefacts.c.sha256).where(
        artefacts.c.session_id == session_id, artefacts.c.name == name, artefacts.c.part == 0
    )
    with db.reading() as connection:
        found: str | None = connection.scalar(query)
    return found


def write_file(path: str | Path, payload: bytes | Iterable[bytes]) -> None:
    """Write a file so that it is never seen half-written: temporary file beside it, fsync, rename.

    A payload in parts is written part by part.

    Raises:
        UsageError: it can't be written there.
    """
    with new_file(path) as stream:
        stream.writelines((payload,) if isinstance(payload, bytes) else payload)


@contextmanager
def new_file(path: str | Path) -> Iterator[BinaryIO]:
    """A stream to write a file piece by piece, which is never seen half-written; after an error there is none.

    Raises:
        UsageError: it can't be written there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        settle(path.parent)
    except OSError as error:
        raise UsageError(f"{path} can't be written ({error.strerror or error}): choose another place.") from error


def settle(path: Path) -> None:
    """Have the disk know a file, or what lies in a folder. Raises OSError."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
