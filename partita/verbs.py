"""The command line's verbs; each is a module of `partita.commands`, imported when used."""

from __future__ import annotations

from importlib import import_module

import click

from partita import __version__

VERBS = {
    "run": "Cluster a collection by a criterion in words.",
    "resume": "Go on with a session where it stopped.",
    "estimate": "Say what a run would take, before anything is spent.",
    "sessions": "List the sessions.",
    "show": "Show a session's clusters.",
    "spend": "Show what a session has spent, and on what.",
    "trace": "Show what agents were asked, what they answered, and why.",
    "export": "Write a partition to a file or folder.",
    "score": "Compare a partition with labels.",
    "examples": "Render example images with labels.",
    "prompts": "List, show and check prompt sets.",
    "serve": "Serve models over HTTP: the built-in one, or another with vLLM.",
    "doctor": "Check this installation, the database and the endpoint.",
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = import_module(f"partita.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Cluster images or texts by a criterion that you name in words."""
