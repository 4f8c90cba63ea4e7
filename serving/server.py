"""The built-in server: one model behind the OpenAI API, on this machine.

    partita serve --port 8000

Importing this module is cheap; the model and the server load when they are needed, and need the `local` extra.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import UsageError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from serving.batching import Model, TextEmbedder

_EXTRA = {"safetensors", "starlette", "tokenizers", "torch", "transformers", "uvicorn"}


def build_app(
    model: Model | TextEmbedder,
    batch_size: int = 16,
    max_wait: float = 0.005,
    api_key: str | None = None,
    max_queue: int = 256,
) -> Starlette:
    """An ASGI application that answers with `model`.

    Args:
        batch_size: conversations or texts computed together, at most.
        max_wait: seconds that a request waits for others to join its batch, at most.
        api_key: asked of every request but GET /health; None asks for nothing.
        max_queue: requests that wait for the model; the next one is answered 429.

    Raises:
        UsageError: the `local` extra is not installed.
    """
    try:
        from serving.app import application
    except ImportError as error:
        raise _missing(error) from None
    return application(model, batch_size=batch_size, max_wait=max_wait, max_queue=max_queue, api_key=api_key)


def load_model(model_path: Path | None = None, threads: int | None = None) -> Model:
    """The model in the folder `model_path`, or the one that ships with Partita.

    Raises:
        UsageError: there is no model, it can't be read, or the `local` extra is not installed.
    """
    try:
        from serving.llava import MINI, LlavaQwen2
    except ImportError as error:
        raise _missing(error) from None
    folder = MINI if model_path is None else model_path
    if not folder.is_dir():
        raise UsageError(f"there is no model folder at {folder}: check the path, or leave it out for the built-in one")
    try:
        return LlavaQwen2.load(folder, threads)
    except UsageError:
        raise
    except Exception as error:  # safetensors, json and torch each have errors of their own
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"the model in {folder} can't be loaded ({why}): install or export it again") from error


def run_server(
    model_path: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    api_key: str | None = None,
    threads: int | None = None,
    batch_size: int = 16,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until interrupted (Ctrl-C, SIGTERM); `say` gets one line with the URL once requests can come.

    Raises:
        UsageError: the port is taken, the host is none of this machine's or is open to others without a key, or what
            `load_model` raises.
    """
    refuse_open_door(host, api_key)
    with listen(host, port) as listener:
        model = load_model(model_path, threads)
        app = build_app(model, batch_size=batch_size, api_key=api_key)
        say(f"{model.name} answers at {base_url(listener)}")
        serve(app, listener)


def refuse_open_door(host: str, api_key: str | None) -> None:
    """Raise UsageError if others could ask a model at `host` without a key."""
    if not _is_loopback(host) and not api_key:
        raise UsageError(f"{host} can be reached by others: set PARTITA_API_KEY to serve there, or use 127.0.0.1")


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes any free one. `option` is what the user chose the port with."""
    if not 0 <= port <= 65535:
        raise UsageError(f"there is no port {port}: choose one up to 65535 with {option}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"{host} is no address of this machine: use 127.0.0.1") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        listener.close()
        why = error.strerror or error
        raise UsageError(
            f"{host}:{port} can't be listened on ({why}): choose another with --host or {option}"
        ) from None
    return listener


def uvicorn_server(app: ASGIApp) -> uvicorn.Server:
    """The HTTP server that we run `app` with."""
    try:
        import uvicorn
    except ImportError as error:
        raise _missing(error) from None
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        http="h11",  # whatever else is installed: what is refused depends on it
        ws="none",
        timeout_keep_alive=75,  # longer than clients keep a connection, so that none is closed under a request
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer on `listener` until interrupted; a second Ctrl-C does not wait for answers under way."""
    server = uvicorn_server(app)
    # whoever won't wait knows that something is cut short, and needs no traceback of it
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.force_exit)
    server.run(sockets=[listener])


def base_url(listener: socket.socket) -> str:
    """The OpenAI-style base URL of what is served on `listener`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _missing(error: ImportError) -> UsageError | ImportError:
    if (error.name or "").partition(".")[0] in _EXTRA:
        return UsageError("the built-in model needs more than the light core: pip install 'partita[local]'")
    return error
