"""The built-in server over real sockets, with a model that has no weights."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from serving.batching import Batcher, Verb
from serving.client import Endpoint
from serving.probe import concludes, probe
from serving.server import base_url, build_app, listen, load_model, run_server, uvicorn_server
from storage.errors import UsageError
from tests.serving.fake_model import FakeModel
from tests.serving.scripted import HTML, MODELS, chat, error, scripted

ROOT = Path(__file__).parents[2]
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@asynccontextmanager
async def serving(model: FakeModel, **options: Any) -> AsyncIterator[str]:
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn_server(build_app(model, **options))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield base_url(listener)
        finally:
            model.gate.set()
            server.should_exit = True
            await running


@asynccontextmanager
async def official(url: str, key: str = "none") -> AsyncIterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)
    try:
        yield client
    finally:
        await client.close()


async def say(client: openai.AsyncOpenAI, text: str, **more: Any) -> str:
    answer = await client.chat.completions.create(
        model="fake-vlm",
        messages=[{"role": "user", "content": [{"type": "text", "text": text}, PIXEL]}],  # type: ignore[list-item]
        **more,
    )
    return answer.choices[0].message.content or ""


async def entered(model: FakeModel) -> None:
    assert await asyncio.to_thread(model.entered.wait, 20)


async def waiting(url: str, count: int) -> None:
    """Until `count` requests wait for the model."""
    async with httpx.AsyncClient() as client, asyncio.timeout(20):
        while (await client.get(url.removesuffix("v1") + "health")).json()["waiting"] != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_official_client_is_at_home() -> None:
    async with serving(FakeModel()) as url, official(url) as client:
        (entry,) = (await client.models.list()).data
        assert entry.id == "fake-vlm"
        assert entry.model_dump()["partita"] == {
            "beta": 14.3,
            "threshold": 0.6,
            "embedding_width": 8,
            "criteria": ["color"],
        }
        answer = await client.chat.completions.create(model="fake-vlm", messages=[{"role": "user", "content": "red"}])
        assert answer.choices[0].message.content == "you said red <CONCLUSION> NO </CONCLUSION>"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None and answer.usage.total_tokens == 10
        async with httpx.AsyncClient() as plain:
            assert (await plain.get(url.removesuffix("v1") + "health")).json()["status"] == "ok"


async def test_our_client_embeds_a_conversation() -> None:
    messages = [{"role": "user", "content": "red"}, {"role": "assistant", "content": "Red. <embedding>"}]
    async with serving(FakeModel()) as url, Endpoint(url, model=None, api_key=None) as endpoint:
        vector = await endpoint.embed_messages(messages, key="k")
        assert vector.values.shape == (8,) and np.isclose(np.linalg.norm(vector.values), 1)
        body = {"model": "fake-vlm", "messages": messages, "encoding_format": "base64"}
        async with httpx.AsyncClient() as plain:
            coded = (await plain.post(url + "/embeddings", json=body)).json()["data"][0]["embedding"]
        assert np.array_equal(np.frombuffer(base64.b64decode(coded), dtype="<f4"), vector.values)


async def test_requests_that_wait_are_computed_together() -> None:
    model = FakeModel()
    async with serving(model, batch_size=4) as url, official(url) as client:
        model.gate.clear()
        first = asyncio.create_task(say(client, "first"))
        await entered(model)
        asking = [asyncio.create_task(say(client, f"{i}")) for i in range(6)]
        other = asyncio.create_task(say(client, "long", max_tokens=99))
        await waiting(url, 7)
        model.gate.set()
        said = await asyncio.gather(first, other, *asking)
    assert said[2:] == [f"you said {i} <CONCLUSION> NO </CONCLUSION>" for i in range(6)]
    assert sorted(len(asked) for _, asked in model.batches) == [1, 1, 2, 4]
    assert ("generate", ["long"]) in model.batches, "another bound is another batch"
    assert len(model.threads) == 1


async def test_chat_and_embeddings_have_batches_of_their_own() -> None:
    model = FakeModel()
    messages = [{"role": "user", "content": "e"}, {"role": "assistant", "content": "<embedding>"}]
    async with serving(model) as url, Endpoint(url, model="fake-vlm", api_key=None) as endpoint:
        await asyncio.gather(
            *(endpoint.embed_messages(messages, key=f"{i}") for i in range(4)),
            *(endpoint.chat(messages[:1], key=f"{i}", max_tokens=5, temperature=0, seed=None) for i in range(4)),
        )
    assert sum(len(asked) for verb, asked in model.batches if verb == "embed") == 4
    assert sum(len(asked) for verb, asked in model.batches if verb == "generate") == 4


async def test_a_bad_request_spoils_nobody_elses() -> None:
    model = FakeModel()
    async with serving(model, max_wait=0.2, batch_size=4) as url, official(url) as client:
        texts = ["a", "bad image", "crash", "b"]
        a, bad, crash, b = await asyncio.gather(*(say(client, text) for text in texts), return_exceptions=True)
    assert "said a" in str(a) and "said b" in str(b)
    assert isinstance(bad, openai.BadRequestError) and "can't read 'bad image'" in bad.message
    assert isinstance(crash, openai.InternalServerError) and "secret" not in crash.response.text


async def test_who_hangs_up_is_not_computed() -> None:
    model = FakeModel()
    async with serving(model) as url, official(url) as client, official(url) as leaving:
        model.gate.clear()
        first = asyncio.create_task(say(client, "first"))
        await entered(model)
        gone = asyncio.create_task(say(leaving, "gone"))
        stays = asyncio.create_task(say(client, "stays"))
        await waiting(url, 2)
        gone.cancel()
        await asyncio.wait([gone])
        await leaving.close()
        await waiting(url, 1)
        model.gate.set()
        await asyncio.gather(first, stays)
    assert [text for _, asked in model.batches for text in asked] == ["first", "stays"]


async def test_a_full_queue_says_come_back_later() -> None:
    model = FakeModel()
    async with serving(model, max_queue=2, batch_size=1) as url, official(url) as client:
        model.gate.clear()
        first = asyncio.create_task(say(client, "first"))
        await entered(model)
        queued = [asyncio.create_task(say(client, f"{i}")) for i in range(2)]
        await waiting(url, 2)
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as caught:
                await say(client, "one more")
            assert caught.value.response.headers["retry-after"] == "1"
        model.gate.set()
        assert len(await asyncio.gather(first, *queued)) == 3


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        (b"{", 400, None, "not JSON"),
        (b"[]", 400, None, "object"),
        (b"\xff", 400, None, "not JSON"),
        ({}, 400, "model", "'fake-vlm' is what is served"),
        ({"model": "gpt-4o", "messages": [USER]}, 404, "model", "'fake-vlm' does"),
        ({"messages": []}, 400, "messages", "at least one"),
        ({"messages": "x"}, 400, "messages", "list"),
        ({"messages": [3]}, 400, "messages[0]", "object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", "system"),
        ({"messages": [USER, {"role": "user"}]}, 400, "messages[1].content", "content parts"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "messages[0].content[0]", "image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages[0].content[0].text", "string"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}
                ]
            },
            400,
            "messages[0].content[0].image_url",
            "none is fetched",
        ),
        ({"messages": [USER], "stream": True}, 400, "stream", "not supported"),
        ({"messages": [USER], "n": 2}, 400, "n", "one choice"),
        ({"messages": [USER], "max_tokens": 0}, 400, "max_tokens", "from 1"),
        ({"messages": [USER], "max_completion_tokens": "9"}, 400, "max_completion_tokens", "from 1"),
        ({"messages": [USER], "temperature": 3}, 400, "temperature", "0 to 2"),
        ({"messages": [USER], "tools": [{"type": "function"}]}, 400, "tools", "not supported"),
    ],
)
async def test_bad_bodies(body: Any, status: int, param: str | None, says: str) -> None:
    if isinstance(body, dict) and body:
        body = {"model": "fake-vlm", **body}
    async with serving(FakeModel()) as url, httpx.AsyncClient() as client:
        got = await client.post(
            url + "/chat/completions", content=body if isinstance(body, bytes) else json.dumps(body).encode()
        )
    error = got.json()["error"]
    assert (got.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert says in error["message"]


async def test_other_requests_that_are_wrong() -> None:
    async with serving(FakeModel(), api_key="right") as url, httpx.AsyncClient() as client:
        for key in (None, "Bearer wrong", "right"):
            refused = await client.get(url + "/models", headers={"Authorization": key} if key else {})
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        client.headers["Authorization"] = "Bearer right"
        assert (await client.get(url + "/models")).status_code == 200
        text = await client.post(url + "/embeddings", json={"model": "fake-vlm", "input": "red"})
        assert text.status_code == 400 and "no text embeddings" in text.json()["error"]["message"]
        unfinished = await client.post(url + "/embeddings", json={"model": "fake-vlm", "messages": [USER]})
        assert unfinished.status_code == 400 and "<embedding>" in unfinished.json()["error"]["message"]
        nowhere = await client.get(url + "/nowhere")
        assert nowhere.status_code == 404 and "/v1/nowhere" in nowhere.json()["error"]["message"]
        verb = await client.get(url + "/chat/completions")
        assert verb.status_code == 405 and verb.json()["error"]["type"] == "invalid_request_error"


async def test_bodies_that_are_too_large() -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        for _ in range(33):
            yield b" " * (1 << 20)

    async with serving(FakeModel()) as url, httpx.AsyncClient(timeout=30) as client:
        announced = await client.post(url + "/chat/completions", content=b" " * ((32 << 20) + 1))
        chunked = await client.post(url + "/chat/completions", content=in_chunks())
    for refused in (announced, chunked):
        assert refused.status_code == 413 and "32 MB" in refused.json()["error"]["message"]


def test_where_a_server_can_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127.0.0.1:{port} can't be listened on \(Address.*--port"):
            run_server(port=port)
    with pytest.raises(UsageError, match="set PARTITA_API_KEY"):
        run_server(host="0.0.0.0")
    for host, port in (("no.such.host.invalid", 8000), ("127.0.0.1", 99999), ("192.0.2.1", 8000)):
        with pytest.raises(UsageError, match=r"127\.0\.0\.1|--port"):
            run_server(host=host, port=port, api_key="k")


def test_the_local_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    app = build_app(FakeModel())
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match=r"pip install 'partita\[local\]'"):
        uvicorn_server(app)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    monkeypatch.delitem(sys.modules, "serving.app")
    with pytest.raises(UsageError, match=r"pip install 'partita\[local\]'"):
        build_app(FakeModel())


def test_models_that_can_not_be_loaded(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match=r"no model folder at .*nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no model that can be read: config.json is missing"):
        load_model(tmp_path)
    (tmp_path / "partita.json").write_text("{")
    with pytest.raises(UsageError, match=r"is damaged .*export it again"):
        load_model(tmp_path)


def test_run_server_says_where_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.server.load_model", lambda *_: FakeModel())
    served: list[socket.socket] = []
    monkeypatch.setattr("serving.server.serve", lambda app, listener: served.append(listener))
    said: list[str] = []
    run_server(port=0, say=said.append)
    assert said[0].startswith("fake-vlm answers at http://127.0.0.1:") and served[0].fileno() == -1


SERVE = """
import serving.server as server
from tests.serving.fake_model import FakeModel

server.load_model = lambda *_: {model}
import partita.__main__
partita.__main__.main()
"""


@contextmanager
def process(model: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`partita serve` as a user starts it, but for the model; killed at the end of the block if it still runs."""
    command = [sys.executable, "-c", SERVE.format(model=model), "serve", "--port", "0", *more]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("times", [1, 3])
def test_a_server_that_is_asked_to_stop_has_done_well(how: signal.Signals, times: int) -> None:
    with process("FakeModel()") as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        assert httpx.get(url.removesuffix("v1") + "health", timeout=20).status_code == 200
        for _ in range(times):
            server.send_signal(how)
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_asked_to_stop_while_it_loads_has_done_well(how: signal.Signals) -> None:
    with process("print('loading', flush=True) or __import__('time').sleep(60)") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "loading\n"
        server.send_signal(how)
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, "", "")


async def test_the_probe_finds_what_an_endpoint_can_do() -> None:
    async with serving(FakeModel()) as url, Endpoint(url, model=None, api_key=None) as endpoint:
        report = await probe(endpoint, endpoint, membership="Same?")
        findings = {finding.name: finding for finding in report.findings}
    assert findings["chat endpoint: model"].detail == "fake-vlm, partita"
    for name in ("chat with one image", "chat with several images", "conclusion", "latency"):
        assert findings[name].ok, findings[name]
    assert findings["embeddings of a conversation"].ok and findings["embeddings of a text"].ok is None
    assert findings["embeddings of a text"].detail == "not offered; not needed with --embed-mode native"
    assert {name for name, finding in findings.items() if finding.essential} == {
        "chat endpoint", "chat endpoint: model", "chat with one image", "chat with several images", "conclusion",
        "embed mode",
    }  # fmt: skip
    assert findings["embed mode"].advice == "use --embed-mode native"


async def test_the_probe_reports_faults() -> None:
    async with (
        scripted(error("401 No")) as refusing,
        scripted(MODELS, MODELS, error("400 No"), HTML) as odd,
        Endpoint(refusing.url, model=None, api_key=None, max_attempts=1) as first,
        Endpoint(odd.url, model=None, api_key=None, max_attempts=1) as second,
    ):
        findings = {finding.name: finding for finding in (await probe(first, second)).findings}
    assert findings["chat endpoint"].ok is False and "PARTITA_API_KEY" in findings["chat endpoint"].advice
    assert findings["chat with one image"].ok is None
    assert findings["embedding endpoint"].ok and findings["embed mode"].ok is False
    assert findings["embeddings of a conversation"].ok is findings["embeddings of a text"].ok is False
    assert findings["embed mode"].essential and findings["chat endpoint"].essential


async def test_the_probe_sees_a_model_that_never_concludes() -> None:
    async with (
        scripted(MODELS, MODELS, chat("who knows")) as server,
        Endpoint(server.url, model=None, api_key=None, max_attempts=1) as endpoint,
    ):
        findings = {finding.name: finding for finding in (await probe(endpoint, endpoint)).findings}
    assert findings["chat with several images"].ok and findings["conclusion"].ok is False


@pytest.mark.parametrize(
    ("reply", "clear"),
    [
        ("Both red. <CONCLUSION> YES </CONCLUSION>\n", True),
        ("<conclusion>no</conclusion>", True),
        ("<CONCLUSION> YES </CONCLUSION> or <CONCLUSION> NO </CONCLUSION>", False),
        ("<CONCLUSION> NO </CONCLUSION>, I think.", False),
        ("<CONCLUSION> PERHAPS </CONCLUSION>", False),
        ("YES", False),
    ],
)
def test_a_clear_conclusion(reply: str, clear: bool) -> None:
    assert concludes(reply) is clear


async def test_the_caller_says_what_a_conclusion_is_and_slow_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.probe.SLOW", 0.0)
    seen: list[str] = []

    def never(reply: str) -> bool:
        seen.append(reply)
        return False

    async with serving(FakeModel()) as url, Endpoint(url, model=None, api_key=None) as endpoint:
        report = await probe(endpoint, endpoint, concludes=never)
        findings = {finding.name: finding for finding in report.findings}
    assert findings["conclusion"].ok is False and "<CONCLUSION> NO" in seen[0]
    assert findings["latency"].ok is None and findings["latency"].advice


async def test_a_batcher_that_fails_tells_all_who_wait_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with Batcher(FakeModel()) as batcher, asyncio.timeout(20):
        take, verb = batcher._take, Verb("generate", 5)

        def broken(batch: Any) -> None:
            take(batch)
            if batch:
                batcher._take = take  # type: ignore[method-assign]
                raise OverflowError("odd")

        batcher._take = broken  # type: ignore[method-assign]
        asked = [batcher.submit(verb, [{"role": "user", "content": f"{i}"}]) for i in range(3)]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, RuntimeError) and "odd" in str(outcome)
        again = await batcher.submit(verb, [{"role": "user", "content": "again"}])
    assert again.text.startswith("you said again") and "OverflowError" in caplog.text
