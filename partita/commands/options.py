"""Options that several verbs share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from partita.display import output, print_result, quiet_console
from partita.settings import DEFAULT_DB, read_environment
from partita.signals import ignore_signals
from partita.stored import result_of
from storage.database import Database
from storage.errors import EndpointError, PartitaError, Paused

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
criterion = click.option(
    "--by", "criterion", required=True, metavar="CRITERION",
    help='What to cluster by, in words: "suit", "pose of the head".',
)  # fmt: skip
session = click.argument("session", metavar="SESSION")


def limits(max_calls: int | None, max_cost: float | None) -> Limits:
    """What the session may spend, by the prices that the environment names."""
    from partita.prices import find_prices
    from partita.running import Limits

    environment = read_environment()
    return Limits(max_calls, max_cost, find_prices(environment.prices, environment.config_home))


def asking(command: F) -> F:
    """Options that say whom to ask, and how."""
    for option in reversed(
        (
            click.option(
                "--endpoint",
                envvar="PARTITA_ENDPOINT",
                metavar="URL",
                help="OpenAI-compatible base URL of the chat model.  [default: embedded]",
            ),
            click.option(
                "--model",
                envvar="PARTITA_MODEL",
                metavar="NAME|FOLDER",
                help="Model at the endpoint; for 'embedded' a folder, such as training leaves.  [default: its first]",
            ),
            click.option(
                "--embed-endpoint",
                metavar="URL",
                help="Where embeddings come from; 'local' is a sentence embedder here.  [default: the chat endpoint]",
            ),
            click.option(
                "--embed-model",
                metavar="NAME",
                help="Model that embeds; a folder if local.  [default: the chat model]",
            ),
            click.option(
                "--embed-mode",
                type=click.Choice(["native", "caption"]),
                help="native: chat-form embeddings; caption: of the description.  [default: native if embedded]",
            ),
            click.option(
                "--prompts", metavar="FILE|NAME|HASH", help="Prompt set.  [default: the one that matches the criterion]"
            ),
            click.option(
                "--policy",
                type=click.Choice(["evidence", "paper"]),
                help="How the search is done.  [default: evidence]",
            ),
            click.option(
                "--representatives", type=int, metavar="K", help="Members that stand for a cluster.  [default: 3]"
            ),
            click.option("--candidates", type=int, metavar="B", help="Candidates in one call.  [default: 1]"),
            click.option(
                "--longest-side",
                type=int,
                metavar="PIXELS",
                help="Images are sent at most this large.  [default: 768]",
            ),
            click.option(
                "--threshold",
                metavar="τ",
                help="Least edge weight, or 'auto'.  [default: the embedder's own, otherwise auto]",
            ),
            click.option("--max-tokens", type=int, metavar="N", help="Longest reply.  [default: 2048]"),
            click.option("--seed", type=int, help="[default: 0]"),
        )
    ):
        command = option(command)
    return command


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
    except (PartitaError, KeyboardInterrupt) as e:
        if isinstance(e, Paused):
            ignore_signals()
        if report.session and isinstance(e, EndpointError):
            kept = f"what was answered is kept: `partita resume {report.session}` goes on when the endpoint works"
            quiet_console().print(kept, highlight=False, soft_wrap=True)
        if report.session:
            so_far = result_of(database, report.session)
            if as_json:
                print_json(so_far.to_json())
            elif so_far.clusters:
                print_result(output(), so_far)
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
