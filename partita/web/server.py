"""Serving the page until somebody ends it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection

from starlette.types import ASGIApp

from partita.prices import find_prices
from partita.settings import read_environment
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.guard import Guard
from serving.server import listen, serve
from storage.database import Database
from storage.errors import UsageError


def run(
    db: Database,
    host: str,
    port: int,
    *,
    names: Collection[str] = (),
    token: str | None,
    say: Callable[[str], None],
) -> None:
    """Answer until interrupted; `say` gets the line to open once requests can come.

    Args:
        names: further names under which browsers reach us.
        token: what a browser has to have; None asks for nothing.

    Raises:
        UsageError: the port is taken, the address is none of this machine's, or others could come in without a token.
    """
    if token is None and not _is_loopback(host):
        raise UsageError(f"{host} can be reached by others: leave --no-token out, or listen on 127.0.0.1")
    environment = read_environment()
    desk = Desk(db, find_prices(environment.prices, environment.config_home))
    with listen(host, port) as listener:
        number = listener.getsockname()[1]
        reached = hosts(host, number, names)
        app = guarded(build_app(desk), reached, token, number)
        say(f"Partita shows the sessions of {db} at http://{reached[0]}/" + (f"?token={token}" if token else ""))
        try:
            serve(app, listener)
        finally:
            desk.jobs.end()
            desk.work.end(say)


def guarded(app: ASGIApp, reached: Collection[str], token: str | None, port: int) -> Guard:
    """The application behind its guard."""
    return Guard(app, hosts=reached, token=token, cookie=f"partita_{port}")


def hosts(host: str, port: int, names: Collection[str]) -> list[str]:
    """What browsers may call a server that listens on `host`, the likeliest first, as ``name:port``."""
    if host in ("0.0.0.0", "::"):
        named = [*names, socket.gethostname(), "localhost", "127.0.0.1"]
    elif _is_loopback(host):
        named = [host, "127.0.0.1", "localhost", "[::1]", *names]
    else:
        named = [host, *names]
    bracketed = [f"[{name}]" if ":" in name and not name.startswith("[") else name for name in named]
    told = [f"{name}:{port}" for name in dict.fromkeys(bracketed)]
    return told + ([name.rpartition(":")[0] for name in told] if port == 80 else [])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
