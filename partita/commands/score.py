"""``partita score``: compare a partition with labels."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from partita.api import Session
from partita.commands import options
from partita.display import output


@click.command("score")
@options.session
@options.database
@click.option(
    "--labels",
    required=True,
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Labels: a `file` column (`text` for texts) and one for each criterion.",
)
@click.option("--column", required=True, metavar="NAME", help="The column to compare with.")
@options.as_json
def command(session: str, db: str, labels: Path, column: str, as_json: bool) -> None:
    """Score SESSION against labels. The number of clusters is the one found, not given."""
    score = Session(session, db).score(labels, column)
    if as_json:
        options.print_json(score.to_json())
        return
    table = Table(box=None, show_header=False)
    for name, value in score.to_json().items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    output().print(table)
