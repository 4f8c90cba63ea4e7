"""The transport for plain HTTP: its connections, and answers in all the forms that HTTP/1.1 has."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import httpx2
import pytest

import serving.sender
from serving.sender import Sender
from serving.wire import Wire
from tests.serving.rawly import question, raw
from tests.serving.scripted import Asked, Scripted, answer, chat, scripted

BODY = b'{"it": "is"}'


def client(**more: Any) -> httpx2.AsyncClient:
    wire = Wire(httpx2, **({"connect_timeout": 5.0, "keep": 4.0, "most": 1 << 20} | more))
    return httpx2.AsyncClient(transport=wire)  # type: ignore[arg-type]


def chunked(*chunks: bytes) -> bytes:
    parts = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts


FORMS = {
    "counted": answer(BODY),
    "chunked": chunked(BODY[:5], BODY[5:]),
    "to the end": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY,
    "after an interim answer": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(BODY),
    "compressed": answer(gzip.compress(BODY), Content_Encoding="gzip"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
async def test_answers_in_all_forms(form: bytes) -> None:
    async with scripted(form) as server, client() as asking:
        for _ in range(2):
            response = await asking.post(f"{server.url}/x?y=1", content=b"{}", headers={"Idempotency-Key": "k"})
            assert (response.status_code, response.content) == (200, BODY)
        response = await asking.get(server.url)
        assert response.content == BODY
    assert [(a.method, a.path) for a in server.asked] == [("POST", "/v1/x?y=1")] * 2 + [("GET", "/v1")]
    assert server.asked[0].headers["host"] in server.url and server.asked[0].body == {}
    assert server.connections == (3 if b"Connection: close" in form else 1)


async def test_connections_are_used_again_while_they_are_fresh() -> None:
    async with scripted(chat()) as server, client(keep=0.05) as asking:
        await asyncio.gather(*(asking.get(server.url) for _ in range(8)))
        opened = server.connections
        await asyncio.gather(*(asking.get(server.url) for _ in range(opened)))
        assert server.connections == opened
        await asyncio.sleep(0.1)
        await asking.get(server.url)
        assert server.connections == opened + 1


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    def once(server: Scripted, asked: Asked) -> bytes:
        return chat()

    async with scripted(once) as server, client() as asking:
        await asking.get(server.url)
    async with client() as asking:  # what follows an answer unasked can't be told from the next answer
        async with scripted(chat() + chat("forged")) as server:
            for _ in range(2):
                assert b"forged" not in (await asking.get(server.url)).content
            assert server.connections == 2
        with pytest.raises(httpx2.TransportError):
            await asking.get(server.url)


async def test_a_long_answer_is_cut_off() -> None:
    async with scripted(answer(b"x" * (3 << 20))) as server, client(most=1 << 20) as asking:
        response = await asking.get(server.url)
        assert 1 << 20 < len(response.content) < 2 << 20


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async with scripted(chat("late"), chat("right")) as server, client() as asking:
        server.latency = 0.1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await asking.get(server.url)
        assert b"right" in (await asking.get(server.url)).content


@pytest.mark.parametrize(
    ("url", "proxy", "ours"),
    [
        ("http://127.0.0.1:1/v1", True, True),
        ("http://localhost:1/v1", True, True),
        ("http://10.0.0.1/v1", False, True),
        ("http://10.0.0.1/v1", True, False),
        ("https://127.0.0.1:1/v1", False, False),
    ],
)
async def test_where_it_is_used(url: str, proxy: bool, ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.sender, "getproxies", lambda: {"http": "http://127.0.0.1:9"} if proxy else {})
    sender = Sender(url, None, request_timeout=1.0, concurrency=1)
    assert (sender._transport(1.0) is not None) is ours
    await sender.aclose()


async def test_an_answer_that_nobody_asked_for_is_not_the_next_one() -> None:
    """It lies in the socket already when the next question goes out. (httpx's own transport would take it.)"""
    sent = asyncio.Event()

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await question(reader)
            writer.write(chat("right"))
            await writer.drain()
            if number == 1:
                await asyncio.sleep(0)
                writer.write(chat("forged"))
                await writer.drain()
                sent.set()

    async with raw(serve) as port, client() as asking:
        for _ in range(2):
            assert b"right" in (await asking.get(f"http://127.0.0.1:{port}/v1")).content
            await sent.wait()
