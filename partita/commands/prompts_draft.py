"""``partita prompts draft``: a prompt set that a model writes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from partita.commands import options
from partita.display import quiet_console
from partita.drafting import SHOWN, check_can_draft, draft, some_of
from partita.keys import find_keys
from partita.plain import plain
from partita.prices import find_prices
from partita.prompts import Chosen
from partita.settings import make_parameters, read_environment
from storage.artefacts import new_file
from storage.database import is_there, open_database
from storage.errors import Paused, UsageError
from storage.items import Item, scan


@click.command("draft")
@click.argument("criterion")
@click.option(
    "--endpoint", envvar="PARTITA_ENDPOINT", metavar="URL", help="OpenAI-compatible base URL of the chat model."
)
@click.option("--model", envvar="PARTITA_MODEL", metavar="NAME", help="Model at the endpoint.  [default: its first]")
@click.option(
    "--collection", type=click.Path(path_type=Path), metavar="COLLECTION", help="Show it some items of this collection."
)
@click.option("--show", type=click.IntRange(0, 16), metavar="N", help=f"Items that it is shown.  [default: {SHOWN}]")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="Write the set there, not to stdout.")
@click.option("--request-timeout", type=float, metavar="S", help="Seconds for one try of a call.  [default: 120]")
@options.database
def command(criterion: str, endpoint: str | None, model: str | None, collection: Path | None, show: int | None,
            to: Path | None, request_timeout: float | None, db: str) -> None:  # fmt: skip
    """Have a model write a prompt set for CRITERION: what to look at, which values there are, what to ignore.

    It is yours to edit. One question is asked, and another one or two if the reply can't be used. A database that is
    there keeps the draft as a version.
    """
    parameters = make_parameters({"endpoint": endpoint, "model": model, "request_timeout": request_timeout})
    check_can_draft(parameters, criterion)
    if to is not None and (to.exists() or to.is_symlink()):
        raise UsageError(f"--to {to}: that is there already and is not written over: name another file")
    if show is not None and collection is None:
        raise UsageError("--show says how many items of a --collection the model is shown: name one")
    items = _shown(collection, SHOWN if show is None else show)
    environment, console = read_environment(), quiet_console()

    def note(line: str) -> None:
        console.print(f"[yellow]{escape(plain(line))}[/]", highlight=False)

    prices = find_prices(environment.prices, environment.config_home)
    asking = draft(criterion, parameters, keys=find_keys(environment), items=items, prices=prices, on_note=note)
    try:
        made = asyncio.run(asking)
    except KeyboardInterrupt:
        raise Paused("stopped; there is no draft") from None
    if to is None:
        click.echo(made.text, nl=False)
    else:
        with new_file(to) as stream:
            stream.write(made.text.encode())
    kept = ""
    if is_there(db):
        with open_database(db) as database:
            Chosen(made.prompts, "drafted", made.text).kept_in(database)
        kept = f", kept as {made.prompts.hash}"
    written = "" if to is None else f"written: {to}; "
    console.print(escape(plain(f"{written}drafted by {made.model} ({made.line()}){kept}")), highlight=False)


def _shown(collection: Path | None, number: int) -> list[Item]:
    if collection is None or not number:
        return []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the collection", total=None)
        found = scan(collection, lambda done, total: bar.update(task, completed=done, total=total))
    return some_of(found.items, number)
