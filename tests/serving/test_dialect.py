"""Endpoints that want parameters in another form, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from serving.client import Endpoint, Reply
from storage.errors import RequestRejected
from tests.serving.scripted import Asked, Scripted, answer, chat, error, scripted


async def ask(endpoint: Endpoint, key: str = "k") -> Reply:
    return await endpoint.chat([{"role": "user", "content": "is it?"}], key=key, max_tokens=64, temperature=0.2, seed=7)


def refusing(*names: str) -> Callable[[Scripted, Asked], bytes]:
    """Takes none of these parameters, and says so of one at a time."""

    def script(server: Scripted, asked: Asked) -> bytes:
        for name in names:
            if name in asked.body:
                said = {"message": f"'{name}' is not supported with this model.", "param": name}
                return answer({"error": said | {"code": "unsupported_parameter"}}, "400 Bad Request")
        return chat()

    return script


async def test_a_parameter_that_is_not_taken_is_learned_once() -> None:
    told: list[str] = []
    async with (
        scripted(refusing("max_tokens", "temperature", "seed")) as server,
        Endpoint(server.url, model="m", api_key=None, on_retry=told.append) as endpoint,
    ):
        replies = [await ask(endpoint, "a"), await ask(endpoint, "b")]
    assert [reply.attempts for reply in replies] == [1, 1]
    assert [line.partition(" takes no ")[2].partition(":")[0] for line in told] == ["temperature", "seed"]
    assert [asked.headers["idempotency-key"] for asked in server.asked] == ["a"] * 4 + ["b"]
    assert server.asked[-1].body.keys() == {"model", "messages", "max_completion_tokens"}
    assert server.asked[-1].body["max_completion_tokens"] == 64
    assert endpoint.dialect.refused == ("max_tokens", "seed", "temperature")


async def test_questions_that_are_on_their_way_recover() -> None:
    async with (
        scripted(refusing("max_tokens", "temperature")) as server,
        Endpoint(server.url, model="m", api_key=None, concurrency=8, max_attempts=1) as endpoint,
    ):
        server.hold = asyncio.Barrier(8)
        asking = [asyncio.create_task(ask(endpoint, f"k{n}")) for n in range(8)]
        async with asyncio.timeout(10):
            replies = await asyncio.gather(*asking)
    assert all(reply.text == "yes" for reply in replies)
    assert len(server.asked) == 24


@pytest.mark.parametrize(
    "refusal",
    [
        error("400 No", "temperature must be between 0 and 1"),
        error("400 No", "'max_completion_tokens' is not supported"),
        error("422 No", "no such picture"),
    ],
)
async def test_another_rejection_stays_one(refusal: bytes) -> None:
    async with scripted(refusal) as server, Endpoint(server.url, model="m", api_key=None) as endpoint:
        with pytest.raises(RequestRejected):
            await ask(endpoint)
    assert len(server.asked) == 1


async def test_a_parameter_that_is_refused_for_ever_ends() -> None:
    stubborn = error("400 No", "'seed' is not supported")
    async with scripted(stubborn) as server, Endpoint(server.url, model="m", api_key=None) as endpoint:
        with pytest.raises(RequestRejected):
            await ask(endpoint)
    assert len(server.asked) == 2
