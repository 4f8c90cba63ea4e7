"""``partita show``: a session's clusters."""

from __future__ import annotations

from pathlib import Path

import click

from partita.api import Session
from partita.commands import options
from partita.display import output, print_result, quiet_console
from partita.picture import check_picture


@click.command("show")
@options.session
@options.database
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="PNG", help="Also draw the clusters as a contact sheet."
)
@options.as_json
def command(session: str, db: str, picture: Path | None, as_json: bool) -> None:
    """Show what SESSION has come to."""
    if picture is not None:
        check_picture(picture)
    opened = Session(session, db)
    result = opened.result()
    if picture:
        opened.picture(picture)
        quiet_console().print(f"picture: {picture}", highlight=False)
    if as_json:
        options.print_json(result.to_json())
    else:
        console = output()
        print_result(console, result)
        console.print(f"spent: {opened.spend().line()}", highlight=False)
