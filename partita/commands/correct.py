"""``partita correct``: a person's word on a session's clusters."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from partita.api import Session
from partita.commands import options
from partita.display import output
from partita.plain import folded
from partita.steering import Told

_items = click.argument("items", nargs=-1, required=True, metavar="ITEM...")
_why = click.option("--why", metavar="WORDS", help="Your reason; it stands in the trace.")


class _Anywhere(click.Group):
    """Takes `--db` wherever it stands, as the other verbs do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for at, word in enumerate(args):
            if word == "--db" or word.startswith("--db="):
                taken = args[at : at + 1 + (word == "--db")]
                args = [*taken, *args[:at], *args[at + len(taken) :]]
                break
        return super().parse_args(ctx, args)


@click.group("correct", cls=_Anywhere)
@options.session
@options.database
@click.pass_context
def command(context: click.Context, session: str, db: str) -> None:
    """Correct the clusters of SESSION by hand. Whatever the agents come to, now or on `resume`, your word holds.

    Items are named as `partita export` lists them, clusters by the numbers of `partita show`.
    """
    context.obj = Session(session, db)


@command.command("move")
@_items
@click.option("--to", type=int, required=True, metavar="CLUSTER", help="Where they belong.")
@_why
@click.pass_obj
def move(session: Session, items: tuple[str, ...], to: int, why: str | None) -> None:
    """Put items into another cluster."""
    with session.steering() as hands:
        _done(session, hands.move(items, to, why))


@command.command("split")
@_items
@click.option("--name", metavar="NAME", help="Of the new cluster.")
@_why
@click.pass_obj
def split(session: Session, items: tuple[str, ...], name: str | None, why: str | None) -> None:
    """Make items a cluster of their own."""
    with session.steering() as hands:
        _done(session, hands.split(items, name, why))


@command.command("unite")
@click.argument("clusters", nargs=-1, type=int, required=True, metavar="CLUSTER...")
@_why
@click.pass_obj
def unite(session: Session, clusters: tuple[int, ...], why: str | None) -> None:
    """Make clusters one."""
    with session.steering() as hands:
        for number in hands.unite_all(clusters, why):
            _done(session, number)


@command.command("rename")
@click.argument("cluster", type=int)
@click.argument("name")
@_why
@click.pass_obj
def rename(session: Session, cluster: int, name: str, why: str | None) -> None:
    """Call a cluster otherwise."""
    with session.steering() as hands:
        _done(session, hands.rename(cluster, name, why))


@command.command("together")
@_items
@_why
@click.pass_obj
def together(session: Session, items: tuple[str, ...], why: str | None) -> None:
    """Say that items belong together.

    They go where most of them stand; of equals, where you placed one of them last, otherwise where the first stands.
    """
    with session.steering() as hands:
        _done(session, hands.together(items, why))


@command.command("apart")
@_items
@click.option("--from", "others", multiple=True, required=True, metavar="ITEM", help="What they don't belong with.")
@_why
@click.pass_obj
def apart(session: Session, items: tuple[str, ...], others: tuple[str, ...], why: str | None) -> None:
    """Say that items don't belong with others."""
    with session.steering() as hands:
        _done(session, hands.apart(items, others, why))


@command.command("undo")
@click.argument("number", type=int, required=False, metavar="[NUMBER]")
@click.pass_obj
def undo(session: Session, number: int | None) -> None:
    """Undo the last correction, or the one with this number; undoing an undo brings it back."""
    with session.steering() as hands:
        click.echo(f"undone: {hands.undo(number).words}", err=True)


@command.command("list")
@options.as_json
@click.pass_obj
def show(session: Session, as_json: bool) -> None:
    """List what was said, and what of it holds."""
    with session.steering() as hands:
        told = hands.told()
    if as_json:
        for one in told:
            options.print_json(asdict(one))
    elif told:
        _print(output(), told)
    else:
        click.echo("nothing was corrected yet", err=True)


def _print(console: Console, told: list[Told]) -> None:
    table = Table(box=None)
    for heading in ("#", "when", "what", "why", ""):
        table.add_column(heading)
    for one in told:
        holds = "" if one.holds else "undone"
        table.add_row(
            str(one.id), one.at[:16].replace("T", " "), escape(one.words), escape(folded(one.why or "")), holds
        )
    console.print(table)


def _done(session: Session, number: int) -> None:
    click.echo(f"stored as correction {number}; `partita correct {session.name} undo {number}` takes it back", err=True)
