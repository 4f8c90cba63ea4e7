"""An OpenAI-compatible endpoint that knows the truth about a world of ``benchmarks.evidence``, in a process of its own.

Items are numbers: a text ends with its number, a picture shows it as a grid of 16 light and dark cells. Embeddings are
the world's. Answers are true, wrong as often as the world says, and the same for the same question. Questions about
items (not descriptions, not embeddings) take about `latency` seconds, half as much more or less; the endpoint adds up
how long they take, which is what an endpoint that is never kept waiting would need.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import multiprocessing
import random
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image

from agents.conclusions import Conclusion
from benchmarks.evidence import Agent, World

MODEL = "truth"
REPLY = (
    "The representatives share one value under the criterion, as far as the pictures show it. The candidate {} that "
    "value when everything else is left aside. <CONCLUSION> {} </CONCLUSION>"
)
"""As long as a model's sentence or two (METHOD 4), so that the ledger's rows are of an honest size."""
SIDE = 64
"""Pixels of a picture, which has a few kilobytes as JPEG."""


def reply(conclusion: Conclusion) -> str:
    """What the agent says."""
    return REPLY.format("has" if conclusion is Conclusion.YES else "does not have", conclusion.value)


def sides(content: list[dict[str, Any]]) -> tuple[str, list[list[Any]]]:
    """What a question is (describe, membership, merge), and the items' parts that it shows, side by side."""
    shown: dict[str, list[Any]] = {}
    for label, part in zip(content[1::2], content[2::2], strict=True):
        shown.setdefault(re.split(r"[\d:,]", label["text"])[0].strip(), []).append(part)
    kind = "membership" if "Candidate" in shown else "merge" if len(shown) > 1 else "describe"
    return kind, list(shown.values())


def answered(agent: Agent, kind: str, shown: list[list[int]]) -> str:
    """The agent's reply to a question about numbered items."""
    match kind:
        case "describe":
            return f"It is item {shown[0][0]}."
        case "merge":
            return reply(agent.comparison(tuple(shown[0]), tuple(shown[1])))
        case _:
            representatives, candidates = shown
            return " ".join(reply(agent.membership(tuple(representatives), c)) for c in candidates)


@dataclass(frozen=True)
class Served:
    """A running endpoint."""

    url: str
    """Base URL."""

    def spent(self) -> dict[str, list[float]]:
        """[questions, seconds that they take in all] of each kind since this was last asked."""
        with urllib.request.urlopen(f"{self.url}/spent", timeout=30) as answer:
            spent: dict[str, list[float]] = json.loads(answer.read())
        return spent

    def seconds(self) -> float:
        """Seconds that all answers about items took since this was last asked."""
        return sum(seconds for _, seconds in self.spent().values())


@contextmanager
def serving(world: World, seed: int, latency: float = 0.0) -> Iterator[Served]:
    """The endpoint on a free port of loopback, as long as the block lasts."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(world, seed, latency, theirs), daemon=True)
    server.start()
    theirs.close()
    try:
        yield Served(f"http://127.0.0.1:{ours.recv()}/v1")
    finally:
        server.terminate()
        server.join()


def write_texts(folder: Path, items: int) -> Path:
    """A collection of so many texts."""
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps({"text": f"item {n}"}) + "\n" for n in range(items)))
    return path


def write_pictures(folder: Path, items: int) -> Path:
    """A collection of so many pictures."""
    path = folder / "pictures"
    path.mkdir()
    for n in range(items):
        (path / f"{n:05d}.png").write_bytes(picture(n))
    return path


def picture(number: int) -> bytes:
    """A picture that shows a number, as PNG."""
    bits = np.array([(number >> i) & 1 for i in range(16)]).reshape(4, 4)
    light = np.kron(bits, np.full((SIDE // 4, SIDE // 4), 120)) + 60
    grain = np.random.default_rng(number).integers(-30, 30, size=(SIDE, SIDE, 3))
    out = io.BytesIO()
    Image.fromarray((light[:, :, None] + grain).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def number_of(name: str) -> int:
    """The number of an item by the name that a session gives it."""
    return int(name.removeprefix("row ")) - 1 if name.startswith("row ") else int(Path(name).stem)


def _serve(world: World, seed: int, latency: float, told: Connection) -> None:
    """Run the endpoint; says its port when it listens."""
    kinds, embeddings = world.collection(seed)
    agent, chance = Agent(world, kinds, seed), random.Random(seed)
    spent: dict[str, list[float]] = {}
    numbers: dict[str, int] = {}

    def number(part: dict[str, Any]) -> int:
        if part["type"] == "text":
            return int(part["text"].split()[-1])
        url = part["image_url"]["url"]
        if url not in numbers:
            numbers[url] = _number_in(base64.b64decode(url.split(",", 1)[1]))
        return numbers[url]

    async def chat(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        kind, parts = sides(body["messages"][0]["content"])
        said = answered(agent, kind, [[number(part) for part in side] for side in parts])
        if kind != "describe":
            seconds = latency * chance.uniform(0.5, 1.5)
            count = spent.setdefault(kind, [0, 0.0])
            count[0], count[1] = count[0] + 1, count[1] + seconds
            if seconds:
                await asyncio.sleep(seconds)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return web.json_response(
            {
                "id": "c", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice],
                "usage": {"prompt_tokens": 450, "completion_tokens": 60, "total_tokens": 510},
            }
        )  # fmt: skip

    async def embed(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        vector = embeddings[number(body["messages"][0]["content"][-1])].tolist()
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response({"object": "list", "model": MODEL, "usage": usage, "data": data})

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def tell(request: web.Request) -> web.Response:
        said = dict(spent)
        spent.clear()
        return web.json_response(said)

    async def run() -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_post("/v1/embeddings", embed)
        app.router.add_get("/v1/models", models)
        app.router.add_get("/v1/spent", tell)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def _number_in(jpeg: bytes) -> int:
    grid = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L").resize((4, 4), Image.Resampling.BOX))
    return int(sum(1 << i for i, light in enumerate(grid.ravel()) if light > 120))
