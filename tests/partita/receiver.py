"""A server that takes whatever is sent to it over HTTP, and remembers it."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LANGSMITH_INFO = json.dumps({
    "version": "0.13.0",
    "batch_ingest_config": {
        "use_multipart_endpoint": True, "size_limit": 100, "size_limit_bytes": 20_971_520,
        "scale_up_qsize_trigger": 1000, "scale_up_nthreads_limit": 16, "scale_down_nempty_trigger": 4,
    },
}).encode()  # fmt: skip
"""What LangSmith answers when its client asks what it may send, and how."""


@dataclass
class Receiver:
    """What was sent, and how it is answered."""

    url: str = ""
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """(path, headers by their names in small letters, body as it was before its compression)."""
    status: int = 200
    answer: bytes = b"{}"
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def bodies(self) -> bytes:
        return b"".join(body for _, _, body in self.got)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = LANGSMITH_INFO if self.path == "/info" else receiver.answer
            sent = self.headers.get("Authorization", "")
            self.send_response(receiver.status, f"said {sent}")
            about = {"Content-Type": receiver.kind, "Content-Length": str(len(answer))} | receiver.headers
            for name, value in about.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = take

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
