"""The client against an endpoint that misbehaves, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import serving.client
import serving.retries
import serving.sender
from agents.conclusions import Conclusion, read_conclusions
from serving import answers
from serving.answers import one_line
from serving.client import Endpoint
from storage.errors import (
    EndpointError,
    EndpointMisbehaves,
    EndpointRefused,
    EndpointUnreachable,
    ModelUnknown,
    RequestRejected,
    UsageError,
)
from tests.serving.scripted import HANG, HTML, MODELS, RESET, Asked, Scripted, answer, chat, error, scripted

CANARY = "sk-canary-0123456789"
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "is it?"}]


@pytest.fixture(autouse=True)
def quick_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.retries, "BACK_OFF", 0.001)
    monkeypatch.setattr(serving.retries, "QUICK_BACK_OFF", 0.001)


@pytest.fixture(autouse=True, params=["wire", "stock"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All holds with the transport for plain HTTP as with httpx's own."""
    if request.param == "stock":
        monkeypatch.setattr(serving.sender.Sender, "_transport", lambda *_: None)


def connect(server: Scripted, **more: Any) -> Endpoint:
    return Endpoint(server.url, **({"model": "m", "api_key": CANARY} | more))


async def ask(endpoint: Endpoint, key: str = "k1") -> serving.client.Reply:
    return await endpoint.chat(QUESTION, key=key, max_tokens=64, temperature=0.2, seed=7)


async def test_a_question_and_its_answer() -> None:
    async with scripted(chat("It is. <CONCLUSION> YES </CONCLUSION>")) as server, connect(server) as endpoint:
        reply = await ask(endpoint)
    assert (reply.text, reply.model) == ("It is. <CONCLUSION> YES </CONCLUSION>", "m")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.attempts) == (11, 5, 1)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["idempotency-key"] == "k1"
    assert asked.headers["authorization"] == f"Bearer {CANARY}"
    assert asked.body == {"model": "m", "messages": QUESTION, "max_tokens": 64, "temperature": 0.2, "seed": 7}


FAULTS = {
    "429": error("429 Too Many Requests", "slow down", Retry_After="0"),
    "500": error("500 Internal Server Error"),
    "503 html": answer(b"<html>", "503 Service Unavailable", "text/html"),
    "408": error("408 Request Timeout"),
    "409": error("409 Conflict"),
    "html": HTML,
    "text": answer(b"all is well", kind="text/plain"),
    "half a json": answer(b'{"choices": [{"mess'),
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\nConnection: close\r\n\r\n{",
    "not an object": answer([1, 2]),
    "empty": answer(b""),
    "no choices": answer({"choices": []}),
    "no message": answer({"choices": [{}]}),
    "error with 200": answer({"error": {"message": "overloaded"}}),
    "deep": answer(b"[" * 200_000),
    "bad gzip": answer(b"not gzip", Content_Encoding="gzip"),
    "reset": RESET,
    "nonsense": b"SSH-2.0-OpenSSH_9.6\r\n\r\nConnection: close",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_fault_is_retried_with_the_same_key(fault: bytes) -> None:
    told: list[str] = []
    async with scripted(fault, fault, chat()) as server, connect(server, on_retry=told.append) as endpoint:
        reply = await ask(endpoint)
    assert (reply.text, reply.attempts) == ("yes", 3)
    assert [asked.headers["idempotency-key"] for asked in server.asked] == ["k1"] * 3
    assert server.asked[0].body == server.asked[2].body
    assert told and all("\n" not in line for line in told)
    assert "(try 2 of 6)" in told[0]
    assert len(told) == 1 or "at a time" in told[1]  # a kind of fault is told of once in a while


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (FAULTS["429"], EndpointUnreachable, r"429 \(slow down\) \(6 tries\): lower --concurrency"),
        (FAULTS["500"], EndpointUnreachable, "500"),
        (HTML, EndpointMisbehaves, "HTML instead of JSON .*usually ends in /v1"),
        (FAULTS["no choices"], EndpointMisbehaves, "without choices"),
        (FAULTS["error with 200"], EndpointMisbehaves, "overloaded"),
        (RESET, EndpointUnreachable, "connection"),
    ],
)
async def test_six_faults_in_a_row_are_the_end(fault: bytes, kind: type[Exception], says: str) -> None:
    async with scripted(fault) as server, connect(server) as endpoint:
        with pytest.raises(kind, match=says) as caught:
            await ask(endpoint)
    assert len(server.asked) == 6
    assert "\n" not in str(caught.value) and server.url in str(caught.value)


async def test_silence_is_a_fault() -> None:
    async with scripted(HANG, chat()) as server, connect(server, request_timeout=0.2) as endpoint:
        assert (await ask(endpoint)).attempts == 2
    async with scripted(HANG) as server, connect(server, request_timeout=0.05, max_attempts=2) as endpoint:
        with pytest.raises(EndpointUnreachable, match=r"no answer within 0.05 s \(2 tries\): raise --request-timeout"):
            await ask(endpoint)


async def test_an_answer_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.sender, "MAX_ANSWER_BYTES", 1 << 20)
    flood = answer(b" " * (10 << 20))
    bomb = answer(gzip.compress(b" " * (40 << 20)), Content_Encoding="gzip")
    async with scripted(flood, bomb, chat()) as server, connect(server) as endpoint:
        assert (await ask(endpoint)).attempts == 3


async def test_ten_megabytes_are_read_and_cut() -> None:
    said = "<CONCLUSION> YES </CONCLUSION>"
    async with scripted(chat(said + "x" * (10 << 20) + said)) as server, connect(server) as endpoint:
        text = (await ask(endpoint)).text
    assert len(text) < 1 << 17 and text.endswith(serving.client.CUT)
    assert read_conclusions(text).conclusions == (Conclusion.UNKNOWN,)
    longest = "x" * 64 * 1024
    async with scripted(chat(longest)) as server, connect(server) as endpoint:
        assert (await ask(endpoint)).text == longest


@pytest.mark.parametrize(
    ("refusal", "kind", "says"),
    [
        (error("401 Unauthorized", f"bad key {CANARY}"), EndpointRefused, r"bad key \*\*\*.*PARTITA_API_KEY"),
        (error("403 Forbidden"), EndpointRefused, "PARTITA_API_KEY"),
        (error("404 Not Found", "The model `m` does not exist."), ModelUnknown, "--model"),
        (answer(b"<html>", "404 Not Found", "text/html"), EndpointMisbehaves, "usually ends in /v1"),
        (error("400 Bad Request", "context too long"), RequestRejected, "context too long"),
        (error("413 Payload Too Large"), RequestRejected, "413"),
        (error("422 Unprocessable", "x\ny"), RequestRejected, "x y"),
        (
            error("302 Found", Location="https://else.where/login?t=1"),
            EndpointMisbehaves,
            "to https://else.where/login:",
        ),
        (
            answer({"error": {"message": "spent", "code": "insufficient_quota"}}, "429 Too Many Requests"),
            EndpointRefused,
            "quota",
        ),
    ],
)
async def test_a_refusal_is_final(refusal: bytes, kind: type[Exception], says: str) -> None:
    async with scripted(refusal) as server, connect(server) as endpoint:
        with pytest.raises(kind, match=says) as caught:
            await ask(endpoint)
    assert len(server.asked) == 1
    assert "\n" not in str(caught.value)


async def test_the_status_of_a_rejection_is_kept() -> None:
    async with scripted(error("422 No")) as server, connect(server) as endpoint:
        with pytest.raises(RequestRejected) as caught:
            await ask(endpoint)
    assert caught.value.status == 422


async def test_redirects_are_not_followed() -> None:
    async with scripted(chat()) as other:
        elsewhere = error("307 Temporary Redirect", Location=other.url)
        async with scripted(elsewhere) as server, connect(server) as endpoint:
            with pytest.raises(EndpointMisbehaves, match="final address"):
                await ask(endpoint)
    assert other.asked == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ([{"type": "text", "text": "a"}, {"type": "other"}, {"type": "text", "text": "b"}], "ab"),
        ("nul\0 and \ud800", "nul� and ?"),
    ],
)
async def test_odd_contents(content: Any, text: str) -> None:
    async with scripted(chat(content)) as server, connect(server) as endpoint:
        assert (await ask(endpoint)).text == text


async def test_an_answer_without_counts_or_names() -> None:
    async with scripted(chat(usage=None, model=None)) as server, connect(server) as endpoint:
        reply = await ask(endpoint)
    assert (reply.model, reply.prompt_tokens, reply.completion_tokens) == ("m", 0, 0)


@pytest.mark.parametrize(
    ("details", "cached"),
    [({"cached_tokens": 8}, 8), ({"cached_tokens": 80}, 11), ({"cached_tokens": "8"}, 0), ({}, 0), (None, 0), ([8], 0)],
)
async def test_what_the_endpoint_had_in_its_cache(details: Any, cached: int) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": details}
    async with scripted(chat(usage=usage)) as server, connect(server) as endpoint:
        assert (await ask(endpoint)).cached_tokens == cached


async def test_no_more_than_concurrency_at_once() -> None:
    async with scripted(chat()) as server, connect(server, concurrency=3) as endpoint:
        server.hold = asyncio.Barrier(3)  # opens only for three at once
        await asyncio.gather(*(ask(endpoint, f"k{i}") for i in range(9)))
    assert server.most_at_once == 3
    assert sorted(asked.headers["idempotency-key"] for asked in server.asked) == [f"k{i}" for i in range(9)]


async def test_embeddings_of_text_and_of_a_conversation() -> None:
    vector = answer({"data": [{"embedding": [0.5, -1, 2]}], "model": "e", "usage": {"prompt_tokens": 4}})
    async with scripted(vector) as server, connect(server) as endpoint:
        text = await endpoint.embed_text("a red card", key="t")
        native = await endpoint.embed_messages(QUESTION, key="n")
    assert text.values.tolist() == [0.5, -1, 2] and text.values.dtype == "float32"
    assert (native.model, native.prompt_tokens) == ("e", 4)
    first, second = server.asked
    assert first.body == {"model": "m", "input": "a red card"} and first.headers["idempotency-key"] == "t"
    assert second.path == "/v1/embeddings" and second.body == {
        "model": "m",
        "messages": QUESTION,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


@pytest.mark.parametrize(
    "embedding",
    [
        None,
        [],
        [[1.0], [2.0]],
        ["a"],
        ["1"],
        [True],
        [10**400],
        [1e39],
        "AAA",
        "AAAAAAA=",
        [[1], [2, 3]],
        5,
        [float("nan")],
        [None],
        {"a": 1},
    ],
)
async def test_no_embedding_is_a_fault(embedding: Any) -> None:
    odd, good = answer({"data": [{"embedding": embedding}]}), answer({"data": [{"embedding": [1]}]})
    async with scripted(odd, good) as server, connect(server) as endpoint:
        assert (await endpoint.embed_text("x", key="k")).attempts == 2


async def test_the_first_model_is_taken_where_none_is_named() -> None:
    async with scripted(MODELS, chat()) as server, connect(server, model=None) as endpoint:
        await asyncio.gather(*(ask(endpoint) for _ in range(3)))
        assert await endpoint.resolve_model() == "m"
    assert [asked.path for asked in server.asked].count("/v1/models") == 1
    assert "idempotency-key" not in server.asked[0].headers


async def test_a_model_that_is_not_there() -> None:
    async with scripted(MODELS) as server, connect(server, model="qwen-vl-70b") as endpoint:
        with pytest.raises(ModelUnknown, match=r"no model 'qwen-vl-70b': give one of qwen-vl-7b, m as --model"):
            await endpoint.resolve_model()


@pytest.mark.parametrize("reply", [error("404 Not Found"), error("405 No"), answer({"data": []})])
async def test_an_endpoint_without_a_list_of_models(reply: bytes) -> None:
    async with scripted(reply) as server:
        async with connect(server, model="mine") as endpoint:
            assert await endpoint.resolve_model() == "mine"
        async with connect(server, model=None) as endpoint:
            with pytest.raises(ModelUnknown, match="name a model with --model"):
                await endpoint.resolve_model()


async def test_nobody_listens() -> None:
    async with scripted(chat()) as server:
        pass
    async with connect(server, model=None) as endpoint:
        with pytest.raises(
            EndpointUnreachable, match=r"can't be reached \(Connect.*\(6 tries\): is the server running"
        ):
            await endpoint.resolve_model()


def test_waiting_is_bounded() -> None:
    refused = answers.Fault("x", "y", refused=True)
    assert sum(max(serving.retries._pause(n, refused) for _ in range(50)) for n in range(1, 6)) <= 3.2
    later = answers.Fault("x", "y", retry_after=3600.0)
    assert 60 <= serving.retries._pause(1, later) <= 61


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0.2", 0.2),
        ("7", 7),
        ("-3", 0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert answers.retry_after(header, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("status", ["429 Too Many", "503 Busy"])
async def test_retry_after_is_waited_for_by_the_whole_endpoint(status: str) -> None:
    busy = error(status, Retry_After="0.4")
    loop = asyncio.get_running_loop()
    async with scripted(busy, chat()) as server, connect(server, concurrency=1) as endpoint:
        began = loop.time()
        await asyncio.gather(*(ask(endpoint, f"k{n}") for n in range(3)))
        assert len(server.asked) == 4
        assert 0.4 <= loop.time() - began < 2
    async with scripted(error(status, Retry_After="41"), chat()) as server, connect(server) as endpoint:
        asking = asyncio.create_task(ask(endpoint))
        async with asyncio.timeout(5):
            while not endpoint._gate.limit.paused_until:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert 40 < endpoint._gate.limit.paused_until - loop.time() < 42
        asking.cancel()


async def test_retry_after_another_fault_is_waited_for_by_that_call_alone() -> None:
    async with scripted(error("500 No", Retry_After="2"), chat()) as server, connect(server) as endpoint:
        slow = asyncio.create_task(ask(endpoint, "slow"))
        await asyncio.sleep(0.05)
        assert (endpoint.in_flight, endpoint.limit) == (0, 32)
        await asyncio.gather(*(ask(endpoint, f"k{n}") for n in range(40)))
        assert not slow.done()
        assert (await slow).attempts == 2


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:8000", "ftp://x/v1", "http://", "http://[::1", "http://x:99999/v1", "http://u:canary@x/v1",
        "http://x/v1?key=canary", "http://" + "a" * 70 + ".com/v1",
    ],
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint(url, model="m", api_key=None)
    assert "canary" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["canary\nX-Evil: 1", "canary key", "canaryé"])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint("http://127.0.0.1:1/v1", model="m", api_key=key)
    assert "canary" not in str(caught.value)


async def test_without_a_key_none_is_sent_and_the_environment_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Mine: {CANARY}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://else.where/v1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with scripted(chat()) as server, connect(server, api_key=None) as endpoint:
        await ask(endpoint)
    assert CANARY not in json.dumps(server.asked[0].headers)


def _echo(server: Scripted, asked: Asked) -> bytes:
    """The worst a server can do with our key: say it back everywhere."""
    statuses = ["401 No", "500 No", "400 No", "404 No", "200 OK", "302 Found"]
    said = asked.headers["authorization"]
    return error(statuses[len(server.asked) % len(statuses)], f"you sent {said}")


@pytest.mark.parametrize("script", [_echo, HTML, RESET, HANG, FAULTS["nonsense"]])
async def test_the_key_is_in_no_error_log_or_repr(
    script: bytes | Callable[[Scripted, Asked], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    async with scripted(script) as server:
        options = {"max_attempts": 2, "request_timeout": 0.2, "on_retry": seen.append}
        async with connect(server, **options) as endpoint:
            for _ in range(6):
                try:
                    await ask(endpoint)
                except Exception as problem:  # noqa: BLE001
                    seen += [repr(problem), *traceback.format_exception(problem)]
            seen.append(repr(endpoint))
    seen += [f"{record.getMessage()} {record.args!r}" for record in caplog.records]
    assert len(seen) > 6
    assert CANARY not in "\n".join(seen)


@pytest.mark.parametrize("before", [150, 185, 190, 196, 199, 205])
@pytest.mark.parametrize("form", ["{}", "key={}", "”{}”"])
async def test_a_key_is_never_cut_in_two(before: int, form: str) -> None:
    said = ("word " * 60)[:before] + form.format(CANARY) + " more" * 40
    for refusal in (error("401 No", said), answer(said.encode(), "401 No", "text/plain")):
        async with (
            scripted(refusal) as server,
            Endpoint(server.url, model="m", api_key=CANARY, max_attempts=1) as endpoint,
        ):
            with pytest.raises(EndpointRefused) as caught:
                await endpoint.chat([], key="k", max_tokens=1, temperature=0, seed=None)
        assert CANARY[:4] not in str(caught.value) and len(str(caught.value)) < 400


def test_long_words_without_spaces_are_cut() -> None:
    assert one_line("密" * 300) == "密" * 199 + "…"
    assert one_line("x" * 300) == "…"
    assert one_line("a \n b\0") == "a b"


@pytest.mark.parametrize("refusal", ["500 Internal Server Error", "400 Bad Request", "422 Unprocessable Entity"])
async def test_a_server_that_takes_no_content_parts_gets_texts_as_one_text(refusal: str) -> None:
    texts = [{"type": "text", "text": words} for words in ("Describe.", "Item:", "a text")]

    def template(_: Scripted, asked: Asked) -> bytes:
        return chat("seen") if isinstance(asked.body["messages"][0]["content"], str) else error(refusal)

    async with scripted(template) as server, connect(server) as endpoint:
        for key in ("1", "2"):
            messages = [{"role": "user", "content": texts}]
            reply = await endpoint.chat(messages, key=key, max_tokens=5, temperature=0.0, seed=None)
            assert reply.text == "seen"
    tried = 2 if refusal.startswith("500") else 1  # a single 500 may be an accident
    assert [a.headers["idempotency-key"] for a in server.asked] == ["1"] * (tried + 1) + ["2"], "found out once"
    assert [type(a.body["messages"][0]["content"]) for a in server.asked] == [list] * tried + [str, str]
    assert server.asked[-1].body["messages"][0] == {"role": "user", "content": "Describe.\n\nItem:\n\na text"}


@pytest.mark.parametrize("fault", ["429 Too Many Requests", "503 Service Unavailable", "502 Bad Gateway", "500 Oops"])
async def test_a_fault_tells_nothing_of_the_form(fault: str) -> None:
    texts = [{"type": "text", "text": words} for words in ("Describe.", "Item:", "a text")]
    async with scripted(error(fault), chat("seen"), chat("seen")) as server, connect(server) as endpoint:
        for key in ("1", "2"):
            await endpoint.chat([{"role": "user", "content": texts}], key=key, max_tokens=5, temperature=0.0, seed=None)
    assert [type(a.body["messages"][0]["content"]) for a in server.asked] == [list] * 3


async def test_a_parameter_that_is_not_taken_is_no_matter_of_form() -> None:
    texts = [{"type": "text", "text": "Item:"}]

    def choosy(_: Scripted, asked: Asked) -> bytes:
        return chat("seen") if "max_tokens" not in asked.body else error("400 No", "'max_tokens' is not supported")

    async with scripted(choosy) as server, connect(server) as endpoint:
        await endpoint.chat([{"role": "user", "content": texts}], key="k", max_tokens=5, temperature=0.0, seed=None)
    assert [type(a.body["messages"][0]["content"]) for a in server.asked] == [list, list], "nothing asked in vain"


async def test_a_base_url_without_its_end_is_hinted_at() -> None:
    async with scripted(error("404 Not Found")) as server, Endpoint(server.url, model=None, api_key=None) as endpoint:
        with pytest.raises(ModelUnknown, match="usually ends in /v1"):
            await endpoint.resolve_model()


async def test_pictures_have_no_other_form_and_six_tries_are_six() -> None:
    texts = [{"type": "text", "text": "Item:"}]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

    async def tried(content: list[Any], answer: bytes) -> list[Any]:
        async with scripted(answer) as server, connect(server, max_attempts=6) as endpoint:
            with pytest.raises(EndpointError):
                messages = [{"role": "user", "content": content}]
                await endpoint.chat(messages, key="k", max_tokens=5, temperature=0.0, seed=None)
        return [type(a.body["messages"][0]["content"]) for a in server.asked]

    assert await tried([*texts, picture], error("400 No")) == [list]
    assert await tried(texts, error("400 No")) == [list, str]
    assert await tried(texts, error("500 No")) == [list, list, str] * 2
