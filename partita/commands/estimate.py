"""``partita estimate``: what a run would take, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from partita.commands import options
from partita.display import print_spans
from partita.endpoints import check_built_in, check_kind
from partita.expected import expected, measured
from partita.prompts import choose_at
from partita.settings import Parameters, make_parameters
from storage.database import is_there, open_database
from storage.errors import UsageError
from storage.items import Collection, scan
from storage.spend import Usual


@click.command("estimate")
@click.argument("collection", type=click.Path(path_type=Path))
@options.criterion
@options.database
@options.asking
@options.working
@options.as_json
def command(collection: Path, criterion: str, db: str, prompts: str | None, max_calls: int | None,
            max_cost: float | None, as_json: bool, **given: Any) -> None:  # fmt: skip
    """Say what clustering COLLECTION by a criterion would take: calls, tokens, cost and time.

    Takes the options of `run` and reads the collection as it does. Asks no endpoint and begins no session. Tokens and
    time are those of earlier calls of the model in this database; without any they are assumed.
    """
    parameters = make_parameters(given)
    criterion = criterion.strip()
    if not criterion:
        raise UsageError("--by: the criterion is empty; say in words what to cluster by, e.g. --by suit")
    limits = options.limits(max_calls, max_cost)
    prompt_set = choose_at(db, criterion, prompts).prompts
    check_built_in(parameters, criterion)
    took = _measured(db, parameters)
    found = _scanned(collection)
    check_kind(parameters, found)
    would = expected(found, prompt_set, parameters, limits.prices, took, max_calls=max_calls, max_cost=max_cost)
    if as_json:
        options.print_json(would.to_json())
    else:
        title = f"{would.job.items:,} items by {escape(repr(criterion))}"
        print_spans(title, would.rows(), would.notes())


def _measured(db: str, parameters: Parameters) -> dict[str, Usual]:
    """What calls took before, by kind. A SQLite file that isn't there is not made for this."""
    if not is_there(db):
        return {}
    with open_database(db) as database:
        return measured(database, parameters)


def _scanned(collection: Path) -> Collection:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the collection", total=None)
        return scan(collection, lambda done, total: bar.update(task, completed=done, total=total))
