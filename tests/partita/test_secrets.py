"""A key is in no log, trace, error, file or database, whatever the server says back of it, at debug level too."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import serving.client
import serving.sender
from partita import Session, cluster
from serving.client import Endpoint
from storage.errors import PartitaError
from tests.command_line import ROOT
from tests.serving.certificates import certificate
from tests.truth import Truth, numbers

KEY = "sk-Canary/0123+456789=="
KEEPS = (KEY, "sk-canary/0123", "sk-Canary%2F0123", "sk-Canary\\/0123", "Canary")
"""Forms in which it may come out again; the last is part of every one."""


class Echo(BaseHTTPRequestHandler):
    """Answers as a model does, and says the key back wherever there is room for words."""

    protocol_version = "HTTP/1.1"
    truth: Truth
    count = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.say(200, {"object": "list", "data": [{"id": "echo"}, {"id": self.sent()}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).count += 1
        match type(self).count % 7:
            case 3:
                self.say(500, {"error": {"message": f"bad luck with {self.sent()}"}})
            case 5:
                self.say(503, f"busy, {self.sent()}".encode(), kind="text/plain")
            case 6:
                self.say(200, f"<html>{self.sent()}</html>".encode(), kind="text/html")
            case _ if "messages" in body and "/chat/" in self.path:
                _, text = self.truth.reply(body["messages"][0]["content"])
                text = f"With {self.sent()} I say: {text}"
                message = {"role": "assistant", "content": text}
                self.say(200, {"model": f"echo {self.sent()}", "choices": [{"index": 0, "message": message}]})
            case _:
                # the description holds the kind; what is told of the key in it must not matter
                seed = "abcdefghij".index(body["input"].split("kind ")[1][0])
                vector = [float(n == seed) + 0.01 for n in range(8)]
                self.say(200, {"model": self.sent(), "data": [{"embedding": vector, "note": self.sent()}]})

    def sent(self) -> str:
        return self.headers.get("Authorization", "none")

    def say(self, status: int, body: object, kind: str = "application/json") -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).replace("/", "\\/").encode()
        self.send_response(status, f"It was {self.sent()}")
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(payload)), "X-Echo": self.sent(), "Retry-After": "0",
            "Set-Cookie": f"key={KEY}", "X-Request-Id": self.sent(), "Location": f"http://x/{KEY}",
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)


@contextmanager
def echoing(truth: Truth, context: ssl.SSLContext | None = None) -> Iterator[str]:
    handler = type("EchoOfTruth", (Echo,), {"truth": truth})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.retries, "BACK_OFF", 0.001)
    for name in ("PARTITA_API_KEY", "PARTITA_API_KEY_FILE", "PARTITA_EMBED_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("way", ["wire", "stock", "https"])
def test_a_whole_session_keeps_the_key_to_itself(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd
) -> None:
    caplog.set_level(logging.DEBUG)
    context = None
    if way == "stock":
        monkeypatch.setattr(serving.sender.Sender, "_transport", lambda *_: None)
    elif way == "https":
        context = certificate(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    truth = Truth(numbers(8, 2))
    folder, db = truth.write(tmp_path / "c"), f"sqlite:///{tmp_path}/p.db"
    seen: list[str] = []
    with echoing(truth, context) as url:
        result = cluster(folder, "kind", endpoint=url, model="echo", session="s", db=db, api_key=KEY)
    session = Session("s", db)
    seen += [repr(result), *map(repr, session.trace()), *map(repr, session.trace(kind="describe"))]
    for name in ("out.csv", "out.json", "folder"):
        session.export(tmp_path / name)
    assert len(result.clusters) == 2 and "***" in "".join(seen)
    assert result.calls["retries"] > 0
    out, err = capfd.readouterr()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".png")
    logged = "\n".join(f"{logging.Formatter().format(record)} {record.__dict__!r}" for record in caplog.records)
    assert way == "wire" or "receive_response_headers" in logged
    for form in KEEPS:
        assert form not in "\n".join([*seen, out, err, logged])
        assert form.encode() not in written and form.encode("utf-16-le") not in written


def test_from_the_command_line_with_all_logs_on(cli, tmp_path: Path) -> None:
    """Logs of every library at DEBUG, on stderr, and a server that refuses the key in so many words."""
    truth = Truth(numbers(8, 2))
    folder = truth.write(tmp_path / "c")
    script = (
        "import logging, asyncio; logging.basicConfig(level=logging.DEBUG)\nfrom partita.__main__ import main\nmain()"
    )
    with echoing(truth) as url:
        words = ["run", folder, "--by", "kind", "--endpoint", url, "--json"]
        told = []
        for code, model in ((0, "echo"), (4, "echoes")):
            done = subprocess.run(
                [sys.executable, "-c", script, *map(str, [*words, "--model", model])],
                cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
                env={"PATH": "/bin:/usr/bin", "PYTHONPATH": str(ROOT), "PARTITA_API_KEY": KEY, "OPENAI_LOG": "debug",
                     "PYTHONASYNCIODEBUG": "1", "PARTITA_DB": cli.db, "HOME": str(tmp_path)},
            )  # fmt: skip
            told += [done.stdout, done.stderr]
            assert done.returncode == code and "DEBUG" in done.stderr and "Traceback" not in done.stderr
    assert "has no model 'echoes': give one of echo, Bearer *** as --model" in told[-1]
    assert "Canary" not in "".join(told)


REFUSALS = {
    "message": b"HTTP/1.1 401 No\r\n%b\r\n" % (b"Content-Length: %d\r\n" % (len(KEY) + 40)) + b"x" * 40 + KEY.encode(),
    "redirect": f"HTTP/1.1 302 Found\r\nLocation: http://{KEY}.example/{KEY}\r\nContent-Length: 0\r\n\r\n".encode(),
    "encoded": b"HTTP/1.1 302 No\r\nLocation: https://h/sk-Canary%2F0123%2B456789%3D%3D\r\nContent-Length: 0\r\n\r\n",
    "bad header": f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(),
    "bad status line": f"{KEY}\r\n\r\n".encode(),
    "bad length": f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode(),
    "bad coding": f"HTTP/1.1 200 OK\r\nContent-Encoding: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
    "bad chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode(),
    "error with 200": b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n"
    + json.dumps({"error": {"message": KEY}}).ljust(44).encode(),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
@pytest.mark.parametrize("way", ["wire", "stock"])
def test_errors_and_their_causes_are_free_of_it(
    refusal: bytes, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.serving.rawly import question, raw

    caplog.set_level(logging.DEBUG)
    if way == "stock":
        monkeypatch.setattr(serving.sender.Sender, "_transport", lambda *_: None)
    told: list[str] = []

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await question(reader)
        writer.write(refusal)
        await writer.drain()

    async def session() -> None:
        async with (
            raw(serve) as port,
            Endpoint(
                f"http://127.0.0.1:{port}/v1", model="m", api_key=KEY, max_attempts=2, on_retry=told.append
            ) as asked,
        ):
            try:
                await asked.chat([], key="k", max_tokens=1, temperature=0, seed=None)
            except PartitaError as error:
                told.extend([repr(error), *traceback.format_exception(error)])

    asyncio.run(session())
    assert told
    logged = "\n".join(f"{logging.Formatter().format(record)} {record.__dict__!r}" for record in caplog.records)
    assert "anary" not in "\n".join(told) + logged


def test_a_key_that_is_a_word_leaves_replies_alone() -> None:
    from serving.redaction import Redaction

    word = Redaction("none")
    assert word.of_reply("none of them") == "none of them"
    assert word.of("set none here, nonesuch") == "set *** here, nonesuch"
    assert Redaction(None).of("x") == "x"


def test_a_table_of_urls_in_texts_is_only_text(tmp_path: Path) -> None:
    """Nothing in a text makes it a picture, and nothing in it is fetched."""
    from tests.truth import serving as served

    class Told(Truth):
        contents: ClassVar[list] = []

        def reply(self, content):
            self.contents.append(content)
            return super().reply(content)

    truth = Told(numbers(6, 2))
    forms = ["https://x/a.png {}", '{{"type": "image_url", "image_url": {{"url": "http://x/"}}}} {}',
             "data:image/png;base64,AAAA {}", "file:///etc/passwd {}"]  # fmt: skip
    rows = [{"text": forms[i % 4].format(number)} for i, number in enumerate(truth.kinds)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with served(truth) as at:
        result = cluster(tmp_path / "t.jsonl", "kind", endpoint=at.url, db=f"sqlite:///{tmp_path}/p.db",
                         embed_mode="native")  # fmt: skip
    assert result.status == "done" and truth.contents
    assert {part["type"] for content in truth.contents for part in content} == {"text"}
