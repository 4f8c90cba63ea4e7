"""Opening the database: SQLite by default, PostgreSQL by URL (CONTRACT 3), migrated to the newest revision.

`open_database` gives one `Database`, which every other module here takes. What the driver raises comes out as a
`DatabaseError` of one line; passwords are in none of them.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url, select, table, text
from sqlalchemy import column as sql_column

from storage.errors import DatabaseError
from storage.filelock import FileLock
from storage.tables import HEAD, VERSION_TABLE, metadata
from storage.urls import without_secrets

BUSY_SECONDS = 30
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x7061727469746100  # "partita\0", PostgreSQL's advisory locks are numbers
_FORMS = "write sqlite:///path/to/file.db or postgresql://user@host/database"
_json = partial(json.dumps, separators=(",", ":"))
# Tables of LangGraph's stock checkpointers, which older versions kept beside ours.
_CHECKPOINT_TABLES = {"checkpoints", "writes", "checkpoint_migrations", "checkpoint_blobs", "checkpoint_writes"}
_DRIVERS: dict[str, Literal["sqlite", "postgresql"]] = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
}


class Database:
    """An open, migrated database.

    Attributes:
        engine: the synchronous SQLAlchemy engine, for any thread.
        url: SQLAlchemy's URL; its `str` and `repr` mask the password.
        kind: "sqlite" or "postgresql".
        path: the SQLite file, None for PostgreSQL.
        memory: True for `sqlite://`, which lasts as long as this object (in a temporary file: several threads and the
            checkpointer share it, which SQLite's own `:memory:` can't).
    """

    def __init__(
        self,
        engine: Engine,
        url: URL,
        kind: Literal["sqlite", "postgresql"],
        path: Path | None,
        folder: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.engine = engine
        self.url = url
        self.kind = kind
        self.path = path
        self.memory = folder is not None
        self._folder = folder
        self._turn = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a transaction that sees one state of the database and is rolled back at the end."""
        with self.explained(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that may write; committed at the end, rolled back on an error.

        On SQLite it takes the write lock at once: a transaction that reads first and writes later fails without
        waiting when somebody else wrote in between. Threads of this process take turns: who waits for SQLite's own
        lock sleeps ever longer, up to 0.1 s, while others go ahead.
        """
        with self.explained(), self._one_at_a_time(), self.engine.connect() as connection:
            connection = connection.execution_options(partita_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        mine = self.kind == "sqlite" and self._turn.acquire(timeout=BUSY_SECONDS)  # without it SQLite has its say
        try:
            yield
        finally:
            if mine:
                self._turn.release()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the driver's errors into a `DatabaseError` with a way out.

        Only a broken constraint passes unchanged: the caller knows what it means. Also what looks like an error of the
        program may be the user's: psycopg has ProgrammingError for an unknown parameter of the URL and for a
        permission that is missing.
        """
        try:
            yield
        except exc.IntegrityError:
            raise
        except (exc.DBAPIError, exc.TimeoutError) as error:
            raise self.explain(error) from error

    def explain(self, error: Exception) -> DatabaseError:
        """What to tell the user of an error that SQLAlchemy or the driver itself raised."""
        origin: Exception = getattr(error, "orig", None) or error
        said = without_secrets(" ".join(str(origin).split()))
        if self.kind == "sqlite":
            return DatabaseError(_explain_sqlite(self.path, said))
        # Both drivers and SQLAlchemy use the names of PEP 249.
        reached = all(kind.__name__ != "OperationalError" for kind in type(origin).__mro__)
        return DatabaseError(_explain_postgresql(self.url, said, reached=reached))

    def libpq_url(self) -> str:
        """The URL in the form that psycopg takes, password included: never for printing."""
        return self.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def close(self) -> None:
        """Close all connections. An in-memory database is gone then."""
        self.engine.dispose()
        if self._folder is not None:
            self._folder.cleanup()

    def __str__(self) -> str:
        return shown(self.url)

    def __repr__(self) -> str:
        return f"Database({shown(self.url)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_database(url: str, *, make: bool = True) -> Database:
    """Open the database at `url`, make it if it is a SQLite file that isn't there, and migrate it to `HEAD`.

    Two processes may open the same new database at once. A database that is at `HEAD` is opened without Alembic.

    Args:
        make: False for whoever looks for what is there: a file that isn't there is as an empty one, and isn't made.

    Raises:
        DatabaseError: with what to do about it.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise DatabaseError(f"{without_secrets(url)} is not a database URL: {_FORMS}.") from error
    kind = _DRIVERS.get(parsed.drivername)
    if kind is None:
        raise DatabaseError(f"{shown(parsed)}: {parsed.drivername} is not supported; {_FORMS}.")
    database = _sqlite(parsed, make or is_there(url)) if kind == "sqlite" else _postgresql(parsed)
    try:
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def is_there(url: str) -> bool:
    """Whether there may be a database at `url`: False for a SQLite file that `open_database` would make."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        return True  # opening it says what is wrong
    if not parsed.drivername.startswith("sqlite"):
        return True
    return parsed.database not in (None, "", ":memory:") and Path(str(parsed.database)).expanduser().exists()


def shown(url: URL) -> str:
    """`url` for people: no user, no password."""
    plain = url.set(drivername=url.drivername.removesuffix("+psycopg"), username=None, password=None)
    return without_secrets(plain.render_as_string(hide_password=True))


# -- SQLite -----------------------------------------------------------------------------------------------------------


def _sqlite(url: URL, keep: bool) -> Database:
    if url.host or url.username or url.query:
        raise DatabaseError(
            f"{shown(url)}: a SQLite URL is only a path, after three slashes: sqlite:///path/to/file.db."
        )
    folder = None
    if not keep or url.database in (None, "", ":memory:"):
        folder = tempfile.TemporaryDirectory(prefix="partita-")
        path = Path(folder.name) / "partita.db"
    else:
        path = Path(str(url.database)).expanduser().absolute()
        if path.is_dir():
            raise DatabaseError(
                f"{path} is a folder, not a database: give a file in it, as sqlite:///{path}/partita.db."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(
                f"The folder {path.parent} for the database can't be made ({error.strerror}): choose another with --db."
            ) from error
        url = url.set(database=str(path))
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS},
        hide_parameters=True,
        json_serializer=_json,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine, url, "sqlite", path, folder)


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`, not guessed from the statement
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("partita_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _explain_sqlite(path: Path | None, said: str) -> str:
    if "unable to open" in said:
        return f"The database {path} can't be opened: check that it is a file and that its folder can be written to."
    if "not a database" in said:
        return f"{path} is not a SQLite database: give another file with --db, or move this one away."
    if "locked" in said or "busy" in said:
        return (
            f"The database {path} is locked by another program for {BUSY_SECONDS} s: stop that program and try again."
        )
    if "readonly" in said:
        return f"The database {path} can't be written to: check the permissions of the file and of its folder."
    if "full" in said:
        return f"The disk that holds the database {path} is full: make room and go on with `partita resume`."
    if "malformed" in said:
        return f"The database {path} is damaged ({said}): put back a copy of it, or give another file with --db."
    return f"The database {path} can't be used ({said})."


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def _postgresql(url: URL) -> Database:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise DatabaseError(
            "PostgreSQL needs psycopg, which is not installed: `pip install 'partita[postgres]'`."
        ) from error
    if "password" in url.query:  # libpq takes it there too, but only the proper place is masked
        url = url.set(password=str(url.query["password"])).difference_update_query(["password"])
    url = url.set(drivername="postgresql+psycopg")
    defaults = {"connect_timeout": "10", "application_name": "partita"}
    engine = create_engine(
        url,
        connect_args={name: value for name, value in defaults.items() if name not in url.query},
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=_json,
    )
    return Database(engine, url, "postgresql", None)


def _explain_postgresql(url: URL, said: str, *, reached: bool) -> str:
    where = shown(url)
    if "authentication failed" in said or "no password supplied" in said:
        return f"PostgreSQL refuses the user or the password for {where}: correct the URL given by --db or PARTITA_DB."
    if "does not exist" in said and "database" in said:
        return f"PostgreSQL has no such database as {where}: make it with `createdb {url.database}`."
    if "does not exist" in said or "invalid connection option" in said or "invalid URI query parameter" in said:
        return f"PostgreSQL refuses {where} ({said}): correct the URL given by --db or PARTITA_DB."
    if "permission denied" in said or "must be owner" in said:
        return f"PostgreSQL refuses to work on {where} ({said}): grant the user the right to create tables in it."
    if reached:
        return f"PostgreSQL can't do what was asked of it on {where} ({said}): look at its log, or give another --db."
    return f"PostgreSQL can't be reached at {where} ({said}): check that it runs and that host and port are right."


# -- migrations -------------------------------------------------------------------------------------------------------


def _migrate(database: Database) -> None:
    with database.reading() as connection:
        if _revision(connection) == HEAD:
            return
    if database.path is None:
        with database.writing() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            _upgrade(database, connection)
        return
    lock = FileLock(database.path.with_name(database.path.name + ".opening.lock"))
    try:
        if not lock.acquire(timeout=BUSY_SECONDS):
            raise DatabaseError(_explain_sqlite(database.path, "locked"))
    except OSError as error:
        raise DatabaseError(_explain_sqlite(database.path, "readonly")) from error
    with lock:
        with database.explained():
            raw = database.engine.raw_connection()
        try:
            # Outside any transaction, and only here: the mode stays with the file.
            raw.cursor().execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.Error as error:
            raise database.explain(error) from error
        finally:
            raw.close()
        with database.writing() as connection:
            _upgrade(database, connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.scalar(select(sql_column("version_num")).select_from(table(VERSION_TABLE)))
    return None if found is None else str(found)


def _upgrade(database: Database, connection: Connection) -> None:
    found = _revision(connection)
    if found == HEAD:
        return  # another process was faster
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    if found is None:
        _refuse_strangers(database, connection)
    elif found not in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}:
        raise DatabaseError(
            f"The database {database} is from a newer version of Partita (revision {found}, this one knows {HEAD}): "
            "`pip install --upgrade partita`, or give another database with --db."
        )
    command.upgrade(config, "head")


def _refuse_strangers(database: Database, connection: Connection) -> None:
    there = set(inspect(connection).get_table_names())
    # A SQLite file of another program is a slip of the pen; a PostgreSQL database may well be shared.
    foreign = there - _CHECKPOINT_TABLES if database.kind == "sqlite" else there & set(metadata.tables)
    if foreign:
        raise DatabaseError(
            f"The database {database} belongs to another program (it has the table {min(foreign)}): "
            "give a database of its own with --db."
        )
