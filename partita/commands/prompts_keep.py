"""``partita prompts keep``: a version of a prompt file."""

from __future__ import annotations

from pathlib import Path

import click

from agents.prompt_sets import prompt_text
from partita.commands import options
from partita.prompts import keep_text
from storage.database import open_database


@click.command("keep")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--by", "criterion", metavar="CRITERION", help="What $criterion stands for in it.")
@options.database
def command(file: Path, criterion: str | None, db: str) -> None:
    """Keep the prompt set in FILE as a version, which its hash names from then on.

    `run` and `fork` keep what they use; this is for a set that you want to try or compare first.
    """
    text = prompt_text(file)
    with open_database(db) as database:
        prompts, is_new = keep_text(database, text, criterion, "file", str(file))
    for doubt in prompts.doubts():
        click.echo(f"note: {doubt}", err=True)
    said = "kept" if is_new else "was kept already"
    click.echo(f"{said}: {prompts.hash} ({prompts.name}); use it with --prompts {prompts.hash[:8]}")
