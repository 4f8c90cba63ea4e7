"""``partita export``: write a partition to a file or folder."""

from __future__ import annotations

from pathlib import Path

import click

from partita.api import Session
from partita.commands import options
from partita.export import FORMS, THUMBNAILS, Form, formulas_in


@click.command("export")
@options.session
@options.database
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A .csv, .json or .parquet file, a report (.html), or a folder.",
)
@click.option(
    "--form",
    type=click.Choice(FORMS),
    help="What a folder is: a sub-folder for every cluster, or a dataset for Hugging Face (imagefolder) or FiftyOne."
    "  [default: folder]",
)
@click.option("--copy", is_flag=True, help="Copy images into the folder instead of linking to them.")
@click.option(
    "--thumbnails",
    type=click.IntRange(min=0),
    default=THUMBNAILS,
    show_default=True,
    metavar="N",
    help="Pictures of each cluster in a report.",
)
def command(session: str, db: str, to: Path, form: Form | None, copy: bool, thumbnails: int) -> None:
    """Write the partition of SESSION.

    A folder gets one sub-folder for every cluster, with texts as .txt files, and a manifest.csv that says which item
    each file is. A report is one HTML file that needs nothing else: clusters with pictures, what is least certain and
    why, and what it took.
    """
    opened = Session(session, db)
    written = opened.export(to, form=form, copy=copy, thumbnails=thumbnails)
    click.echo(f"written: {written}", err=True)
    if names := formulas_in(opened.result(), written, form):
        begin = (
            f"{names:,} names of items and clusters begin" if names > 1 else "the name of an item or a cluster begins"
        )
        click.echo(
            f"{begin} with =, +, -, @ or a tab, which a spreadsheet may run as a formula: don't open the table in one; "
            "--to a .json or .parquet file instead",
            err=True,
        )
