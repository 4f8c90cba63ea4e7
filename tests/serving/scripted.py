"""A server on a real socket that answers by script, in or out of the API's form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

HANG = b"hang"
RESET = b"reset"


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


Script = Callable[["Scripted", Asked], bytes]


@dataclass
class Scripted:
    """`asked` has every request; `most_at_once` counts the ones that were open together.

    With `room`, only so many are worked on at a time, each for `latency` seconds; others are turned away at once.
    """

    script: Script
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0
    hold: asyncio.Barrier | None = None
    latency: float = 0.0
    room: int | None = None
    full: bytes = b""
    turned_away: int = 0
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                payload = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(method, path, headers, json.loads(payload) if payload else None)
                self.asked.append(asked)
                if self.room is not None and self.at_once >= self.room:
                    self.turned_away += 1
                    writer.write(self.full)
                    continue
                self.at_once += 1
                self.most_at_once = max(self.at_once, self.most_at_once)
                if self.hold is not None:
                    await self.hold.wait()
                if self.latency:
                    await asyncio.sleep(self.latency)
                answer = self.script(self, asked)
                self.at_once -= 1
                if answer == HANG:
                    await reader.read()
                    return
                if answer == RESET:
                    writer.transport.abort()
                    return
                writer.write(answer)
                await writer.drain()
                if b"Connection: close" in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(*script: bytes | Script) -> AsyncIterator[Scripted]:
    """Each answer of `script` is given once, the last one for ever; a function is asked each time."""

    def play(server: Scripted, asked: Asked) -> bytes:
        step = script[min(len(server.asked), len(script)) - 1]
        return step if isinstance(step, bytes) else step(server, asked)

    state = Scripted(play)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await state.serve(reader, writer)
        finally:
            connections.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield state
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*connections, return_exceptions=True), 10)
        await server.wait_closed()
        await asyncio.sleep(0)


def answer(body: Any, status: str = "200 OK", kind: str = "application/json", **headers: str) -> bytes:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(payload)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + payload


def chat(text: Any = "yes", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    return answer(
        {
            "object": "chat.completion",
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": usage,
            **more,
        }
    )


def error(status: str, message: str = "no", **headers: str) -> bytes:
    return answer({"error": {"message": message, "type": "x", "param": None, "code": None}}, status, **headers)


HTML = answer(b"<!doctype html><html>bad gateway</html>", kind="text/html")
MODELS = answer({"object": "list", "data": [{"id": "m"}, {"id": "qwen-vl-7b"}]})
