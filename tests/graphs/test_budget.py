"""A session's bounds on calls and money: never passed, whatever is in flight."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from graphs.budget import Budget
from storage.errors import Paused
from storage.ledger import Answer

ONE = {"representatives": [], "candidates": [7]}


def answer(kind="membership", tokens=100, origin="model", subject=ONE, seconds=0.1) -> Answer:
    return Answer(
        key=str(id(object())), kind=kind, component=None, step=None, attempt=0, subject=subject, prompt_hash="",
        reply="", conclusion=None, reason="", model="m", prompt_tokens=tokens, completion_tokens=0, seconds=seconds,
        attempts=1, origin=origin, at=datetime.now(UTC),
    )  # fmt: skip


def cents(kind: str, prompt: int, completion: int, cached: int) -> float:
    return (prompt + completion) / 100


async def call(budget: Budget, tokens: int = 100, kind: str = "membership", fails: bool = False, subject=ONE) -> bool:
    """Whether there was room; the answer comes a little later."""
    try:
        async with budget.reserved(kind, subject) as spend:
            await asyncio.sleep(0.001)
            if fails:
                raise ConnectionError
            spend(answer(kind, tokens, subject=subject))
    except (Paused, ConnectionError):
        return False
    return True


async def test_calls_are_counted_when_they_are_made():
    budget = Budget(max_calls=10)
    made = await asyncio.gather(*(call(budget) for _ in range(30)))
    assert sum(made) == budget.calls == 10
    assert made == [True] * 10 + [False] * 20  # the first that came


async def test_embeddings_are_no_chat_calls_but_cost():
    budget = Budget(max_calls=0, max_cost=5, cost=cents)
    assert await call(budget, kind="embed") and not await call(budget)
    assert (budget.calls, budget.cost) == (0, 1.0)


async def test_what_fails_gives_its_room_back():
    budget = Budget(max_calls=2, max_cost=100, cost=cents)
    assert await asyncio.gather(*(call(budget, fails=True) for _ in range(5))) == [False] * 5
    assert (budget.calls, budget.cost) == (0, 0)
    assert await call(budget) and await call(budget) and not await call(budget)


@pytest.mark.parametrize("dearest", [100, 150])
async def test_money_in_flight_is_counted_as_the_dearest_so_far(dearest):
    budget = Budget(max_cost=10.5, cost=cents)
    assert await call(budget, dearest)
    made = await asyncio.gather(*(call(budget) for _ in range(40)))
    assert budget.cost == dearest / 100 + sum(made) <= 10.5
    assert sum(made) == (9 if dearest == 100 else 6)


async def test_a_kind_that_is_new_begins_slowly():
    budget, at_once, most = Budget(max_cost=1000, cost=cents), 0, []

    async def one() -> None:
        nonlocal at_once
        async with budget.reserved("merge", {}) as spend:
            at_once += 1
            most.append(at_once)
            await asyncio.sleep(0.001)
            at_once -= 1
            spend(answer("merge"))

    await asyncio.gather(*(one() for _ in range(40)))
    assert most[0] == 1 and max(most[:3]) <= 2 and max(most[:7]) <= 6 and max(most) > 10


async def test_a_call_counts_by_what_it_shows():
    """Questions grow with their clusters: one item at 1 USD says that six may cost six."""
    budget = Budget(max_cost=10, cost=cents)
    six = {"representatives": [[1, 2, 3], [4, 5, 6]], "clusters": [[1, 2, 3], [4, 5, 6]]}
    assert await call(budget) and await call(budget)
    made = await asyncio.gather(*(call(budget, 600, subject=six) for _ in range(5)))
    assert sum(made) == 1 and budget.cost == 8


async def test_nothing_is_spent_where_nothing_may_be():
    assert not await call(Budget(max_cost=0, cost=lambda *call: 0.5))
    assert await call(Budget(max_cost=0))  # what is free may be had


def test_a_rejected_question_costs_nothing():
    budget = Budget(cost=lambda *call: 1.0)
    budget.count(answer("describe", tokens=0, seconds=0.0))
    assert (budget.calls, budget.cost) == (1, 0)


async def test_what_was_cached_may_cost_less():
    budget = Budget(cost=lambda kind, prompt, reply, cached: (prompt - cached) / 100)
    async with budget.reserved("membership", ONE) as spend:
        spend(replace(answer(tokens=100), cached_tokens=80))
    assert budget.cost == pytest.approx(0.2)


def test_earlier_processes_count():
    budget = Budget(max_calls=3, cost=cents)
    for kind in ("describe", "embed", "membership"):
        budget.count(answer(kind))
    budget.count(answer("membership", origin="reused"))
    assert (budget.calls, budget.cost) == (2, 3.0)
