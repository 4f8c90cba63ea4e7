"""``partita prompts list``: the shipped sets, and the versions in a database."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.markup import escape
from rich.table import Table

from agents.prompt_sets import shipped_names, shipped_set
from partita.commands import options
from partita.display import output
from partita.plain import folded, plain
from storage.database import is_there, open_database
from storage.prompts import Version, versions

_NAMED = 3
"""Sessions of a version that are named."""


@click.command("list")
@options.database
@options.as_json
def command(db: str, as_json: bool) -> None:
    """List the shipped sets, and the versions in the database with the sessions that used them.

    Every set that a session used is a version, by its hash, and every one that was kept with `keep` or drafted.
    """
    found: list[Version] = []
    if is_there(db):
        with open_database(db) as database:
            found = versions(database)
    shipped = [shipped_set(name, "$criterion") for name in shipped_names()]
    if as_json:
        sets = [{"name": s.name, "aliases": s.aliases, "criterion": s.criterion, "hash": s.hash} for s in shipped]
        options.print_json({"shipped": sets, "versions": [version.to_json() for version in found]})
        return
    table = Table(box=None)
    for heading in ("set", "also called", "criterion", "hash"):
        table.add_column(heading)
    for s in shipped:
        table.add_row(s.name, ", ".join(s.aliases), escape(s.criterion), s.hash)
    console = output()
    console.print(table)
    if found:
        console.print("\nversions, the latest first (`partita prompts show HASH`):", highlight=False)
    for version in found:
        for line in _told(version):
            console.print(line, highlight=False, soft_wrap=True)


def _told(version: Version) -> Sequence[str]:
    """A version in a few lines."""
    when = f"{version.at.astimezone():%Y-%m-%d %H:%M}"
    source = f", {version.source}" if version.source else ""
    lines = [f"[bold]{escape(plain(version.hash))}[/]  {escape(plain(version.name))}{source}, {when}"]
    criterion = folded(version.criterion)
    lines.append(f"    {escape(criterion if len(criterion) <= 76 else criterion[:75] + '…')}")
    if version.sessions:
        named = ", ".join(map(plain, version.sessions[:_NAMED]))
        more = len(version.sessions) - _NAMED
        lines.append(f"    [dim]used by {escape(named)}{f' and {more} more' if more > 0 else ''}[/]")
    return lines
