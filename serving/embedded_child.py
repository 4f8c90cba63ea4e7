"""The child process of `serving.embedded`: python -m serving.embedded_child.

Its first line on stdin is the order (a JSON object: model_path, threads, loader, called, api_key); the rest of stdin is
a lifeline, whose end means that the parent is gone. It writes one line on stdout: {"url"} or {"error", "message"}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from serving.server import base_url, build_app, listen, serve
from storage.errors import PartitaError


def main() -> None:
    """Load the model, report, serve until the parent is gone."""
    report = sys.stdout
    sys.stdout = sys.stderr  # the report is the only line that the parent reads: nothing else may get in
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_hold_the_line, daemon=True, name="lifeline").start()
    threading.Thread(target=_watch_the_parent, args=(os.getppid(),), daemon=True, name="parent").start()
    order = json.loads(line)
    try:
        listener, app = _prepare(order)
    except PartitaError as error:
        _tell(report, {"error": type(error).__name__, "message": str(error)})
        return
    except Exception as error:  # noqa: BLE001 whatever it is, the parent has to hear of it
        traceback.print_exc()
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        message = f"{order['called']} did not start ({why}): install Partita again, or report it"
        _tell(report, {"error": "EndpointUnreachable", "message": message})
        return
    _tell(report, {"url": base_url(listener)})
    serve(app, listener)


def _prepare(order: dict[str, Any]) -> tuple[Any, Any]:
    module, _, function = order["loader"].partition(":")
    load = getattr(importlib.import_module(module), function)
    path = order["model_path"]
    model = load(None if path is None else Path(path), order["threads"])
    return listen("127.0.0.1", 0), build_app(model, api_key=order["api_key"])


def _tell(report: Any, words: dict[str, str]) -> None:
    report.write(json.dumps(words) + "\n")
    report.flush()


def _hold_the_line() -> NoReturn:
    """End at once when stdin ends; there is nothing to save here."""
    while os.read(0, 1):  # not sys.stdin: a lock that a thread holds at exit is a fatal error
        pass
    os._exit(0)


def _watch_the_parent(parent: int) -> NoReturn:
    """The same for a parent that died while another process holds its end of the pipe."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    main()
