"""A command that behaves like `vllm serve`, as far as a supervisor can tell: python fake_vllm.py serve MODEL ...

It opens its port, answers /health and /v1/models, and has an engine: children that end of nothing but SIGKILL.
The folder FAKE_VLLM says how it misbehaves, by files that a test makes (`die-embed`, `hang-generate`, ...), and it
writes there what it was started with, one file for each start. Only the standard library, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_VLLM"])
GIVEN = sys.argv[1:]


def given(option: str) -> str:
    return GIVEN[GIVEN.index(option) + 1]


NAME = "embed" if given("--runner") == "pooling" else "generate"


def told_to(misbehave: str) -> bool:
    return (FOLDER / f"{misbehave}-{NAME}").exists()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if told_to("hang"):
            time.sleep(600)
        if self.path == "/health":
            self.answer(503 if told_to("ail") else 200, b"")
        elif os.environ.get("VLLM_API_KEY") and self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.answer(401, b"{}")
        else:
            self.answer(200, json.dumps({"data": [{"id": given("--served-model-name")}]}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    assert GIVEN[0] == "serve"
    print("INFO 10-01 12:00:00 [api_server.py:1] loading", flush=True)
    if told_to("die"):
        print("(EngineCore pid=7) ERROR 10-01 12:00:01 [core.py:9] ValueError: Free memory on device is too little.")
        print("(EngineCore pid=7) ERROR 10-01 12:00:01 [core.py:9]   in a frame of no interest")
        print("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
        sys.exit(1)
    engine = subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 600; done", str(FOLDER)])
    while told_to("dawdle"):
        time.sleep(0.05)
    with ThreadingHTTPServer((given("--host"), int(given("--port"))), Handler) as server:
        server.daemon_threads = True
        about = {"pid": os.getpid(), "engine": engine.pid, "argv": sys.argv, "environ": dict(os.environ)}
        number = len(list(FOLDER.glob(f"{NAME}.*.json"))) + 1
        draft = FOLDER / f"{NAME}.draft"
        draft.write_text(json.dumps(about))
        draft.rename(FOLDER / f"{NAME}.{number}.json")
        server.serve_forever()


if __name__ == "__main__":
    main()
