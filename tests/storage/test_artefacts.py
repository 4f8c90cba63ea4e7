"""Payloads in parts, and files that are never half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import text

from storage import artefacts
from storage.database import Database
from storage.errors import DatabaseError, UsageError
from storage.sessions import SessionRecord


@pytest.mark.parametrize("size", [0, 1, 100, 101, 350])
def test_round_trip(db: Database, session: SessionRecord, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefacts, "PART_BYTES", 100)
    assert artefacts.get(db, session.id, "graph") is None
    artefacts.put(db, session.id, "graph", os.urandom(777))
    payload = os.urandom(size)
    artefacts.put(db, session.id, "graph", payload)
    assert artefacts.get(db, session.id, "graph") == payload
    assert artefacts.get(db, session.id, "other") is None


def test_a_large_payload(db: Database, session: SessionRecord) -> None:
    payload = os.urandom(17 * 1024 * 1024)
    artefacts.put(db, session.id, "graph", payload)
    assert artefacts.get(db, session.id, "graph") == payload
    with db.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM artefacts")).scalar() == 3


@pytest.mark.parametrize(
    "damage", ["DELETE FROM artefacts WHERE part = 1", "UPDATE artefacts SET payload = X'00' WHERE part = 0"]
)
def test_damage_is_noticed(db: Database, session: SessionRecord, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefacts, "PART_BYTES", 10)
    artefacts.put(db, session.id, "graph", bytes(30))
    with db.writing() as connection:
        connection.execute(text(damage if db.kind == "sqlite" else damage.replace("X'00'", "'x'::bytea")))
    with pytest.raises(DatabaseError, match="damaged"):
        artefacts.get(db, session.id, "graph")


def test_files(tmp_path: Path) -> None:
    artefacts.write_file(tmp_path / "new" / "out.json", b"one")
    artefacts.write_file(tmp_path / "new" / "out.json", b"two")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("out.json", b"two")]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new" / "out.json").stat().st_mode & 0o777 == 0o666 & ~umask


def test_files_that_cant_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder", tmp_path / "file" / "x"):
        with pytest.raises(UsageError, match="can't be written"):
            artefacts.write_file(path, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
