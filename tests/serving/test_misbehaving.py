"""The client against servers that break the rules of HTTP, of JSON or of the API, byte by byte.

Whatever comes ends in the right value, in a retry, or in an error that says what to do: never in a traceback, a hang
or a wrong value.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import answers
from serving.client import Endpoint
from serving.roles import EMBEDDINGS
from storage.errors import EndpointMisbehaves, EndpointUnreachable, ModelUnknown
from tests.serving.certificates import certificate
from tests.serving.rawly import question, raw, reset
from tests.serving.scripted import answer, chat, scripted
from tests.serving.test_client import ask, connect, quick_back_off, transport

__all__ = ["quick_back_off", "transport"]  # fixtures for every test here too

GOOD = chat("right")
BODY = GOOD.partition(b"\r\n\r\n")[2]


def endpoint(port: int, **more: Any) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{port}/v1", **({"model": "m", "api_key": None} | more))


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines]).encode("latin1") + b"\r\n\r\n"


LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"


def packed(body: bytes, coding: str) -> bytes:
    return head(f"Content-Encoding: {coding}", f"Content-Length: {len(body)}") + body


def raw_deflate(body: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(body) + squeeze.flush()


TAKEN = {
    "wrong content type": answer(BODY, kind="text/plain"),
    "html by its content type": answer(BODY, kind="text/html"),
    "byte order mark": answer(b"\xef\xbb\xbf" + BODY),
    "utf-16": answer(BODY.decode().encode("utf-16")),
    "http/1.0": head(LENGTH, status="HTTP/1.0 200 OK") + BODY,
    "http/1.0 to the end": head(status="HTTP/1.0 200 OK") + BODY,
    "http/1.0 kept": head(LENGTH, "Connection: keep-alive", status="HTTP/1.0 200 OK") + BODY,
    "no reason": head(LENGTH, status="HTTP/1.1 200") + BODY,
    "partial content": head(LENGTH, status="HTTP/1.1 206 Partial") + BODY,
    "interim answers": head(status="HTTP/1.1 100 Continue") * 3 + head(status="HTTP/1.1 102 Processing") + GOOD,
    "chunk extensions and trailers": head(CHUNKED) + b"%x;a=b;c\r\n%b\r\n0;d\r\nX-T: 1\r\n\r\n" % (len(BODY), BODY),
    "same length twice": head(LENGTH, LENGTH) + BODY,
    "gzip": packed(gzip.compress(BODY), "gzip"),
    "x-gzip": packed(gzip.compress(BODY), "X-GZip"),
    "deflate": packed(zlib.compress(BODY), "deflate"),
    "deflate without a head": packed(raw_deflate(BODY), "deflate"),
    "identity": packed(BODY, "identity"),
    "odd headers": head(LENGTH, "X-E: \xff\xe9", "Set-Cookie: a=b; Domain=.; Expires=never") + BODY,
    "hundreds of headers": head(LENGTH, *(f"X-{n}: {n}" for n in range(400))) + BODY,
    "a name twice": answer(b'{"choices": [], ' + BODY[1:]),
    "huge numbers": answer(b'{"created": 1e999, "x": NaN, ' + BODY[1:]),
}


@pytest.mark.parametrize("form", TAKEN.values(), ids=TAKEN.keys())
async def test_odd_but_right_answers_are_taken(form: bytes) -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await question(reader)
        writer.write(form)
        await writer.drain()

    async with raw(serve) as port, endpoint(port, max_attempts=1) as asked:
        for _ in range(2):
            assert (await ask(asked)).text == "right"


BROKEN = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a json": head(LENGTH, "Connection: close") + BODY[:40],
    "half a json to the end": head("Connection: close") + BODY[:40],
    "shorter than it says": head(f"Content-Length: {len(BODY) + 9}") + BODY,
    "longer than it says": head(f"Content-Length: {len(BODY) - 9}") + BODY,
    "negative length": head("Content-Length: -5") + BODY,
    "two lengths": head(LENGTH, "Content-Length: 7") + BODY,
    "no number for a length": head("Content-Length: many") + BODY,
    "chunk size that is none": head(CHUNKED) + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size too small": head(CHUNKED) + b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative chunk size": head(CHUNKED) + b"-5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks without an end": head(CHUNKED) + b"%x\r\n%b\r\n" % (len(BODY), BODY),
    "endless chunk extension": head(CHUNKED) + b"5;" + b"x" * 300_000,
    "endless trailers": head(CHUNKED) + b"0\r\n" + b"X: y\r\n" * 60_000,
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000,
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000,
    "header without a colon": head("what is this", LENGTH) + BODY,
    "http/0.9": BODY,
    "http/2": head(LENGTH, status="HTTP/2.0 200 OK") + BODY[:-1],
    "status that is none": head(LENGTH, status="HTTP/1.1 20 OK") + BODY,
    "status 099": head(LENGTH, status="HTTP/1.1 099 No") + BODY,
    "switching protocols": head("Upgrade: x", status="HTTP/1.1 101 Switching Protocols") + BODY,
    "another coding": packed(BODY, "br"),
    "packed twice": packed(gzip.compress(gzip.compress(BODY)), "gzip, gzip"),
    "half a gzip": packed(gzip.compress(BODY)[:-12], "gzip"),
    "no gzip": packed(BODY, "gzip"),
    "no deflate": packed(b"\xff" * 50, "deflate"),
    "no content": head(status="HTTP/1.1 204 No Content"),
    "reset content": head("Content-Length: 0", status="HTTP/1.1 205 Reset"),
    "html as json": answer(b"<!doctype html><html>"),
    "utf-8 that is none": answer(b'{"choices": "\xff"}'),
    "lone brackets": answer(b'{"choices": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "endless digits": answer(b'{"choices": ' + b"1" * 10_000 + b"}"),
    "choices that are none": answer({"choices": {"message": {"content": "x"}}}),
    "a choice that is none": answer({"choices": ["x"]}),
    "a message that is none": answer({"choices": [{"message": ["x"]}]}),
    "a content that is none": answer({"choices": [{"message": {"content": 7}}]}),
}


@pytest.mark.parametrize("form", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_broken_answer_is_asked_for_again(form: bytes, end: str) -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await question(reader)
        writer.write(GOOD if number > 1 else form)
        await writer.drain()
        if number == 1 and end == "rst":
            await asyncio.sleep(0.005)
            reset(writer)

    told: list[str] = []
    async with raw(serve) as port, endpoint(port, on_retry=told.append) as asked:
        reply = await ask(asked)
    assert (reply.text, reply.attempts) == ("right", 2)
    (line,) = told
    assert line.isprintable() and len(line) < 500


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n", head("Content-Length: 1000")])
@pytest.mark.parametrize("drop", [b" ", b"X: y\r\n"])
async def test_a_trickle_is_no_answer(before: bytes, drop: bytes) -> None:
    """It may take as long as a request may, all together, and the connection is dropped."""
    gone = asyncio.Event()

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await question(reader)
        if number > 1:
            writer.write(GOOD)
            return
        writer.write(before)
        try:
            while True:
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with raw(serve) as port, endpoint(port, request_timeout=0.3) as asked:
        reply = await ask(asked)
        await asyncio.wait_for(gone.wait(), 10)
    assert reply.text == "right" and reply.attempts >= 2


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (b"", "closed the connection before its answer was complete: look at the server's log"),
        (BROKEN["half a head"], "closed the connection before its answer was complete"),
        (BROKEN["shorter than it says"], "closed the connection before its answer was complete"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not HTTP .*is --embed-endpoint right.* begins with https://"),
        (BROKEN["another coding"], r"encoding that was not asked for \('br'\)"),
        (BROKEN["html as json"], "HTML instead of JSON: is .* usually ends in /v1"),
    ],
)
async def test_what_is_said_of_it(form: bytes, says: str) -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await question(reader)
        writer.write(form)
        await writer.drain()

    async with raw(serve) as port, endpoint(port, max_attempts=1, role=EMBEDDINGS) as asked:
        with pytest.raises(answers.EndpointError, match=says):
            await ask(asked)


async def test_tls_where_there_is_none_and_a_certificate_that_nobody_knows(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 No\r\n\r\n")
        writer.close()

    for context, says in ((None, "does it speak TLS"), (certificate(tmp_path), "set SSL_CERT_FILE")):
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server, Endpoint(url, model="m", api_key=None, max_attempts=1) as asked:
            with pytest.raises(EndpointUnreachable, match=says):
                await ask(asked)


async def test_a_connection_that_is_closed_as_we_ask_is_no_fault() -> None:
    """The server takes the second question on a connection and closes it without a word."""
    told: list[str] = []
    asked_on: list[int] = []

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await question(reader)
        asked_on.append(number)
        writer.write(GOOD)
        await question(reader)
        asked_on.append(number)
        if number == 1:
            reset(writer)
        else:
            writer.write(GOOD)

    async with raw(serve) as port, endpoint(port, on_retry=told.append) as asked:
        for _ in range(2):
            assert (await ask(asked)).attempts == 1
    assert asked_on == [1, 1, 2] and not told


async def test_a_kept_connection_that_breaks_again_and_again_is_a_fault() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await question(reader)
        if number == 1:
            writer.write(GOOD)
            await question(reader)
        reset(writer)

    async with raw(serve) as port, endpoint(port, max_attempts=2) as asked:
        await ask(asked)
        with pytest.raises(EndpointUnreachable, match=r"\(2 tries\)"):
            await ask(asked)


async def test_a_bomb_that_is_packed_twice_does_not_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.sender.MAX_ANSWER_BYTES", 1 << 20)
    bomb = gzip.compress(b" " * (30 << 20))
    async with (
        scripted(packed(bomb, "gzip"), packed(gzip.compress(bomb), "gzip,gzip"), GOOD) as server,
        connect(server) as endpoint,
    ):
        assert (await ask(endpoint)).attempts == 3


@pytest.mark.parametrize("status", ["300 Many", "304 Not Modified", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_neither_key_nor_question_follows_a_redirect(status: str) -> None:
    async with scripted(GOOD) as other:
        there = answer(b"", status, Location=other.url + "/chat/completions")
        async with scripted(there) as server, connect(server) as asked:
            with pytest.raises(EndpointMisbehaves, match=f"to {other.url}.* give the final address as --endpoint"):
                await ask(asked)
    assert not other.connections


@pytest.mark.parametrize("location", [None, "", "//[", "http://[::1", "/elsewhere", "http://h:99999/", "\xff\xfe"])
async def test_redirects_to_nowhere(location: str | None) -> None:
    lines = ["Content-Length: 0", *([] if location is None else [f"Location: {location}"])]
    async with scripted(head(*lines, status="HTTP/1.1 302 Found")) as server, connect(server) as asked:
        with pytest.raises(EndpointMisbehaves, match="a redirect: redirects are not followed"):
            await ask(asked)


@pytest.mark.parametrize(
    ("count", "read"),
    [(7, 7), (7.0, 7), ("7", 0), (-1, 0), (True, 0), (None, 0), ([], 0), (2**31, 0), (10**30, 0), (float("nan"), 0)],
)
async def test_counts_fit_a_database(count: Any, read: int) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count}
    async with scripted(chat("right", usage=usage)) as server, connect(server) as asked:
        reply = await ask(asked)
    assert (reply.prompt_tokens, reply.completion_tokens) == (read, read) and type(reply.prompt_tokens) is int


@pytest.mark.parametrize("name", [5, None, ["m"], "", "x" * (1 << 20), "a\nb", "\x1b[31m", "\ud800"])
async def test_a_model_that_names_itself_oddly_has_the_name_that_was_asked_for(name: Any) -> None:
    vector = answer({"data": [{"embedding": [1]}], "model": name})
    async with scripted(chat(model=name), vector) as server, connect(server) as asked:
        assert (await ask(asked)).model == "m"
        assert (await asked.embed_text("x", key="k")).model == "m"


async def test_lists_of_models_that_are_odd() -> None:
    names = [{"id": 5}, "m", None, {"id": "a\nb"}, {"id": "x" * 1000}, {"name": "y"}, {"id": "good"}]
    async with scripted(answer({"data": names})) as server, connect(server, model=None) as asked:
        assert await asked.resolve_model() == "good"
    many = answer({"data": [{"id": f"model-{n}"} for n in range(50_000)]})
    async with scripted(many) as server, connect(server, model="nodel-7") as asked:
        with pytest.raises(ModelUnknown, match=r"give one of model-7, .* and 49992 more as --model$"):
            await asked.resolve_model()
    async with scripted(many) as server, connect(server, model="model-49999") as asked:
        assert await asked.resolve_model() == "model-49999"


def coded(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("embedding", "values"),
    [([0, 0.0], [0, 0]), ([[1, 2]], [1, 2]), (coded(1, -2.5), [1, -2.5]), ([1e-50, 3e38], [0, np.float32(3e38)])],
)
async def test_embeddings_in_all_forms(embedding: Any, values: list[float]) -> None:
    async with scripted(answer({"data": [{"embedding": embedding}]})) as server, connect(server) as asked:
        vector = await asked.embed_text("x", key="k")
    assert vector.values.tolist() == values and vector.values.dtype == np.float32 and vector.attempts == 1


@pytest.mark.parametrize(
    ("embedding", "says"),
    [
        ([[1, 2], [3, 4]], "each token .*switch the server's pooling on"),
        ([1] * 1_000_000, "1,000,000 numbers.*at most 65,536"),
        (coded(float("nan")), "NaN"),
        (coded(1) + "=", "base64"),
        ("", "not a list"),
    ],
)
async def test_what_is_no_embedding_says_why(embedding: Any, says: str) -> None:
    odd = answer({"data": [{"embedding": embedding}]})
    async with scripted(odd) as server, connect(server, max_attempts=1) as asked:
        with pytest.raises(EndpointMisbehaves, match=says):
            await asked.embed_text("x", key="k")


async def test_embeddings_of_another_width_are_not_taken() -> None:
    two, three = (answer({"data": [{"embedding": [1.0] * width}]}) for width in (2, 3))
    async with scripted(two, three, two, three) as server, connect(server, max_attempts=2) as asked:
        assert (await asked.embed_text("x", key="k")).values.size == 2
        assert (await asked.embed_text("y", key="l")).attempts == 2
        with pytest.raises(
            EndpointMisbehaves, match=r"3 numbers, after one of 2 \(2 tries\): name an --embed-model whose"
        ):
            await asked.embed_text("z", key="n")


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ({"beta": 14, "threshold": 0.5}, {"beta": 14.0, "threshold": 0.5}),
        ({"beta": "14", "threshold": True}, {}),
        ({"beta": float("nan"), "threshold": 1.5}, {}),
        ({"beta": 10**400, "threshold": -0.5}, {}),
        (None, {}),
    ],
)
def test_constants_of_a_model(told: Any, read: dict[str, float]) -> None:
    body = json.dumps({"data": [5, {"id": "m", "partita": told}]}).encode()
    assert answers.read_constants(body, "m") == read
    assert answers.read_constants(b'{"data": 5}', "m") == {}


async def test_errors_of_all_kinds_are_one_line() -> None:
    bodies: list[Any] = [
        {"error": [1]}, {"error": {"message": {"a": 1}}}, {"detail": [{"msg": "x"}]}, [1], "x", None,
        b"\xff\xfe\0\0", b"\x1b]0;title\x07" * 99, {"error": "\ud800\0\u202e" + "y " * 900}, b"[" * 100_000,
        b"x" * (2 << 20),
    ]  # fmt: skip
    for body in bodies:
        async with scripted(answer(body, "400 No")) as server, connect(server) as asked:
            with pytest.raises(answers.EndpointError) as caught:
                await ask(asked)
        line = str(caught.value)
        assert line.isprintable() and line.encode() and len(line) < 500
