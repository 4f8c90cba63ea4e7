"""What a chat call costs the process that asks, and whether it keeps an endpoint busy.

    python -m benchmarks.client                         # 1,000 calls a client, 32 in flight, answers take 200 ms
    python -m benchmarks.client --clients ours --calls 5000 --latency 0.05 --json report.json

A server in a child process reads each question and answers after `--latency` seconds, half as much more or less.
Questions are memberships: three representatives and a candidate, each a picture of 3-20 kB. Beside our client stand
the `openai` client as it is documented, and bare HTTP clients that send bytes made beforehand. `cpu_ms` is processor
time of the asking process for a call; `busy` is (sum of the answers' times / calls in flight) / wall time: 1 is an
endpoint that never waits for us.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import openai
from aiohttp import web

from agents.prompt_sets import PromptSet, shipped_set
from agents.questions import Question, membership
from serving.client import Endpoint
from serving.images import image_part

Ask = Callable[[Question, str], Awaitable[object]]
PICTURES = {f"picture {n}": random.Random(n).randbytes(random.Random(-n).randint(3_000, 20_000)) for n in range(200)}
PROMPTS: PromptSet = shipped_set("suit")
SAMPLING: dict[str, Any] = {"max_tokens": 2048, "temperature": 0.2, "seed": 0}


def serve(latency: float, told: Connection, slept: Synchronized[float]) -> None:
    """Answer each question after about `latency` seconds; says the port, when it listens, and sums up the seconds."""
    chance = random.Random(0)
    said = "The candidate is a heart, as the others are. <CONCLUSION> YES </CONCLUSION>"
    payload = json.dumps(
        {
            "id": "c1", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}},
            ],
            "usage": {"prompt_tokens": 450, "completion_tokens": 20, "total_tokens": 470},
        }
    ).encode()  # fmt: skip

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        seconds = latency * chance.uniform(0.5, 1.5)
        slept.value += seconds
        await asyncio.sleep(seconds)
        return web.Response(body=payload, content_type="application/json")

    async def run() -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


async def ours(url: str, in_flight: int, stack: AsyncExitStack) -> Ask:
    parts = {name: image_part(jpeg) for name, jpeg in PICTURES.items()}  # once for each item, as in a session
    endpoint = await stack.enter_async_context(Endpoint(url, model="m", api_key="sk-none", concurrency=in_flight))
    return lambda question, key: endpoint.chat(question.messages(parts.__getitem__), key=key, **SAMPLING)


async def official(url: str, in_flight: int, stack: AsyncExitStack) -> Ask:
    parts = {name: image_part(jpeg) for name, jpeg in PICTURES.items()}
    client = await stack.enter_async_context(openai.AsyncOpenAI(base_url=url, api_key="sk-none"))

    async def ask(question: Question, key: str) -> object:
        messages: Any = question.messages(parts.__getitem__)
        return await client.chat.completions.create(
            model="m", messages=messages, extra_headers={"Idempotency-Key": key}, **SAMPLING
        )

    return ask


async def bare_httpx(url: str, in_flight: int, stack: AsyncExitStack) -> Ask:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=in_flight)
    client = await stack.enter_async_context(httpx2.AsyncClient(limits=limits, timeout=120))
    body = _body()

    async def ask(question: Question, key: str) -> object:
        response = await client.post(f"{url}/chat/completions", content=body, headers=_headers(key))
        return json.loads(response.content)

    return ask


async def bare_aiohttp(url: str, in_flight: int, stack: AsyncExitStack) -> Ask:
    connector = aiohttp.TCPConnector(limit=0)
    client = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    body = _body()

    async def ask(question: Question, key: str) -> object:
        async with client.post(f"{url}/chat/completions", data=body, headers=_headers(key)) as response:
            return json.loads(await response.read())

    return ask


CLIENTS = {"ours": ours, "openai": official, "httpx": bare_httpx, "aiohttp": bare_aiohttp}


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "Authorization": "Bearer sk-none", "Idempotency-Key": key}


def _body() -> bytes:
    parts = {name: image_part(jpeg) for name, jpeg in PICTURES.items()}
    messages = _question(0).messages(parts.__getitem__)
    return json.dumps({"model": "m", "messages": messages} | SAMPLING).encode()


def _question(n: int) -> Question:
    names = random.Random(n).sample(sorted(PICTURES), 4)
    return membership(PROMPTS, names[:3], names[3:])


async def measure(client: str, url: str, calls: int, in_flight: int, slept: Synchronized[float]) -> dict[str, Any]:
    """Ask `calls` questions, `in_flight` at a time, and say what it cost."""
    async with AsyncExitStack() as stack:
        ask = await CLIENTS[client](url, in_flight, stack)
        questions = [_question(n) for n in range(calls)]

        async def ask_all(todo: list[Question]) -> None:
            numbered = iter(enumerate(todo))

            async def worker() -> None:
                for n, question in numbered:
                    await ask(question, f"{n:064x}")

            async with asyncio.TaskGroup() as workers:
                for _ in range(in_flight):
                    workers.create_task(worker())

        await ask_all(questions[: 2 * in_flight])  # connections are opened and modules imported
        cpu, wall, before = time.process_time(), time.perf_counter(), slept.value
        await ask_all(questions)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "client": client,
        "cpu_ms": round(1000 * cpu / calls, 3),
        "calls_per_second": round(calls / wall, 1),
        "busy": round((slept.value - before) / in_flight / wall, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", default=list(CLIENTS), choices=CLIENTS)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--rounds", type=int, default=1, help="the cheapest round is reported")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    spawn = multiprocessing.get_context("spawn")
    ours_end, theirs = spawn.Pipe()
    slept = spawn.Value("d", 0.0)
    server = spawn.Process(target=serve, args=(options.latency, theirs, slept), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours_end.recv()}/v1"
    rows = []
    try:
        print(f"{'client':10} {'CPU ms/call':>12} {'calls/s':>9} {'busy':>6}")
        for client in options.clients:
            measured = (options.calls, options.in_flight, slept)
            runs = [asyncio.run(measure(client, url, *measured)) for _ in range(options.rounds)]
            row = min(runs, key=lambda run: run["cpu_ms"])
            rows.append(row)
            print(f"{client:10} {row['cpu_ms']:12.2f} {row['calls_per_second']:9.1f} {row['busy']:6.3f}", flush=True)
    finally:
        server.terminate()
        server.join()
    if options.json:
        report = {"calls": options.calls, "in_flight": options.in_flight, "latency": options.latency, "clients": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
