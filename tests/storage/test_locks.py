"""One process per session, and never a lock without a living process."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.database import Database, open_database
from storage.errors import SessionBusy
from storage.filelock import FileLock
from storage.locks import is_locked, session_lock

HOLDER = """
import os, sys, time
from storage.database import open_database
from storage.locks import session_lock
with open_database(sys.argv[1]) as db, session_lock(db, "s1", "one"):
    if sys.argv[2] == "fork" and os.fork() == 0:
        print("child", os.getpid(), flush=True)
        time.sleep(30)
        os._exit(0)
    if sys.argv[2] == "fork":
        time.sleep(0.3)
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_taker_is_told_at_once(url: str, db: Database) -> None:
    with open_database(url) as other:
        with session_lock(db, "s1", "one"):
            begun = time.monotonic()
            with pytest.raises(SessionBusy, match="'one'"), session_lock(other, "s1", "one"):
                pass
            assert time.monotonic() - begun < 2
            with session_lock(other, "s2", "two"):
                pass
        with session_lock(other, "s1", "one"):
            pass


def test_it_is_given_back_on_an_error_and_leaves_no_file(db: Database, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), session_lock(db, "s1", "one"):
        raise RuntimeError
    with session_lock(db, "s1", "one"):
        pass
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize("how", ["plain", "fork"])
def test_it_dies_with_its_process(
    url: str, db: Database, python: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    """Also when a child that the process forked lives on."""
    process = python(HOLDER, url, how)
    assert process.stdout is not None
    child = process.stdout.readline().split()[1] if how == "fork" else None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(SessionBusy), session_lock(db, "s1", "one"):
        pass
    process.kill()
    process.wait()
    try:
        deadline = time.monotonic() + 5
        while True:  # PostgreSQL notices the closed connection a moment later
            try:
                with session_lock(db, "s1", "one"):
                    break
            except SessionBusy:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert child is None or Path(f"/proc/{child}").exists() or not Path("/proc").exists()
    finally:
        if child is not None:
            subprocess.run(["kill", "-9", child], check=False)


def test_who_looks_is_in_nobodys_way(url: str, db: Database) -> None:
    stop = threading.Event()

    def look() -> None:
        with open_database(url) as other:
            while not stop.is_set():
                is_locked(other, "s1", "one")
                time.sleep(0.001)

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(50):
            with session_lock(db, "s1", "one"):
                assert is_locked(db, "s1", "one") and not is_locked(db, "s2", "two")
    finally:
        stop.set()
        for thread in looking:
            thread.join()
    assert not is_locked(db, "s1", "one")


@pytest.mark.parametrize("session", [f"s{number}" for number in range(4)])
def test_the_lock_is_seen_whatever_its_number(postgres_url: str, session: str) -> None:
    """Keys are signed, and their halves shown unsigned."""
    with open_database(postgres_url) as db, session_lock(db, session, "one"):
        assert is_locked(db, session, "one")


def test_in_memory_needs_none() -> None:
    with open_database("sqlite://") as db, session_lock(db, "s1", "one"), session_lock(db, "s1", "one"):
        assert not is_locked(db, "s1", "one")


def test_a_file_lock_that_was_removed_is_not_held_twice(tmp_path: Path) -> None:
    first, second, third = (FileLock(tmp_path / "x.lock") for _ in range(3))
    assert first.acquire() and not second.acquire(timeout=0.05)
    first.release()
    assert second.acquire() and not third.acquire()
    second.release()
    second.release()
    with third, pytest.raises(BlockingIOError), first:
        pass
