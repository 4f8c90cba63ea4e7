"""``partita prompts check``: what is wrong with a prompt file."""

from __future__ import annotations

from pathlib import Path

import click

from agents.prompt_sets import read_prompt_file


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Check the prompt set in FILE, and say what is wrong with it."""
    s = read_prompt_file(file, "the criterion")
    for doubt in s.doubts():
        click.echo(f"note: {doubt}", err=True)
    click.echo(f"{file}: fine. The set is called {s.name!r}; use it with --prompts {file}")
