"""Options that several verbs share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from partita.display import output, print_result
from partita.settings import DEFAULT_DB, read_environment
from partita.stored import result_of
from storage.database import Database
from storage.errors import PartitaError

if TYPE_CHECKING:
    from partita.running import Limits

F = TypeVar("F", bound=Callable[..., Any])

database = click.option(
    "--db", envvar="PARTITA_DB", default=DEFAULT_DB, show_default=True, metavar="URL",
    help="SQLAlchemy URL of the database: SQLite or PostgreSQL.",
)  # fmt: skip
as_json = click.option(
    "--json", "as_json", is_flag=True, help="The last line on stdout is one JSON object; progress goes to stderr."
)
session = click.argument("session", metavar="SESSION")


def limits(max_calls: int | None, max_cost: float | None) -> Limits:
    """What the session may spend, by the prices that the environment names."""
    from partita.prices import find_prices
    from partita.running import Limits

    environment = read_environment()
    return Limits(max_calls, max_cost, find_prices(environment.prices, environment.config_home))


def working(command: F) -> F:
    """Options of verbs that ask a model: they change no question, so they may differ on ``resume``."""
    for option in reversed(
        (
            click.option("--concurrency", type=int, help="Calls in flight.  [default: 32]"),
            click.option(
                "--request-timeout", type=float, metavar="S", help="Seconds for one try of a call.  [default: 120]"
            ),
            click.option(
                "--max-calls",
                type=click.IntRange(min=0),
                metavar="N",
                help="Pause (exit 3) before more chat calls than this.",
            ),
            click.option(
                "--max-cost",
                type=click.FloatRange(min=0),
                metavar="X",
                help="Pause (exit 3) before more than this is spent, in USD.",
            ),
        )
    ):
        command = option(command)
    return command


class Report:
    """Which session a command is about, once that is known."""

    session = ""

    def begun(self, name: str) -> None:
        """Called with the session's name."""
        self.session = name


@contextmanager
def reported(database: Database, as_json: bool) -> Iterator[Report]:
    """End a command that works on a session with its result; as JSON also when the session is paused or has failed."""
    report = Report()
    try:
        yield report
    except (PartitaError, KeyboardInterrupt):
        if report.session and as_json:
            print_json(result_of(database, report.session).to_json())
        raise
    result = result_of(database, report.session)
    if as_json:
        print_json(result.to_json())
    else:
        print_result(output(), result)


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
