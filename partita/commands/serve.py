"""``partita serve``: the built-in model over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from partita.settings import read_environment


@click.command("serve")
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Weights to serve.  [default: partita-mini]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Other than loopback needs PARTITA_API_KEY.")
@click.option("--port", type=click.IntRange(0, 65535), default=8300, show_default=True)
@click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Requests answered in one pass.",
)
def command(model_path: Path | None, host: str, port: int, batch_size: int) -> None:
    """Serve the built-in model as an OpenAI-compatible API: chat with images, chat-form embeddings."""
    from serving.server import run_server

    key = read_environment().api_key
    secret = key.get_secret_value() if key else None
    run_server(model_path, host, port, batch_size=batch_size, api_key=secret)
