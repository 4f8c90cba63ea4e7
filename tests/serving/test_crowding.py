"""Endpoints that can't take all that we could ask at a time, over real sockets; how busy they are kept is told in
simulated time (test_limit)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import serving.client
import serving.retries
from serving.client import Endpoint
from storage.errors import EndpointUnreachable
from tests.serving.scripted import HANG, RESET, Asked, Scripted, chat, error, scripted

FULL = error("429 Too Many Requests", "slow down", Retry_After="0.2")
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "is it?"}]


@asynccontextmanager
async def crowded(room: int | None, full: bytes = FULL, **more: Any) -> AsyncIterator[tuple[Scripted, Endpoint]]:
    async with scripted(chat()) as server:
        server.room, server.latency, server.full = room, 0.05, full
        async with Endpoint(server.url, model="m", api_key=None, **more) as endpoint:
            yield server, endpoint


async def ask_all(endpoint: Endpoint, questions: int) -> list[int]:
    """How often each question had to be asked, with 32 asking."""
    todo, attempts = iter(range(questions)), list[int]()

    async def worker() -> None:
        for n in todo:
            reply = await endpoint.chat(QUESTION, key=f"k{n}", max_tokens=9, temperature=0, seed=n)
            attempts.append(reply.attempts)

    await asyncio.gather(*(worker() for _ in range(32)))
    return attempts


async def comes_true(what: Callable[[], bool]) -> None:
    for _ in range(6000):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.mark.parametrize("full", [FULL, error("429 Too Many Requests"), error("503 Busy", Retry_After="1")])
async def test_an_endpoint_with_room_for_four_is_kept_busy(full: bytes) -> None:
    told: list[str] = []
    async with crowded(4, full, on_retry=told.append) as (server, endpoint):
        attempts = await ask_all(endpoint, 300)
        assert len(attempts) == 300 and endpoint.in_flight == 0
        assert server.most_at_once == 4
        assert endpoint.limit <= 6
        assert server.turned_away < 110
        assert 1 <= len(told) <= 6 and "at a time from now" in told[0]
        server.room = None
        await ask_all(endpoint, 900)
        assert endpoint.limit == 32 and server.most_at_once > 28


async def test_a_burst_of_refusals_is_outlived() -> None:
    told: list[str] = []
    full = error("429 Too Many Requests", "slow down", Retry_After="2")
    async with crowded(0, full, on_retry=told.append) as (server, endpoint):
        asking = asyncio.create_task(ask_all(endpoint, 64))
        await comes_true(lambda: server.turned_away == 32 and endpoint.in_flight == 0)
        assert endpoint.limit == 16 and len(told) == 1
        server.room = None
        attempts = await asking
        assert max(attempts) == 2 and server.turned_away == 32
        await ask_all(endpoint, 600)
        assert endpoint.limit == 32


async def test_without_faults_all_places_are_taken() -> None:
    async with crowded(None) as (server, endpoint):
        server.latency = 0.2
        assert set(await ask_all(endpoint, 320)) == {1} and server.most_at_once == 32


async def test_faults_of_single_calls_slow_nobody_down() -> None:
    turn = itertools.count(1)

    def every_tenth(server: Scripted, asked: Asked) -> bytes:
        return chat() if next(turn) % 10 else [error("500 No"), RESET, chat()[:-9] + b"x" * 9][next(turn) % 3]

    async with scripted(every_tenth) as server, Endpoint(server.url, model="m", api_key=None) as endpoint:
        server.latency = 0.02
        attempts = await ask_all(endpoint, 200)
        assert endpoint.limit == 32 and max(attempts) > 1


async def test_silence_slows_it_down_once_a_round() -> None:
    told: list[str] = []
    async with (
        scripted(HANG) as server,
        Endpoint(
            server.url, model="m", api_key=None, request_timeout=0.3, max_attempts=2, on_retry=told.append
        ) as ours,
    ):
        with pytest.raises(EndpointUnreachable, match="no answer within"):
            await ask_all(ours, 32)
        assert ours.limit == 8
    assert len([line for line in told if "at most 16 at a time" in line]) == 1


@pytest.mark.parametrize("callers", [32, 96])
async def test_a_silent_endpoint_takes_no_longer_to_give_up_the_more_is_in_flight(callers: int) -> None:
    """Halving must not make a queue of those that wait: six rounds, and then everybody knows."""
    async with (
        scripted(HANG) as server,
        Endpoint(server.url, model="m", api_key=None, request_timeout=0.2) as ours,
    ):
        outcomes: list[BaseException] = []

        async def one(number: int) -> None:
            try:
                await ours.chat(QUESTION, key=f"k{number}", max_tokens=9, temperature=0, seed=0)
            except EndpointUnreachable as e:
                outcomes.append(e)

        await asyncio.gather(*(one(n) for n in range(callers)))
        assert len(outcomes) == callers and all("no answer within" in str(e) for e in outcomes)
        assert len(server.asked) < 100


async def test_an_endpoint_that_turns_all_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.retries, "BACK_OFF", 0.001)
    async with crowded(0, error("429 Too Many Requests", Retry_After="0")) as (server, endpoint):
        with pytest.raises(EndpointUnreachable, match=r"\(6 tries\): lower --concurrency"):
            await ask_all(endpoint, 1)
        assert server.turned_away == 6
    monkeypatch.setattr(serving.retries, "TURNED_AWAY_FOR", 0.0)
    async with crowded(0, error("429 Too Many Requests", Retry_After="0.01")) as (server, endpoint):
        with pytest.raises(EndpointUnreachable):
            await ask_all(endpoint, 32)
        assert server.turned_away < 80


async def test_a_question_that_is_always_turned_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.retries, "BACK_OFF", 0.001)
    monkeypatch.setattr(serving.retries, "EXCUSED", 9)
    too_large = error("429 Too Many Requests", "request too large")

    def answer(server: Scripted, asked: Asked) -> bytes:
        return too_large if asked.headers["idempotency-key"] == "k0" else chat()

    async with scripted(answer) as server, Endpoint(server.url, model="m", api_key=None) as endpoint:
        server.latency = 0.001
        others = asyncio.create_task(_keep_asking(endpoint))
        with pytest.raises(EndpointUnreachable, match=r"too large\) \(1\d tries\)"):
            await endpoint.chat(QUESTION, key="k0", max_tokens=9, temperature=0, seed=0)
        others.cancel()


async def _keep_asking(endpoint: Endpoint) -> None:
    for n in itertools.count(1):
        await endpoint.chat(QUESTION, key=f"k{n}", max_tokens=9, temperature=0, seed=n)
