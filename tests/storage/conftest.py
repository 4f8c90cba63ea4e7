"""Both databases, for every test that takes `url` or `db`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storage.database import Database, open_database
from storage.items import FailedItem, Item
from storage.ledger import Answer
from storage.sessions import SessionRecord, create_session

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path}/partita.db"


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with open_database(url) as database:
        yield database


@pytest.fixture
def session(db: Database) -> SessionRecord:
    items = [Item(f"{name}.png", name * 64, "image") for name in "abcdef"]
    return create_session(db, record("one"), [*items, FailedItem("z.png", "it is not an image")])


def record(name: str, **changes: Any) -> SessionRecord:
    return SessionRecord(**({"name": name, "criterion": "suit", "policy": "paper", "collection": "/data"} | changes))


def answer(key: str, **changes: Any) -> Answer:
    values: dict[str, Any] = {
        "key": key,
        "kind": "membership",
        "component": 0,
        "step": 1,
        "attempt": 0,
        "subject": {"representatives": [0, 1], "candidates": [2]},
        "prompt_hash": "p1",
        "reply": "Both show hearts. <CONCLUSION> YES </CONCLUSION>",
        "conclusion": "YES",
        "reason": "Both show hearts.",
        "model": "mini",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "seconds": 0.25,
        "attempts": 1,
        "origin": "model",
        "at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    }
    return Answer(**(values | changes))


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script in a process of its own; whatever is left of it is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-u", "-c", script, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
