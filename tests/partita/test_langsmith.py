"""LangSmith's tracing works when its variables are set, sends nothing otherwise, and neither keys nor images ever."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.partita.receiver import Receiver, receiving
from tests.partita.test_secrets import KEEPS, KEY, Echo, echoing
from tests.partita.test_sessions import run
from tests.truth import Truth, numbers, serving

LANGSMITH_KEY = "ls-canary-0123456789"
OTHERS = {"OPENAI_API_KEY": "openai-canary-0123", "PARTITA_EMBED_API_KEY": "embed-canary-0123"}


@pytest.fixture
def smith() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def variables(smith: Receiver, tracing: str) -> dict[str, str]:
    said = {"LANGSMITH_ENDPOINT": smith.url, "LANGSMITH_API_KEY": LANGSMITH_KEY, "LANGSMITH_TRACING": tracing}
    return said | OTHERS


def runs(smith: Receiver) -> list[dict[str, Any]]:
    """The runs that arrived, each put together from its parts."""
    found: dict[str, dict[str, Any]] = {}
    for path, headers, body in smith.got:
        if path != "/runs/multipart":
            continue
        boundary = re.search("boundary=(.+)", headers["content-type"])
        assert boundary is not None
        for part in body.split(b"--" + boundary[1].encode())[1:-1]:
            head, payload = part.strip(b"\r\n").split(b"\r\n\r\n", 1)
            name = re.search(rb'name="(?:post|patch)\.([^".]+)\.?([^"]*)"', head)
            assert name is not None
            one = found.setdefault(name[1].decode(), {})
            one |= {name[2].decode(): json.loads(payload)} if name[2] else json.loads(payload)
    return list(found.values())


@pytest.mark.parametrize("policy", ["evidence", "paper"])
def test_runs_arrive_without_keys_images_or_names(cli, tmp_path, smith, policy):
    with serving(Truth(numbers(30, 3), key="chat-canary-0123")) as truth:
        folder = truth.write(tmp_path / "c")
        key = {"PARTITA_API_KEY": truth.key}
        done = cli(*run(folder, truth, policy=policy), **key, **variables(smith, "true"))
    assert done.code == 0, done.err
    arrived = runs(smith)
    assert all(one.get("end_time") and not one.get("error") for one in arrived)
    (root,) = (one for one in arrived if not one.get("parent_run_id"))
    assert root["name"] == "partita session" and root["outputs"]["clusters"] == 3
    names = {one["name"] for one in arrived}
    assert {"describe", "relate", "traverse", "unite", "conclude", "assess", "partita merge"} <= names
    for word in (b"canary", b"data:image", b"images/", b"They agree", b"kind ax"):
        assert word not in smith.bodies
    for picture in (folder / "images").iterdir():
        assert base64.b64encode(picture.read_bytes())[100:160] not in smith.bodies
    assert {headers.get("x-api-key") for _, headers, _ in smith.got} == {LANGSMITH_KEY}


@pytest.mark.parametrize("tracing", ["", "false"])
def test_nothing_is_sent_otherwise(cli, tmp_path, smith, tracing):
    with serving(Truth(numbers(12, 3))) as truth:
        folder = truth.write(tmp_path / "c")
        assert cli(*run(folder, truth), **variables(smith, tracing)).code == 0
    assert cli("trace", "s", **variables(smith, tracing)).code == 0
    assert smith.got == []


def test_a_failure_is_told_without_the_key(cli, tmp_path, smith, monkeypatch):
    """The endpoint says the key back in the error that ends the session."""
    monkeypatch.setattr(Echo, "do_POST", lambda self: self.say(401, {"error": {"message": f"not {self.sent()}"}}))
    truth = Truth(numbers(12, 3))
    folder = truth.write(tmp_path / "c")
    with echoing(truth) as url:
        words = ("run", folder, "--by", "kind", "--endpoint", url, "--model", "echo", "--session", "s")
        done = cli(*words, **variables(smith, "true") | {"PARTITA_API_KEY": KEY})
    assert done.code == 4, done.err
    (root,) = (one for one in runs(smith) if not one.get("parent_run_id"))
    assert "EndpointRefused" in root["error"]
    for form in (*KEEPS, "canary"):
        assert form.encode() not in smith.bodies
