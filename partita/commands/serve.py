"""``partita serve``: models over HTTP. Without a verb of its own: the built-in server."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click
from click.core import ParameterSource

from partita.keys import own_key
from partita.lazy import LazyGroup
from partita.settings import read_environment
from partita.signals import ignore_signals
from storage.errors import UsageError

FORMS = {
    "export": "Turn a trained checkpoint into a folder that vLLM serves.",
    "vllm": "Serve an exported model with vLLM: chat and embeddings, watched.",
}
"""Verbs under ``serve``; each is a module ``partita.commands.serve_NAME``, imported when used."""


@click.group("serve", cls=LazyGroup, verbs=FORMS, modules="partita.commands.serve_", invoke_without_command=True)
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
@click.pass_context
def command(ctx: click.Context, model_path: Path | None, host: str, port: int, batch_size: int) -> None:
    """Serve a model as an OpenAI-compatible API: chat with images, chat-form embeddings.

    Without a command: the built-in server, for the built-in model or another LLaVA-Qwen2 folder. Ctrl-C stops it.
    """
    if ctx.invoked_subcommand is not None:
        for name in ctx.params:
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                option = next(p.opts[0] for p in ctx.command.params if p.name == name)
                raise UsageError(f"{option} is the built-in server's here: give it after `{ctx.invoked_subcommand}`")
        return
    from serving.server import run_server

    key = own_key(read_environment())  # not OPENAI_API_KEY, which is nothing to ask of others
    secret = key.get_secret_value() if key else None
    try:
        run_server(model_path, host, port, batch_size=batch_size, api_key=secret, say=_say)
    except KeyboardInterrupt:
        ignore_signals()  # that is how a server ends; there is nothing to be kept or resumed


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # whoever read it has it; the server is for others
        click.echo(line)
