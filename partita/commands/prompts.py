"""``partita prompts``: list, show and check prompt sets."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from agents.prompt_sets import SHIPPED, read_prompt_file, shipped_names, shipped_set
from partita.display import output


@click.group("prompts")
def command() -> None:
    """Prompt sets say what agents ask under a criterion."""


@command.command("list")
def list_sets() -> None:
    """List the shipped sets, their other spellings and hashes."""
    table = Table(box=None)
    for heading in ("set", "also called", "criterion", "hash"):
        table.add_column(heading)
    for name in shipped_names():
        s = shipped_set(name, "$criterion")
        table.add_row(s.name, ", ".join(s.aliases), escape(s.criterion), s.hash)
    output().print(table)


@command.command("show")
@click.argument("name")
def show(name: str) -> None:
    """Print the set NAME as YAML, ready to be edited."""
    shipped_set(name, "$criterion")
    click.echo((SHIPPED / f"{name}.yaml").read_text(), nl=False)


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check the prompt set in FILE, and say what is wrong with it."""
    s = read_prompt_file(file, "the criterion")
    click.echo(f"{file}: fine. The set is called {s.name!r}; use it with --prompts {file}")
