"""``partita web``: sessions in a browser."""

from __future__ import annotations

import secrets
from contextlib import suppress
from importlib import import_module

import click

from partita.commands import options
from partita.signals import ignore_signals
from storage.database import open_database
from storage.errors import UsageError

_EXTRA = ("fastapi", "python_multipart", "uvicorn")


@click.command("web")
@options.database
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8400, show_default=True, help="0 takes any free one.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Under which browsers elsewhere reach it, too.")
@click.option("--no-token", is_flag=True, help="Ask for no token; on loopback only.")
def command(db: str, host: str, port: int, names: tuple[str, ...], no_token: bool) -> None:
    """Show sessions as a page: clusters with pictures, why each item is where it is, and corrections by hand.

    Open the line that is printed; its token lets your browser in, and nobody else. Ctrl-C ends it.
    """
    _require_extra()
    from partita.web.server import run

    with open_database(db) as database:
        try:
            run(database, host, port, names=names, token=None if no_token else secrets.token_urlsafe(24), say=_say)
        except KeyboardInterrupt:
            ignore_signals()


def _require_extra() -> None:
    for needed in _EXTRA:
        try:
            import_module(needed)
        except ModuleNotFoundError as e:
            if (e.name or "").partition(".")[0] not in (*_EXTRA, "starlette"):
                raise
            raise UsageError("the page needs more than the light core: pip install 'partita[web]'") from None


def _say(line: str) -> None:
    with suppress(BrokenPipeError):
        click.echo(line)
