"""What was spent, and what a call usually takes, from real rows on both databases."""

from __future__ import annotations

import pytest

from storage.database import Database
from storage.ledger import Ledger
from storage.sessions import SessionRecord, create_session
from storage.spend import Spent, Usual, spent, usual
from tests.storage.conftest import answer, record


async def test_spent_by_kind_and_model(db: Database, session: SessionRecord) -> None:
    other = create_session(db, record("other"), [])
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("a", kind="describe"))
        await ledger.record(answer("b", kind="describe", prompt_tokens=30, completion_tokens=7, seconds=0.75))
        await ledger.record(answer("c", kind="describe", model="maxi"))
        await ledger.record(answer("d", kind="embed", prompt_tokens=None, completion_tokens=None))
        await ledger.record(answer("e", prompt_tokens=1000, origin="reused"))
        await ledger.record(answer("f", prompt_tokens=1000, origin="human"))
        await ledger.record(answer("g", kind="merge", prompt_tokens=0, completion_tokens=0, seconds=0.0))
    with Ledger(db, other.id) as ledger:
        await ledger.record(answer("a", prompt_tokens=5000))
    assert spent(db, session.id) == [
        Spent("describe", "maxi", 1, 10, 5, 0.25),
        Spent("describe", "mini", 2, 40, 12, 1.0),
        Spent("embed", "mini", 1, 0, 0, 0.25, uncounted=1),
        Spent("merge", "mini", 1, 0, 0, 0.0),
    ]
    assert spent(db, "nobody") == []


async def test_usual_over_all_sessions(db: Database, session: SessionRecord) -> None:
    other = create_session(db, record("other"), [])
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("a", prompt_tokens=100, completion_tokens=40, seconds=1.0))
        await ledger.record(answer("b", prompt_tokens=900, origin="reused"))
        await ledger.record(answer("c", prompt_tokens=900, model="maxi"))
        await ledger.record(answer("refused", prompt_tokens=0, completion_tokens=0, seconds=0.0))
    with Ledger(db, other.id) as ledger:
        await ledger.record(answer("a", prompt_tokens=200, completion_tokens=60, seconds=2.0))
        await ledger.record(answer("b", kind="embed", prompt_tokens=None, completion_tokens=0, seconds=0.5))
    found = usual(db, "mini")
    assert found == {
        "embed": Usual(0.0, 0.0, pytest.approx(0.5), 1),
        "membership": Usual(pytest.approx(150), pytest.approx(50), pytest.approx(1.5), 2),
    }
    assert usual(db, "nobody") == {}


async def test_calls_that_were_not_counted_do_not_lower_the_mean(db: Database, session: SessionRecord) -> None:
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("a", prompt_tokens=100, completion_tokens=40))
        await ledger.record(answer("b", prompt_tokens=None, completion_tokens=None))
        await ledger.record(answer("c", prompt_tokens=0, completion_tokens=0))
    assert usual(db, "mini")["membership"] == Usual(pytest.approx(100), pytest.approx(40), pytest.approx(0.25), 3)
    assert [row.uncounted for row in spent(db, session.id)] == [2]


async def test_a_model_is_also_known_by_the_name_it_was_asked_under(db: Database) -> None:
    parameters = {"model": "gpt-4o", "embed_model": "small"}
    asked = create_session(db, record("asked", parameters=parameters), [])
    with Ledger(db, asked.id) as ledger:
        await ledger.record(answer("a", model="gpt-4o-2024-08-06"))
        await ledger.record(answer("b", kind="embed", model="small-v2"))
    assert set(usual(db, "gpt-4o")) == set(usual(db, "gpt-4o-2024-08-06")) == {"membership"}
    assert set(usual(db, "small")) == set(usual(db, "small-v2")) == {"embed"}
