"""``partita trace``: what the agents were asked, what they answered, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from partita.api import Session
from partita.commands import options
from partita.display import output
from partita.excerpts import named

_COLOURS = {"YES": "green", "NO": "red", "UNKNOWN": "yellow"}


@click.command("trace")
@options.session
@options.database
@click.option("--item", metavar="NAME", help="Only what touched this item.")
@click.option("--cluster", type=int, metavar="ID", help="Only what touched members of this cluster.")
@click.option(
    "--kind",
    type=click.Choice(["membership", "merge", "describe", "embed"]),
    help="Only this kind.  [default: membership and merge]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(session: str, db: str, item: str | None, cluster: int | None, kind: str | None, as_json: bool) -> None:
    """Show every assessment of SESSION in the order in which answers came."""
    console = output()
    opened = Session(session, db)
    texts = {} if as_json else opened.result().texts
    for row in opened.trace(item=item, cluster=cluster, kind=kind):
        if as_json:
            options.print_json(row)
        else:
            _print(console, row, texts)


def _print(console: Console, row: dict[str, Any], texts: Mapping[str, str]) -> None:
    def shown(items: Iterable[object]) -> str:
        between = "\n        " if texts else ", "
        return escape(between.join(named(str(item), texts) for item in items))

    verdict = row["conclusion"] or ""
    where = "" if row["component"] is None else f" component {row['component']} step {row['step']}"
    console.print(
        f"[dim]{row['id']}[/] [bold]{row['kind']}[/]{where} [{_COLOURS.get(verdict, 'default')}]{verdict}[/]"
        f" [dim]{row['seconds']:.2f} s, {row['tokens']} tokens[/]",
        highlight=False,
    )
    if row["kind"] == "merge":
        for letter, cluster in zip("AB", row["clusters"], strict=True):
            console.print(f"    cluster {letter}: {shown(cluster)}", highlight=False)
    else:
        if row["representatives"]:
            console.print(f"    representatives: {shown(row['representatives'])}", highlight=False)
        role = "candidate" if row["representatives"] else "item"
        console.print(f"    {role}: {shown(row['candidates'])}", highlight=False)
    for number, decision in enumerate(row["decisions"]):
        after = "" if number < len(row.get("candidates", "1")) else " (on taking stock)"
        about = f"{decision['item']} " if "item" in decision and (after or len(row["candidates"]) > 1) else ""
        told = (
            f"    {about}{decision['did']}{after}: log-odds {decision['odds']:+.1f}, settled at {decision['bound']:.1f}"
        )
        console.print(f"[dim]{escape(told)}[/]", highlight=False)
    said = row["reason"] or row["reply"]
    if said:
        console.print(f"    “{escape(said)}”", highlight=False)
