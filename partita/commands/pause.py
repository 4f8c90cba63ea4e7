"""``partita pause``: have the process that works on a session stop."""

from __future__ import annotations

import click
from rich.markup import escape

from partita.commands import options
from partita.display import output, quiet_console
from partita.pausing import ask_to_pause, wait_for_pause
from partita.plain import plain
from partita.stored import status_now
from storage.database import open_database
from storage.sessions import load_session


@click.command("pause")
@options.session
@options.database
@options.as_json
def command(session: str, db: str, as_json: bool) -> None:
    """Ask the process that works on SESSION to pause, and wait until it has.

    It may run anywhere that the database is seen from. Calls in flight get a few seconds to end; what was answered is
    kept, and `partita resume` goes on from there.
    """
    with open_database(db, make=False) as database:
        asked = ask_to_pause(database, session)
        quiet_console().print(f"asked session [bold]{escape(asked.name)}[/] to pause", highlight=False)
        wait_for_pause(database, asked)
        record = load_session(database, asked.id)
        status = status_now(database, record)
    if as_json:
        options.print_json({"session": record.name, "status": status, "why": record.why})
        return
    why = f": {escape(plain(record.why))}" if record.why else ""
    output().print(f"session [bold]{escape(record.name)}[/] is {status}{why}", highlight=False, soft_wrap=True)
