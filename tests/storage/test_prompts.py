"""Versions of prompt sets: kept once, found by the beginning of a hash, with the sessions that used them."""

from __future__ import annotations

import pytest

from storage.database import Database, is_there, open_database
from storage.errors import PromptError
from storage.prompts import find, keep, versions
from storage.sessions import create_session
from tests.storage.conftest import record

ONE, OTHER, USED = "1111" + "a" * 12, "1111" + "b" * 12, "c" * 16


def test_a_version_is_kept_once_and_a_text_that_it_lacks_is_added(db: Database) -> None:
    assert keep(db, ONE, {"name": "x", "criterion": "c"}, "shipped")
    assert not keep(db, ONE, {"name": "other"}, "file", "name: x\n")
    assert not keep(db, ONE, {"name": "x"}, "page", "name: y\n")
    kept = find(db, ONE)
    assert (kept.name, kept.criterion, kept.source, kept.text) == ("x", "c", "shipped", "name: x\n")
    assert kept.sessions == () and kept.at.tzinfo is not None


def test_sessions_that_used_it_are_told_newest_first_and_make_a_version_themselves(db: Database) -> None:
    keep(db, ONE, {"name": "x"}, "drafted")
    for name, hashed in (("a", ONE), ("b", USED), ("c", ONE)):
        create_session(db, record(name, prompt_set={"name": f"of {name}"}, prompt_set_hash=hashed), [])
    latest, first = versions(db)
    assert (latest.hash, latest.source, latest.name, latest.sessions) == (USED, None, "of b", ("b",))
    assert (first.hash, first.source, first.sessions) == (ONE, "drafted", ("c", "a"))
    assert latest.to_json()["sessions"] == ["b"] and "text" not in latest.to_json()


def test_the_beginning_of_a_hash_will_do_if_it_is_the_only_one(db: Database) -> None:
    keep(db, ONE, {}, "file")
    create_session(db, record("a", prompt_set_hash=OTHER), [])
    assert find(db, "1111a").hash == ONE and find(db, OTHER).sessions == ("a",)
    for named, says in (("1111", "2 prompt sets"), ("2222", "was kept"), ("11%_", "no hash"), ("111", "4 to 16")):
        with pytest.raises(PromptError, match=says):
            find(db, named)


def test_whether_a_database_is_there_is_told_without_making_it(url: str, tmp_path) -> None:
    assert is_there(url) == url.startswith("postgresql")
    assert list(tmp_path.iterdir()) == [] and not is_there("sqlite://") and is_there("no url")
    with open_database(url):
        assert is_there(url)
