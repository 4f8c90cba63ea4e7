"""Opening, migrating, and what is said when it does not work."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from storage.database import _MIGRATIONS, Database, open_database
from storage.errors import DatabaseError, UsageError
from storage.ledger import Ledger
from storage.tables import HEAD, VERSION_TABLE, answers, metadata, sessions
from storage.trace import trace
from storage.urls import without_secrets
from tests.storage.conftest import answer, record


def test_the_migrations_make_the_tables_of_the_code(db: Database) -> None:
    with db.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []


def test_head_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_opening_again_needs_no_alembic(url: str, python: Callable[..., subprocess.Popen[str]]) -> None:
    open_database(url).close()
    script = (
        "import sys; from storage.database import open_database; open_database(sys.argv[1]).close();"
        "print('alembic' in sys.modules)"
    )
    out, err = python(script, url).communicate(timeout=60)
    assert (out.strip(), err) == ("False", "")


def test_many_processes_may_make_the_same_database_at_once(
    url: str, python: Callable[..., subprocess.Popen[str]]
) -> None:
    script = (
        "import sys; from storage.database import open_database\nwith open_database(sys.argv[1]) as db: print('ok')"
    )
    processes = [python(script, url) for _ in range(3)]
    assert [process.communicate(timeout=120) for process in processes] == [("ok\n", "")] * 3


def test_a_newer_database_is_refused_and_left_alone(url: str) -> None:
    with open_database(url) as db, db.writing() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"newer version of Partita \(revision 9999.*--db"):
        open_database(url)


async def test_an_older_database_is_migrated_with_all_that_is_in_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From revision 0001, which had the tables of LangGraph's stock savers beside it."""
    upgrade = command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, to: upgrade(config, "0001"))
        with open_database(url) as old:
            session = record("one")
            values = asdict(session)
            del values["wish"], values["progress"]
            told = [asdict(answer(f"k{number}")) | {"session_id": session.id} for number in range(3)]
            with old.writing() as connection:
                connection.execute(insert(sessions), values)
                for row in told:  # without what later revisions added
                    del row["id"], row["cached_tokens"]
                connection.execute(insert(answers), told)
                connection.execute(text("CREATE TABLE checkpoints (thread_id TEXT NOT NULL, checkpoint_id TEXT)"))
                connection.execute(text("INSERT INTO checkpoints VALUES ('t1', 'c1')"))
    with open_database(url) as db:
        with Ledger(db, session.id) as ledger:
            assert list(ledger.load().values()) == [answer(f"k{number}") for number in range(3)]
            ledger.decided("k1", [{"item": 0, "odds": 1.5}])
        assert [row["odds"] for row in trace(db, session.id)] == [None, 1.5, None]
        with db.reading() as connection:
            assert connection.execute(text("SELECT * FROM checkpoints")).all() == [("t1", "c1")]


def test_an_error_in_a_transaction_undoes_it(db: Database) -> None:
    with pytest.raises(RuntimeError), db.writing() as connection:
        connection.execute(text("INSERT INTO prompts (hash, text) VALUES ('h', 't')"))
        raise RuntimeError
    with db.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM prompts")).scalar() == 0


def test_the_folder_is_made_and_the_file_is_wal(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path}/a/b/c.db") as db, db.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["c.db"]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_in_memory(url: str) -> None:
    with open_database(url) as db:
        assert db.memory
        path = db.path
        assert path is not None and path.exists()
    assert not path.exists()


def test_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database at all, but long enough to have a header " * 20)
    (tmp_path / "file").write_text("")
    for url, said in {
        f"sqlite:///{tmp_path}/text.db": "is not a SQLite database",
        f"sqlite:///{tmp_path}": "is a folder",
        f"sqlite:///{tmp_path}/file/x.db": "can't be made",
        "sqlite://two/slashes.db": "three slashes",
        "partita.db": "is not a database URL",
        "mysql://me:secret@host/db": "mysql is not supported",
        "postgresql://me@host:port/db": "is not a database URL",
    }.items():
        with pytest.raises(DatabaseError, match=said) as caught:
            open_database(url)
        assert caught.value.exit_code == 2 and isinstance(caught.value, UsageError)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE cookies (id)")
    connection.close()
    with pytest.raises(DatabaseError, match="another program"):
        open_database(f"sqlite:///{tmp_path}/other.db")


def test_a_postgres_database_that_is_shared(postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE cookies (id int)")
    open_database(postgres_url).close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DatabaseError, match="can't be opened"):
        open_database(f"sqlite:///{tmp_path}/closed/x.db")


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.database.BUSY_SECONDS", 0.2)
    path = tmp_path / "x.db"
    open_database(f"sqlite:///{path}").close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with (
        open_database(f"sqlite:///{path}") as db,
        pytest.raises(DatabaseError, match="locked by another program"),
        db.writing(),
    ):
        pass
    other.close()


def test_postgres_is_not_there() -> None:
    with pytest.raises(DatabaseError, match=r"can't be reached at postgresql://127\.0\.0\.1:1/x") as caught:
        open_database("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value) and "me" not in str(caught.value).split("(")[0].split()


def test_postgres_has_no_such_database(postgres_url: str) -> None:
    base, _, query = postgres_url.partition("?")
    with pytest.raises(DatabaseError, match="createdb nowhere"):
        open_database(f"{base.rpartition('/')[0]}/nowhere?{query}")


def test_a_wrong_password(postgres_server: str, postgres_url: str) -> None:
    """The server trusts everybody on its socket, so the rule is changed for one user."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS careful")
        connection.execute("CREATE ROLE careful LOGIN PASSWORD 'right'")
        found = connection.execute("SHOW hba_file").fetchone()
        assert found is not None
        rules = Path(found[0])
        before = rules.read_text()
        try:
            rules.write_text("local all careful scram-sha-256\n" + before)
            connection.execute("SELECT pg_reload_conf()")
            url = postgres_url.replace("postgres:@", "careful:wrong-one@")
            with pytest.raises(DatabaseError, match="refuses the user or the password") as caught:
                for _ in range(50):  # the new rules come a moment after the signal
                    open_database(url).close()
            assert "wrong-one" not in str(caught.value)
            with pytest.raises(DatabaseError, match="refuses the user or the password"):
                open_database(url.replace(":wrong-one@", "@") + "&password=wrong-one")
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")


def test_an_unknown_parameter_in_the_url(postgres_url: str) -> None:
    with pytest.raises(DatabaseError, match=r"foo.*correct the URL") as caught:
        open_database(postgres_url + "&foo=bar")
    assert "\n" not in str(caught.value)


def test_a_user_who_may_not_make_tables(postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as PostgreSQL 15 and later have it
    with pytest.raises(DatabaseError, match=r"permission denied.*grant the user the right"):
        open_database(postgres_url.replace("postgres:@", "guest:@"))


def test_only_a_broken_constraint_passes_unexplained(db: Database) -> None:
    twice = text("INSERT INTO prompts (hash, text) VALUES ('h', 't'), ('h', 't')")
    with pytest.raises(IntegrityError), db.writing() as connection:
        connection.execute(twice)
    with pytest.raises(DatabaseError), db.writing() as connection:
        connection.execute(text("SELECT nothing FROM nowhere"))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError, match=r"pip install 'partita\[postgres\]'"):
        open_database("postgresql://host/db")


def test_passwords_are_not_shown(postgres_url: str) -> None:
    url = postgres_url.replace("postgres:@", "postgres:hunter2@")
    with open_database(url) as db:
        for shown in (str(db), repr(db), str(db.url), repr(db.url), repr(db.engine)):
            assert "hunter2" not in shown


def test_without_secrets() -> None:
    assert without_secrets("go to http://me:pw@host/v1 now") == "go to http://host/v1 now"
    assert without_secrets("http://host/v1?api_key=abc&x=1") == "http://host/v1?api_key=***&x=1"
    assert without_secrets("http://h/a@b") == "http://h/a@b"


def test_importing_storage_is_light(python: Callable[..., subprocess.Popen[str]]) -> None:
    heavy = ("sqlalchemy", "alembic", "numpy", "PIL", "langgraph", "torch", "asyncio")
    script = f"import sys, storage, storage.errors; print([name for name in {heavy} if name in sys.modules])"
    out, err = python(script).communicate(timeout=60)
    assert (out.strip(), err) == ("[]", "")
