"""What is known of an endpoint, and how it is asked for that."""

from __future__ import annotations

import hashlib
import re

import pytest

from serving.abilities import PATTERN, Abilities, look
from serving.client import Endpoint
from serving.images import image_part, text_part
from tests.serving.pretended import Server
from tests.serving.scripted import Scripted, scripted


def connect(server: Scripted) -> Endpoint:
    return Endpoint(server.url, model=None, api_key=None)


QUESTION = [{"role": "user", "content": [text_part("same?"), image_part(b"one"), image_part(b"two")]}]


async def ask(endpoint: Endpoint, pattern: str | None) -> None:
    await endpoint.chat(QUESTION, key="k", max_tokens=9, temperature=0, seed=None, pattern=pattern)


async def test_an_unknown_server_is_asked_for_its_models_only() -> None:
    async with scripted(Server(models=("a", "b"))) as server, connect(server) as endpoint:
        assert await look(endpoint) == Abilities(models=("a", "b"))
        assert [asked.path for asked in server.asked] == ["/v1/models"]
        await ask(endpoint, "x*")
    body = server.asked[-1].body
    assert body.keys() == {"model", "messages", "max_tokens", "temperature"}
    assert all("uuid" not in part for part in body["messages"][0]["content"])


async def test_vllm_is_held_to_a_form_and_knows_images_by_their_identity() -> None:
    async with scripted(Server(owner="vllm", longest=4096)) as server, connect(server) as endpoint:
        can = await look(endpoint)
        assert can == Abilities("vllm", ("m",), 4096, constrains=True, identifies=True)
        await ask(endpoint, "x*")
        await ask(endpoint, None)
    models, tiny, first, second = server.asked
    assert models.path == "/v1/models"
    assert tiny.body["structured_outputs"] == {"regex": PATTERN} and tiny.body["max_tokens"] <= 64
    assert first.body["structured_outputs"] == {"regex": "x*"} and "structured_outputs" not in second.body
    parts = first.body["messages"][0]["content"]
    assert [part.get("uuid") for part in parts] == [
        None, hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest(),
    ]  # fmt: skip
    assert parts == second.body["messages"][0]["content"]


@pytest.mark.parametrize("server", [Server(owner="vllm", obeys=False), Server(owner="partita"), Server(owner="x")])
async def test_no_form_where_none_is_kept(server: Server) -> None:
    async with scripted(server) as running, connect(running) as endpoint:
        assert not (await look(endpoint)).constrains
        await ask(endpoint, "x*")
    assert "structured_outputs" not in running.asked[-1].body


async def test_an_embedding_endpoint_is_asked_no_question() -> None:
    async with scripted(Server(owner="vllm")) as server, connect(server) as endpoint:
        can = await look(endpoint, constrain=False)
    assert can.identifies and not can.constrains and len(server.asked) == 1


def test_the_tiny_question_is_answered_by_what_it_is_held_to() -> None:
    assert re.fullmatch(PATTERN, "<CONCLUSION> NO </CONCLUSION>")
