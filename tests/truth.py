"""An OpenAI-compatible endpoint that knows the truth about images it drew itself, over real HTTP.

Each image carries its number as a 4 × 4 grid of light and dark cells; the number's class is known to this server alone.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from aiohttp import web
from PIL import Image


def draw(number: int) -> Image.Image:
    bits = np.array([(number >> i) & 1 for i in range(16)], dtype=np.uint8).reshape(4, 4)
    return Image.fromarray((np.kron(bits, np.ones((12, 12))) * 200 + 20).astype(np.uint8)).convert("RGB")


def number_in(data: bytes) -> int:
    grid = np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((4, 4), Image.Resampling.BOX), dtype=float)
    return int(sum(1 << i for i, v in enumerate(grid.ravel()) if v > 120))


@dataclass
class Truth:
    """What the endpoint knows, how it behaves, and what it was asked."""

    kinds: dict[int, int]
    """Class of each number."""
    noise: float = 0.6
    """Of embeddings: 0 is perfect, 1.2 muddled."""
    error: float = 0.0
    """Share of wrong answers; the same question always gets the same answer."""
    latency: float = 0.0
    jitter: float = 0.0
    """Share of the latency by which it may be longer or shorter."""
    fault: Callable[[int], str | None] = lambda served: None
    """Fault for the n-th request: an HTTP status, "html", "half", "silence" or "vague"."""
    key: str | None = None
    """Bearer token it wants."""
    rejects: int | None = None
    """Number whose picture it answers 400 to; -1 for all."""
    rejection: str = "no such picture"
    """What it says of that picture."""
    owner: str = ""
    """Whose server it says it is: "vllm" keeps to `structured_outputs`."""
    longest: int | None = None
    """`max_model_len` that it tells."""
    longest_question: int | None = None
    """Images in a question, more than which are too long for the context."""
    names: tuple[str, ...] = ("truth",)
    """Models that it lists."""
    embeds: bool = True
    """There is such a thing as /embeddings."""
    most_images: int = 1000
    contrary: str | None = None
    """Assessments whose instruction has these words in it are answered the other way round."""
    drafts: tuple[str, ...] = (
        '{"name": "kind", "look_at": ["the cells"], "ignore": ["the light"], "values": ["a", "b"]}',
    )
    """What it replies when it is asked to draft prompts, one after the other, the last again and again."""
    forms: set[tuple[str, bool, bool]] = field(default_factory=set)
    """(kind, replies were held to a form, images had identities) of the questions answered."""
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(kind, idempotency key) of every answered question."""
    served: int = 0
    sent_keys: set[str] = field(default_factory=set)
    """The Authorization headers that came, "" for none."""

    def write(self, folder: Path) -> Path:
        (folder / "images").mkdir(parents=True)
        rows = ["file,kind"]
        for i, (number, kind) in enumerate(self.kinds.items()):
            draw(number).save(folder / "images" / f"{i:04d}.png")
            rows.append(f"images/{i:04d}.png,kind {kind}")
        (folder / "labels.csv").write_text("\n".join(rows) + "\n")
        return folder

    def vector(self, number: int) -> list[float]:
        centre = np.random.default_rng(self.kinds[number]).normal(size=32) / 32**0.5
        v = centre + self.noise * np.random.default_rng(10_000 + number).normal(size=32) / 32**0.5
        return (v / np.linalg.norm(v)).tolist()

    @staticmethod
    def number(part: dict) -> int:
        """The number that an item shows: drawn in an image, or the last word of a text."""
        if part["type"] == "text":
            return int(part["text"].split()[-1])
        return number_in(base64.b64decode(part["image_url"]["url"].split(",", 1)[1]))

    def reply(self, content: list[dict]) -> tuple[str, str]:
        instruction = content[0]["text"]
        if '"look_at"' in instruction:
            asked = sum(kind == "draft" for kind, _ in self.asked)
            return "draft", self.drafts[min(asked, len(self.drafts) - 1)]
        contrary = self.contrary is not None and self.contrary in instruction
        shown: dict[str, list[int]] = {}
        for label, item in zip(content[1::2], content[2::2], strict=True):
            side = label["text"].split(",")[0].rstrip(":0123456789 ")
            shown.setdefault(side, []).append(self.number(item))
        first, *others = shown.values()
        if not others:
            return "describe", f"It is of kind {'abcdefghijklmnopqrstuvwxyz'[self.kinds[first[0]]]}x."
        if "Candidate" not in shown:
            return "merge", self._verdict(first, others[0], contrary)
        said = (self._verdict(first, [candidate], contrary) for candidate in others[0])
        return "membership", " ".join(said)

    def _verdict(self, one: list[int], other: list[int], contrary: bool) -> str:
        same = contrary ^ (self._major(one) == self._major(other))
        drawn = hashlib.sha256(repr(sorted([sorted(one), sorted(other)])).encode()).digest()
        says = same ^ (int.from_bytes(drawn[:4]) / 2**32 < self.error)
        return f"They {'agree' if says else 'differ'}. <CONCLUSION> {'YES' if says else 'NO'} </CONCLUSION>"

    def _major(self, numbers: list[int]) -> int:
        kinds = [self.kinds[n] for n in numbers]
        return max(sorted(set(kinds)), key=kinds.count)

    async def _fault(self) -> web.StreamResponse | str | None:
        self.served += 1
        match self.fault(self.served):
            case None:
                return None
            case "429":
                return web.json_response(
                    {"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0.05"}
                )
            case "html":
                return web.Response(text="<html>bad gateway</html>", content_type="text/html")
            case "half":
                return web.Response(text='{"choices": [{"mess', content_type="application/json")
            case "silence":
                await asyncio.sleep(30)
                return web.Response(status=504)
            case "vague":
                return "vague"
            case status:
                return web.json_response({"error": {"message": f"as asked: {status}"}}, status=int(status))

    def _refused(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        self.sent_keys.add(sent)
        if self.key is not None and sent != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        return None

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if (no := self._refused(request)) is not None:
            return no
        body = await request.json()
        await asyncio.sleep(self.latency * (1 + self.jitter * random.uniform(-1, 1)))
        fault = await self._fault()
        if isinstance(fault, web.StreamResponse):
            return fault
        content = body["messages"][0]["content"]
        if isinstance(content, str):  # the question whether replies keep to a form
            return self._said(body, "<CONCLUSION> YES </CONCLUSION>" if "structured_outputs" in body else "Yellow.")
        if (shown := sum("image_url" in part for part in content)) > self.most_images:
            said = f"At most {self.most_images} image(s) may be provided in one prompt, {shown} came."
            return web.json_response({"error": {"message": said}}, status=400)
        if self.longest_question is not None and len(content[2::2]) > self.longest_question:
            return web.json_response({"error": {"message": "longer than the maximum model length"}}, status=400)
        if self.rejects in [-1, *(self.number(part) for part in content[2::2])]:
            return web.json_response({"error": {"message": self.rejection}}, status=400)
        kind, text = self.reply(content)
        if fault == "vague" and kind != "describe":
            text = "Hard to say."
        self.asked.append((kind, request.headers["Idempotency-Key"]))
        self.forms.add((kind, "structured_outputs" in body, any("uuid" in part for part in content)))
        return self._said(body, text)

    @staticmethod
    def _said(body: dict, text: str) -> web.Response:
        return web.json_response(
            {
                "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100},
            }
        )  # fmt: skip

    async def embed(self, request: web.Request) -> web.StreamResponse:
        if not self.embeds:
            return web.json_response({"detail": "Not Found"}, status=404)
        if (no := self._refused(request)) is not None:
            return no
        body = await request.json()
        await asyncio.sleep(self.latency * (1 + self.jitter * random.uniform(-1, 1)))
        fault = await self._fault()
        if isinstance(fault, web.StreamResponse):
            return fault
        if "messages" in body:
            vector = self.vector(self.number(body["messages"][0]["content"][-1]))
        else:
            seed = int(hashlib.sha256(body["input"].encode()).hexdigest()[:8], 16)
            vector = np.random.default_rng(seed).normal(size=32).tolist()
        self.asked.append(("embed", request.headers["Idempotency-Key"]))
        return web.json_response(
            {"object": "list", "model": "truth", "usage": {"prompt_tokens": 1, "total_tokens": 1},
             "data": [{"object": "embedding", "index": 0, "embedding": vector}]}
        )  # fmt: skip

    async def models(self, request: web.Request) -> web.StreamResponse:
        if (no := self._refused(request)) is not None:
            return no
        entry = {"object": "model", "owned_by": self.owner, "max_model_len": self.longest}
        return web.json_response({"object": "list", "data": [entry | {"id": name} for name in self.names]})


def numbers(items: int, classes: int, seed: int = 1) -> dict[int, int]:
    """So many distinct numbers, each with a class."""
    rng = np.random.default_rng(seed)
    return {int(n): int(rng.integers(classes)) for n in rng.permutation(2**16)[:items]}


@contextmanager
def serving(truth: Truth) -> Iterator[Truth]:
    """The endpoint on a free port of loopback, in a thread with an event loop of its own."""
    loop = asyncio.new_event_loop()
    app = web.Application(client_max_size=2**25)
    app.router.add_post("/v1/chat/completions", truth.chat)
    app.router.add_post("/v1/embeddings", truth.embed)
    app.router.add_get("/v1/models", truth.models)
    runner = web.AppRunner(app, shutdown_timeout=0.2)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        truth.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield truth
    finally:

        async def stop() -> None:
            await runner.cleanup()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
