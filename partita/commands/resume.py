"""``partita resume``: go on with a session where it stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from partita.commands import options
from partita.display import progress_on, quiet_console
from partita.keys import find_keys
from partita.running import go_on
from partita.settings import read_environment
from storage.database import open_database


@click.command("resume")
@options.session
@options.database
@click.option("--endpoint", metavar="URL", help="The endpoint has moved; the model is the same.")
@click.option("--model", metavar="FOLDER", help="Where the model's folder lies now, if it has moved.")
@click.option("--embed-endpoint", metavar="URL", help="Likewise for embeddings; any, while nothing is embedded yet.")
@click.option("--embed-model", metavar="FOLDER", help="Where a local sentence embedder of the same name lies now.")
@options.working
@options.as_json
def command(
    session: str, db: str, max_calls: int | None, max_cost: float | None, as_json: bool, **changes: Any
) -> None:
    """Go on with SESSION where it stopped. No finished call is made again."""
    with (
        open_database(db, make=False) as database,
        options.reported(database, as_json) as report,
        progress_on(quiet_console(), report.begun) as watch,
    ):
        keys = find_keys(read_environment())
        limits = options.limits(max_calls, max_cost)
        asyncio.run(go_on(database, session, changes=changes, keys=keys, limits=limits, watch=watch))
