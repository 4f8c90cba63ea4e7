"""``partita export``: write a partition to a file or folder."""

from __future__ import annotations

from pathlib import Path

import click

from partita.api import Session
from partita.commands import options


@click.command("export")
@options.session
@options.database
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A .csv, .json or .parquet file, or a folder.",
)
@click.option("--copy", is_flag=True, help="Copy images into the folder instead of linking to them.")
def command(session: str, db: str, to: Path, copy: bool) -> None:
    """Write the partition of SESSION; a folder gets one sub-folder for every cluster, with texts as .txt files."""
    click.echo(f"written: {Session(session, db).export(to, copy=copy)}", err=True)
