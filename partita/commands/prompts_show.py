"""``partita prompts show``: a set as YAML."""

from __future__ import annotations

import click

from agents.prompt_sets import shipped_names
from partita.commands import options
from partita.prompts import shipped_yaml, yaml_of
from storage.database import is_there, open_database
from storage.prompts import find, is_hash


@click.command("show")
@click.argument("name", metavar="NAME|HASH")
@options.database
def command(name: str, db: str) -> None:
    """Print the shipped set NAME, or the version with that hash, as YAML, ready to be edited."""
    if name not in shipped_names() and is_hash(name) and is_there(db):
        with open_database(db) as database:
            click.echo(yaml_of(find(database, name)), nl=False)
        return
    click.echo(shipped_yaml(name), nl=False)
