"""What was spent, and what a call usually takes, from real rows on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import astuple
from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.database import Database, open_database
from storage.items import FailedItem, Item
from storage.ledger import Ledger
from storage.sessions import SessionRecord, create_session
from storage.spend import Spent, Usual, spent, usual
from storage.trace import trace
from tests.storage.conftest import answer, record


def amounts(one: Spent) -> tuple[Fraction, ...]:
    return tuple(value for value in astuple(one) if isinstance(value, Fraction))


def sums(rows: Iterable[Spent]) -> tuple[Fraction, ...]:
    return tuple(map(sum, zip(*map(amounts, rows), strict=True)))


async def test_spent_by_kind_and_model(db: Database, session: SessionRecord) -> None:
    other = create_session(db, record("other"), [])
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("a", kind="describe", subject={"item": 0}))
        await ledger.record(
            answer("b", kind="describe", prompt_tokens=30, cached_tokens=20, completion_tokens=7, seconds=0.75)
        )
        await ledger.record(answer("c", kind="describe", model="maxi"))
        await ledger.record(answer("d", kind="embed", prompt_tokens=None, completion_tokens=None))
        await ledger.record(answer("e", prompt_tokens=1000, origin="reused"))
        await ledger.record(answer("f", prompt_tokens=1000, origin="human"))
        await ledger.record(answer("g", kind="merge", prompt_tokens=0, completion_tokens=0, seconds=0.0))
    with Ledger(db, other.id) as ledger:
        await ledger.record(answer("a", prompt_tokens=5000))
    quarter = Fraction(1, 4)
    assert [(row.cluster, row.kind, row.model, *amounts(row)) for row in spent(db, session.id)] == [
        (None, "describe", "maxi", 1, 3, 10, 0, 5, quarter, 0),
        (None, "describe", "mini", 2, 4, 40, 20, 12, 1, 0),
        (None, "embed", "mini", 1, 0, 0, 0, 0, quarter, 1),
        (None, "merge", "mini", 1, 0, 0, 0, 0, 0, 0),
    ]
    assert spent(db, "nobody") == []


async def test_a_call_is_the_clusters_of_what_it_decided_about(db: Database, session: SessionRecord) -> None:
    clusters = {0: 1, 1: 1, 2: 2, 3: 3}
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("a", kind="describe", subject={"item": 2}))
        await ledger.record(answer("b", subject={"representatives": [0, 1], "candidates": [2]}))
        await ledger.record(answer("c", subject={"representatives": [0, 1], "candidates": [0, 1, 2, 5]}))
        sides = [[0, 1, 2], [3]]
        await ledger.record(answer("d", kind="merge", subject={"representatives": sides, "clusters": sides}))
    calls = {(row.kind, row.cluster): row.calls for row in spent(db, session.id, clusters)}
    assert calls == {
        ("describe", 2): 1,
        ("membership", 1): Fraction(2, 4),
        ("membership", 2): 1 + Fraction(1, 4),
        ("membership", None): Fraction(1, 4),
        ("merge", 1): Fraction(1, 3),
        ("merge", 2): Fraction(1, 6),
        ("merge", 3): Fraction(1, 2),
    }


@pytest.mark.parametrize(
    ("mode", "kind", "images"), [("native", "image", 9), ("caption", "image", 8), ("native", "text", 0)]
)
async def test_images_shown(db: Database, mode: str, kind: Literal["image", "text"], images: int) -> None:
    items = [FailedItem("z.png", "it is not an image"), *(Item(name, name * 64, kind) for name in "abcdef")]
    session = create_session(db, record("shown", parameters={"embed_mode": mode}), items)
    with Ledger(db, session.id) as ledger:
        await ledger.record(answer("a", kind="describe", subject={"item": 2}))
        await ledger.record(answer("b", kind="embed", subject={"item": 2}))
        await ledger.record(answer("c", subject={"representatives": [0, 1], "candidates": [2, 3]}))
        sides = [[0, 1], [3]]
        await ledger.record(answer("d", kind="merge", subject={"representatives": sides, "clusters": sides}))
        await ledger.record(answer("rejected", kind="describe", subject={"item": 3}, seconds=0.0))
    assert sum(row.images for row in spent(db, session.id)) == images
    assert sum(row["images"] for row in trace(db, session.id)) == (0 if kind == "text" else 7)


NODES = st.integers(0, 7)
SOME = st.lists(NODES, min_size=1, max_size=4)
QUESTIONS = st.one_of(
    st.builds(lambda kind, node: (kind, {"item": node}), st.sampled_from(["describe", "embed"]), NODES),
    st.builds(lambda r, c: ("membership", {"representatives": r, "candidates": c}), SOME, SOME),
    st.builds(lambda a, b: ("merge", {"representatives": [a, b], "clusters": [a, b]}), SOME, SOME),
)
COUNTS = st.one_of(st.none(), st.integers(0, 10_000))
CALLS = st.lists(
    st.tuples(QUESTIONS, st.sampled_from(["mini", "maxi"]), COUNTS, COUNTS, COUNTS, st.floats(0, 100)), max_size=12
)


@given(calls=CALLS, clusters=st.dictionaries(NODES, st.integers(1, 4)))
@settings(max_examples=30, deadline=None)
def test_the_shares_of_clusters_add_up_to_what_was_spent(calls: list[Any], clusters: dict[int, int]) -> None:
    with open_database("sqlite://") as db:
        items = [Item(name, name * 64, "image") for name in "abcdefgh"]
        session = create_session(db, record("one"), items)

        async def write() -> None:
            with Ledger(db, session.id) as ledger:
                for number, ((kind, subject), model, prompt, cached, completion, seconds) in enumerate(calls):
                    counts = {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion}
                    one = answer(str(number), kind=kind, subject=subject, model=model, seconds=seconds, **counts)
                    await ledger.record(one)

        asyncio.run(write())
        shared, whole = spent(db, session.id, clusters), spent(db, session.id)
    for what in {(row.kind, row.model) for row in whole} | {(row.kind, row.model) for row in shared}:
        parts = [row for row in shared if (row.kind, row.model) == what]
        assert sums(parts) == sums(row for row in whole if (row.kind, row.model) == what)
    assert sum(row.calls for row in shared) == len(calls)
    assert sum(row.prompt_tokens for row in shared) == sum(prompt or 0 for _, _, prompt, *_ in calls)
    assert {row.cluster for row in shared} <= {None, *clusters.values()}


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
