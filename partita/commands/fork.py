"""``partita fork``: a session from another, with other prompts."""

from __future__ import annotations

import asyncio

import click

from partita.commands import options
from partita.display import progress_on, quiet_console
from partita.forking import fork
from partita.keys import find_keys
from partita.running import go_on
from partita.settings import read_environment
from storage.database import open_database


@click.command("fork")
@options.session
@click.option("--prompts", required=True, metavar="FILE|NAME|HASH", help="The prompt set of the new session.")
@click.option("--session", "name", metavar="NAME", help="Name of the new session.  [default: from criterion and time]")
@options.database
@options.working
@options.as_json
def command(
    session: str,
    prompts: str,
    name: str | None,
    db: str,
    max_calls: int | None,
    max_cost: float | None,
    as_json: bool,
    concurrency: int | None,
    request_timeout: float | None,
) -> None:
    """Make a session from SESSION with other prompts, and run it: only what they change is asked again.

    Model, parameters and your corrections are those of SESSION, which stays as it is.
    """
    console = quiet_console()
    with (
        open_database(db, make=False) as database,
        options.reported(database, as_json) as report,
        progress_on(console, report.begun) as watch,
    ):
        made = fork(database, session, prompts, session=name)
        console.print(made.line(), highlight=False)
        changes = {"concurrency": concurrency, "request_timeout": request_timeout}
        limits = options.limits(max_calls, max_cost)
        keys = find_keys(read_environment())
        asyncio.run(go_on(database, made.session, changes=changes, keys=keys, limits=limits, watch=watch))
