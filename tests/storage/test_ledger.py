"""The ledger: committed before it returns, in few commits, once per question; and the trace that is read from it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import event

from storage.database import Database, open_database
from storage.errors import DatabaseError, UsageError
from storage.items import Item
from storage.ledger import Answer, Ledger, storable, tally
from storage.sessions import SessionRecord, create_session
from storage.trace import trace
from tests.storage.conftest import answer, record


async def test_round_trip(db: Database, session: SessionRecord) -> None:
    vector = np.linspace(-1, 1, 7, dtype=np.float32)
    plain = answer("k1")
    embedded = answer(
        "k2",
        kind="embed",
        component=None,
        step=None,
        subject={"item": 3},
        reply="",
        conclusion=None,
        reason=None,
        prompt_tokens=None,
        completion_tokens=None,
        vector=vector,
    )
    with Ledger(db, session.id) as ledger:
        await ledger.record(plain, "Do they show the same suit?")
        await ledger.record(embedded)
        loaded = ledger.load()
        assert list(loaded) == ["k1", "k2"]
        assert loaded == {"k1": plain, "k2": embedded}
        assert loaded["k1"].at.tzinfo is not None
        assert loaded["k2"].vector is None
        again = ledger.load(vectors=True)["k2"].vector
        assert again is not None and again.dtype == np.float32 and np.array_equal(again, vector)
        first, second = (found.id for found in loaded.values())
        assert first is not None and second is not None and first < second


async def test_what_record_returned_from_is_committed(url: str, db: Database, session: SessionRecord) -> None:
    with Ledger(db, session.id) as ledger, open_database(url) as other:
        for number in range(20):
            await ledger.record(answer(f"k{number}"))
            assert f"k{number}" in Ledger(other, session.id).load()


async def test_concurrent_records_share_commits_and_keep_their_order(db: Database, session: SessionRecord) -> None:
    commits: list[object] = []
    with Ledger(db, session.id) as ledger:
        event.listen(db.engine, "commit", commits.append)
        await asyncio.gather(*(ledger.record(answer(f"k{number}"), "prompt") for number in range(320)))
        assert 1 <= len(commits) <= 32
        assert list(ledger.load()) == [f"k{number}" for number in range(320)]


async def test_the_same_row_twice_is_nothing_another_is_an_error(db: Database, session: SessionRecord) -> None:
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("k"))
        await ledger.record(answer("k"))
        local = answer("k").at.astimezone(timezone(timedelta(hours=2)))
        await ledger.record(replace(answer("k"), at=local, subject={"representatives": (0, 1), "candidates": (2,)}))
        outcomes = await asyncio.gather(
            ledger.record(answer("new")),
            ledger.record(answer("k", conclusion="NO")),
            ledger.record(answer("newer")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None)]
        assert {key: found.conclusion for key, found in ledger.load().items()} == {
            "k": "YES",
            "new": "YES",
            "newer": "YES",
        }


async def test_sessions_are_apart(db: Database, session: SessionRecord) -> None:
    other = create_session(db, record("two"), [])
    with Ledger(db, session.id) as first, Ledger(db, other.id) as second:
        await asyncio.gather(first.record(answer("k")), second.record(answer("k", conclusion="NO")))
        assert first.load()["k"].conclusion == "YES"
        assert second.load()["k"].conclusion == "NO"


async def test_a_failed_commit_reaches_everyone_who_waits(
    db: Database, session: SessionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("before"))
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_insert_prompts", _out_of_space)
            outcomes = await asyncio.gather(
                *(ledger.record(answer(f"k{number}")) for number in range(5)), return_exceptions=True
            )
        assert all(isinstance(outcome, DatabaseError) and "OSError" in str(outcome) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 5
        await ledger.record(answer("after"))
        assert list(ledger.load()) == ["before", "after"]


def _out_of_space(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


async def test_a_lost_table_is_one_line(db: Database, session: SessionRecord) -> None:
    with db.writing() as connection:
        connection.exec_driver_sql("DROP TABLE decisions")
        connection.exec_driver_sql("DROP TABLE answers")
    with Ledger(db, session.id) as ledger:
        with pytest.raises(DatabaseError) as caught:
            await ledger.record(answer("k"))
        assert "\n" not in str(caught.value)


async def test_an_unknown_session_is_an_error(db: Database) -> None:
    with Ledger(db, "nobody") as ledger, pytest.raises(Exception, match=r"(?i)foreign key"):
        await ledger.record(answer("k"))


async def test_close_commits_what_is_queued(db: Database, session: SessionRecord) -> None:
    ledger = Ledger(db, session.id)
    tasks = [asyncio.create_task(ledger.record(answer(f"k{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    ledger.close()
    ledger.close()
    await asyncio.gather(*tasks)
    assert len(ledger.load()) == 50
    with pytest.raises(RuntimeError, match="closed"):
        await ledger.record(answer("late"))


async def test_a_cancelled_record_disturbs_nobody(db: Database, session: SessionRecord) -> None:
    with Ledger(db, session.id) as ledger:
        cancelled = asyncio.create_task(ledger.record(answer("k0")))
        other = asyncio.create_task(ledger.record(answer("k1")))
        await asyncio.sleep(0)
        cancelled.cancel()
        await other
        with pytest.raises(asyncio.CancelledError):
            await cancelled


async def test_hostile_replies_are_the_same_live_and_replayed(db: Database, session: SessionRecord) -> None:
    live = answer("k", reply="a\0b\ud800c \U0001f600", reason="\0")
    assert live.reply == "a\ufffdb\ufffdc \U0001f600"
    with Ledger(db, session.id) as ledger:
        await ledger.record(live, "prompt \0")
        assert ledger.load()["k"] == live


def test_storable_leaves_text_alone() -> None:
    assert storable("déjà \U0001f600") == "déjà \U0001f600"


JOINED = {"item": 2, "odds": 4.81, "bound": 4.6, "did": "joined"}


async def test_decisions_are_kept_once_for_each_answer(url: str, db: Database, session: SessionRecord) -> None:
    other = create_session(db, record("two"), [])
    with Ledger(db, session.id) as ledger, Ledger(db, other.id) as apart:
        assert ledger.load_decided() == set()
        for number in range(3):
            await ledger.record(answer(f"k{number}"))
        await apart.record(answer("k0"))
        ledger.decided("k0", [JOINED])
        assert ledger.load_decided() == {"k0"}  # it sees what is queued
        ledger.decided("k0", [JOINED | {"odds": 0.0}])
        ledger.decided("k2", [JOINED, {"items": (0, 1), "odds": float("inf")}])
        ledger.decided("k2", [])
        assert apart.load_decided() == set()
    with open_database(url) as again:
        assert Ledger(again, session.id).load_decided() == {"k0", "k2"}
    assert [row["decisions"] for row in trace(db, session.id)] == [
        [JOINED | {"item": "c.png"}],
        [],
        [JOINED | {"item": "c.png"}, {"items": ["a.png", "b.png"], "odds": None}],
    ]


async def test_decisions_wait_for_company(db: Database, session: SessionRecord) -> None:
    """They make no commits of their own while answers come in, and need no answer to be written in the end."""
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("k0"))
        commits: list[object] = []
        event.listen(db.engine, "commit", commits.append)
        for number in range(1, 6):
            ledger.decided(f"k{number - 1}", [JOINED])
            await ledger.record(answer(f"k{number}"))
        assert len(commits) == 5
        ledger.decided("k5", [JOINED])
        for _ in range(200):
            await asyncio.sleep(0.01)
            if len(commits) > 5:
                break
        with db.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM decisions").scalar() == 6


async def test_a_decision_that_fails_is_heard_of_later(db: Database, session: SessionRecord) -> None:
    ledger = Ledger(db, session.id)
    ledger.decided("nobody asked", [JOINED])
    with pytest.raises(DatabaseError, match="A decision could not be written") as caught:
        await ledger.record(answer("k0"))
    assert "\n" not in str(caught.value)
    assert list(ledger.load()) == ["k0"]  # in the same transaction, and not harmed
    await ledger.record(answer("k1"))
    ledger.decided("k1", [JOINED])
    ledger.decided("nobody asked", [JOINED])
    with pytest.raises(DatabaseError, match="A decision could not be written"):
        ledger.close()
    ledger.close()
    with pytest.raises(RuntimeError), Ledger(db, session.id) as failing:
        failing.decided("nobody asked", [JOINED])
        raise RuntimeError  # is not covered up
    with pytest.raises(RuntimeError, match="closed"):
        ledger.decided("k1", [JOINED])
    with pytest.raises(TypeError), Ledger(db, session.id) as strict:
        strict.decided("k1", [{"item": object()}])


def test_an_answer_needs_an_aware_time(db: Database, session: SessionRecord) -> None:
    naive = replace(answer("k"), at=answer("k").at.replace(tzinfo=None))

    async def go() -> None:
        with Ledger(db, session.id) as ledger, pytest.raises(DatabaseError, match="time zone"):
            await ledger.record(naive)

    asyncio.run(go())


WRITER = """
import asyncio, sys
from storage.database import open_database
from storage.ledger import Ledger
from tests.storage.conftest import answer

async def main(url, session):
    with open_database(url) as db, Ledger(db, session) as ledger:
        async def one(worker):
            number = 0
            while True:
                key = f"{worker}-{number}"
                await ledger.record(answer(key), "prompt")
                sys.stdout.write(key + "\\n")
                sys.stdout.flush()
                number += 1
        await asyncio.gather(*(one(worker) for worker in range(16)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("records", [1, 333])
def test_kill_9_loses_no_acknowledged_record(
    url: str,
    db: Database,
    session: SessionRecord,
    python: Callable[..., subprocess.Popen[str]],
    records: int,
) -> None:
    process = python(WRITER, url, session.id)
    assert process.stdout is not None
    first = [process.stdout.readline().strip() for _ in range(records)]
    process.kill()
    out, err = process.communicate(timeout=30)
    acknowledged = [*first, *out.splitlines()]
    if out and not out.endswith("\n"):
        acknowledged.pop()  # the line was cut
    assert err == "" and len(acknowledged) >= records
    there = Ledger(db, session.id).load()
    assert set(acknowledged) <= set(there)
    assert len(there) <= len(acknowledged) + 17 * 2  # in flight, and acknowledged in a line that was cut


# -- trace ------------------------------------------------------------------------------------------------------------

KEYS = {
    "id", "kind", "component", "step", "representatives", "prompt", "prompt_hash", "reply", "conclusion", "reason",
    "model", "tokens", "seconds", "attempts", "origin", "at", "decisions", "odds", "images",
}  # fmt: skip


async def fill(db: Database, session: SessionRecord) -> None:
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("d", kind="describe", subject={"item": 4}, conclusion=None), "Describe it.")
        await ledger.record(answer("m0", prompt_hash="p2", component=1), "Same suit?")
        await ledger.record(answer("m1", prompt_hash="p2", subject={"representatives": [3], "candidates": [4, 5]}))
        merge = {"representatives": [[0], [3]], "clusters": [[0, 1, 2], [3, 4]]}
        await ledger.record(answer("x", kind="merge", subject=merge, prompt_tokens=None, completion_tokens=None))
        ledger.decided("m1", [{"item": 4, "odds": 4.81, "did": "joined"}, {"item": 5, "odds": -5.0, "did": "refused"}])
        ledger.decided("x", [{"clusters": [[0, 1, 2], [3, 4]], "odds": -0.5, "bound": 4.6, "did": "apart"}])


async def test_trace_rows(db: Database, session: SessionRecord) -> None:
    await fill(db, session)
    first, second, third = trace(db, session.id)
    assert first.keys() == second.keys() == KEYS | {"candidates"}
    assert third.keys() == KEYS | {"clusters"}
    assert first | {"id": 0} == {
        "id": 0,
        "kind": "membership",
        "component": 1,
        "step": 1,
        "representatives": ["a.png", "b.png"],
        "candidates": ["c.png"],
        "prompt": "Same suit?",
        "prompt_hash": "p2",
        "reply": "Both show hearts. <CONCLUSION> YES </CONCLUSION>",
        "conclusion": "YES",
        "decisions": [],
        "odds": None,
        "reason": "Both show hearts.",
        "model": "mini",
        "tokens": 15,
        "images": 3,
        "seconds": 0.25,
        "attempts": 1,
        "origin": "model",
        "at": "2026-01-02T03:04:05.678Z",
    }
    assert third["representatives"] == [["a.png"], ["d.png"]]
    assert third["clusters"] == [["a.png", "b.png", "c.png"], ["d.png", "e.png"]]
    assert third["tokens"] is None
    assert [one["item"] for one in second["decisions"]] == ["e.png", "f.png"]
    assert (first["odds"], second["odds"], third["odds"]) == (None, 4.81, -0.5)
    assert third["decisions"] == [
        {"clusters": [["a.png", "b.png", "c.png"], ["d.png", "e.png"]], "odds": -0.5, "bound": 4.6, "did": "apart"}
    ]


async def test_trace_filters(db: Database, session: SessionRecord) -> None:
    await fill(db, session)

    def kinds(**filters: object) -> list[str]:
        return [row["kind"] for row in trace(db, session.id, **filters)]  # type: ignore[arg-type]

    assert kinds(kind="describe") == ["describe"]
    assert next(trace(db, session.id, kind="describe"))["candidates"] == ["e.png"]
    assert kinds(kind="embed") == []
    assert kinds(item="f.png") == ["membership"]
    assert kinds(item="e.png") == ["membership", "merge"]
    assert kinds(item="z.png") == []
    copy = create_session(db, record("copies"), [Item(name, "1" * 64, "image") for name in ("x.png", "y.png")])
    with Ledger(db, copy.id) as ledger:
        await ledger.record(answer("k", subject={"item": 0}, kind="describe"))
    assert [row["candidates"] for row in trace(db, copy.id, item="y.png", kind="describe")] == [["x.png"]]
    assert kinds(cluster_items=["c.png", "f.png"], kind="membership") == ["membership", "membership"]
    with pytest.raises(UsageError, match="partita show"):
        trace(db, session.id, item="nobody.png")
    with pytest.raises(UsageError, match="--kind"):
        trace(db, session.id, kind="guess")


async def test_trace_goes_on_over_pages(db: Database, session: SessionRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.calls._PAGE", 2)
    with Ledger(db, session.id) as ledger:
        for number in range(4):
            await ledger.record(answer(f"k{number}", step=number))
            ledger.decided(f"k{number}", [{"item": 0, "odds": number}])
        ledger.load_decided()
        rows = trace(db, session.id)
        assert next(rows)["step"] == 0  # rows written while one reads are seen too
        await ledger.record(answer("k4", step=4))
        assert [(row["step"], row["odds"]) for row in rows] == [(1, 1), (2, 2), (3, 3), (4, None)]


async def test_tally(db: Database, session: SessionRecord) -> None:
    await fill(db, session)
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("u", conclusion="UNKNOWN", attempts=3))
        await ledger.record(answer("r", origin="reused"))
        await ledger.record(answer("s", subject={"representatives": [0], "candidates": [1, 2]}, conclusion="YES NO"))
        await ledger.record(answer("v", conclusion="UNKNOWN UNKNOWN"))
    assert tally(db, session.id) == {
        "describe": 1, "embed": 0, "membership": 5, "merge": 1, "reused": 1, "unknown": 2, "retries": 2,
    }  # fmt: skip
    assert [row["conclusion"] for row in trace(db, session.id)][-2:] == ["YES NO", "UNKNOWN UNKNOWN"]


def test_answers_are_frozen() -> None:
    made: Answer = answer("k")
    with pytest.raises(AttributeError):
        made.reply = "other"  # type: ignore[misc]
