"""``partita sessions``: the sessions in a database."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.table import Table

from partita.commands import options
from partita.display import how_far, output
from partita.plain import plain
from partita.stored import status_now
from storage.database import open_database
from storage.sessions import list_sessions


@click.command("sessions")
@options.database
@options.as_json
def command(db: str, as_json: bool) -> None:
    """List the sessions, the newest first."""
    with open_database(db, make=False) as database:
        rows = [(r, status_now(database, r)) for r in list_sessions(database)]
    if as_json:
        for r, status in rows:
            row = {"session": r.name, "status": status, "criterion": r.criterion, "policy": r.policy,
                   "collection": r.collection, "created_at": r.created_at.isoformat(), "why": r.why}  # fmt: skip
            options.print_json(row | ({"progress": r.progress} if status == "running" and r.progress else {}))
        return
    if not rows:
        begin = "`partita run COLLECTION --by CRITERION` begins one"
        output().print(f"no sessions yet in {escape(str(database))}: {begin}", highlight=False, soft_wrap=True)
        return
    table = Table(box=None)
    for heading in ("session", "status", "criterion", "collection", "begun"):
        table.add_column(heading)
    for r, status in rows:
        begun = f"{r.created_at.astimezone():%Y-%m-%d %H:%M}"
        if status == "running" and r.progress:
            status += f" · {escape(how_far(r.progress)[0])}"
        table.add_row(escape(r.name), status, escape(plain(r.criterion)), escape(plain(r.collection)), begun)
    output().print(table)
