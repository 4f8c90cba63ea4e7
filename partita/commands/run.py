"""``partita run``: begin a session and run it to its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from partita.api import Session
from partita.commands import options
from partita.display import progress_on, quiet_console
from partita.keys import find_keys
from partita.picture import check_picture
from partita.running import begin
from partita.settings import make_parameters, read_environment
from storage.database import open_database
from storage.errors import UsageError


@click.command("run")
@click.argument("collection", type=click.Path(path_type=Path))
@options.criterion
@click.option("--session", "name", metavar="NAME", help="Name of the session.  [default: from criterion and time]")
@options.database
@options.asking
@options.working
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="PNG", help="Also draw the clusters as a contact sheet."
)
@options.as_json
def command(collection: Path, criterion: str, name: str | None, db: str, prompts: str | None, max_calls: int | None,
            max_cost: float | None, picture: Path | None, as_json: bool, **given: Any) -> None:  # fmt: skip
    """Cluster COLLECTION by a criterion in words.

    COLLECTION is a folder of images, or a .csv, .jsonl or .parquet file with a `file` or a `text` column. A key for
    the endpoint is taken from PARTITA_API_KEY, the file that PARTITA_API_KEY_FILE names, or OPENAI_API_KEY; for an
    --embed-endpoint on another host from PARTITA_EMBED_API_KEY or PARTITA_EMBED_API_KEY_FILE.
    """
    parameters = make_parameters(given)
    if picture is not None:
        check_picture(picture)
    console = quiet_console()
    with (
        open_database(db) as database,
        options.reported(database, as_json) as report,
        progress_on(console, report.begun) as watch,
    ):
        work = begin(
            database, collection, criterion, parameters, name=name, prompts=prompts,
            keys=find_keys(read_environment()), limits=options.limits(max_calls, max_cost), watch=watch,
        )  # fmt: skip
        asyncio.run(work)
    if picture is not None:
        try:
            console.print(f"picture: {Session(report.session, db).picture(picture)}", highlight=False)
        except UsageError as e:
            console.print(f"no picture: {e}", highlight=False)
