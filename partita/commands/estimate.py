"""``partita estimate``: what a run would take, before anything is spent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from agents.prompt_sets import choose_prompt_set
from partita.commands import options
from partita.display import output
from partita.endpoints import check_built_in
from partita.estimate import Estimate, Job, Policy, estimate, image_tokens, text_tokens
from partita.prices import find_prices
from partita.settings import EMBEDDED, Parameters, make_parameters
from storage.database import open_database
from storage.errors import UsageError
from storage.images import Undecodable, opened
from storage.items import Collection, Item, scan
from storage.spend import Usual, usual

BUILT_IN = "partita-mini"
"""The built-in model's name, under which its answers are in the ledger."""
LOOKED_AT = 200
"""Items whose size is looked at, evenly spread over the collection."""


@click.command("estimate")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--by", "criterion", required=True, metavar="CRITERION", help="What to cluster by, in words.")
@options.database
@click.option(
    "--endpoint",
    envvar="PARTITA_ENDPOINT",
    metavar="URL",
    help="Base URL of the chat model; it is not asked.  [default: embedded]",
)
@click.option("--model", envvar="PARTITA_MODEL", metavar="NAME", help="Model whose price and measurements hold.")
@click.option("--embed-endpoint", metavar="URL", help="Where embeddings come from.  [default: the chat endpoint]")
@click.option("--embed-model", metavar="NAME", help="Model that embeds.  [default: the chat model]")
@click.option(
    "--embed-mode", type=click.Choice(["native", "caption"]), help="As for run.  [default: native if embedded]"
)
@click.option("--prompts", metavar="FILE|NAME", help="Prompt set.  [default: the one that matches the criterion]")
@click.option(
    "--policy",
    type=click.Choice(["evidence", "paper"]),
    default="evidence",
    show_default=True,
    help="How the search is done.",
)
@click.option("--representatives", type=int, metavar="K", help="Members that stand for a cluster.  [default: 3]")
@click.option(
    "--candidates",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="B",
    help="Candidates in one membership call.",
)
@click.option("--longest-side", type=int, metavar="PIXELS", help="Images are sent at most this large.  [default: 768]")
@click.option("--concurrency", type=int, help="Calls in flight.  [default: 32]")
@click.option("--max-calls", type=click.IntRange(min=0), metavar="N", help="Would this many chat calls do?")
@click.option("--max-cost", type=click.FloatRange(min=0), metavar="X", help="Would this much money (USD) do?")
@click.option(
    "--prices",
    "named_prices",
    envvar="PARTITA_PRICES",
    metavar="FILE",
    help="Your own table of prices.  [default: ~/.config/partita/prices.yaml]",
)
@click.option("--config-home", envvar="XDG_CONFIG_HOME", hidden=True)
@options.as_json
def command(collection: Path, criterion: str, db: str, prompts: str | None, policy: Policy, candidates: int,
            max_calls: int | None, max_cost: float | None, named_prices: str | None, config_home: str | None,
            as_json: bool, **given: Any) -> None:  # fmt: skip
    """Say what clustering COLLECTION by a criterion would take: calls, tokens, cost and time.

    Reads the collection as `run` does. Asks no endpoint and begins no session. Tokens and time are those of earlier
    calls of the model in this database; without any they are assumed.
    """
    parameters = make_parameters(given)
    criterion = criterion.strip()
    if not criterion:
        raise UsageError("--by: the criterion is empty; say in words what to cluster by, e.g. --by suit")
    if policy == "paper" and candidates != 1:
        raise UsageError("--candidates: policy paper asks about one candidate at a time: leave it out, or give 1")
    if max_cost is not None and not math.isfinite(max_cost):
        raise UsageError(f"--max-cost {max_cost}: give an amount in USD, or leave it out")
    prompt_set = choose_prompt_set(criterion, prompts)
    check_built_in(parameters, criterion)
    prices = find_prices(named_prices, config_home)
    endpoint, model, embed_endpoint, embed_model = _models(parameters)
    price = prices.of(model, endpoint=endpoint)
    embed_price = prices.of(embed_model, endpoint=embed_endpoint)
    remarks = dict.fromkeys([prices.remark(model, price), prices.remark(embed_model, embed_price)])
    took = _measured(db, model, embed_model)
    found = _scanned(collection)
    job = Job(
        prompts=prompt_set,
        items=len(found.items),
        distinct=len({item.content_hash for item in found.items}),
        failed=len(found.failed),
        item_tokens=_item_tokens(found, parameters.longest_side),
        policy=policy,
        representatives=parameters.representatives,
        candidates=candidates,
        concurrency=parameters.concurrency,
        native=parameters.embeds_natively,
        built_in=endpoint == EMBEDDED,
        price=price,
        embed_price=embed_price,
        usual=took,
        max_calls=max_calls,
        max_cost=max_cost,
        remarks=tuple(remark for remark in remarks if remark),
    )
    expected = estimate(job)
    if as_json:
        options.print_json(expected.to_json())
    else:
        _print(expected, criterion)


def _models(parameters: Parameters) -> tuple[str, str, str, str]:
    """(endpoint, model, embed endpoint, embed model), as far as they are known without asking."""

    def named(endpoint: str, model: str | None) -> str:
        return model or (BUILT_IN if endpoint == EMBEDDED else "the endpoint's first model (name it with --model)")

    p = parameters
    elsewhere = p.embed_endpoint or p.endpoint
    model = named(p.endpoint, p.model)
    embed_model = model if elsewhere == p.endpoint and not p.embed_model else named(elsewhere, p.embed_model)
    return p.endpoint, model, elsewhere, embed_model


def _measured(db: str, model: str, embed_model: str) -> dict[str, Usual]:
    """What calls took before, by kind. A SQLite file that isn't there is not made for this."""
    try:
        url = make_url(db)
        is_new = url.drivername.startswith("sqlite") and not Path(url.database or ":memory:").expanduser().exists()
    except (ArgumentError, ValueError):
        is_new = False  # opening it says what is wrong
    if is_new:
        return {}
    with open_database(db) as database:
        chat = {kind: took for kind, took in usual(database, model).items() if kind != "embed"}
        embed = {kind: took for kind, took in usual(database, embed_model).items() if kind == "embed"}
    return chat | embed


def _scanned(collection: Path) -> Collection:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the collection", total=None)
        return scan(collection, lambda done, total: bar.update(task, completed=done, total=total))


def _item_tokens(found: Collection, longest_side: int) -> float:
    some = found.items[:: max(1, len(found.items) // LOOKED_AT)]
    sizes = [tokens for item in some if (tokens := _size(item, longest_side)) is not None]
    return sum(sizes) / len(sizes) if sizes else image_tokens(longest_side, longest_side, longest_side)


def _size(item: Item, longest_side: int) -> float | None:
    if item.path is None:
        return text_tokens(item.text or "")
    try:
        with opened(item.path.read_bytes()) as image:
            return image_tokens(*image.size, longest_side)
    except (OSError, Undecodable):  # it was fine a moment ago: the run will say
        return None


def _print(expected: Estimate, criterion: str) -> None:
    title = f"{expected.job.items:,} items by {escape(repr(criterion))}"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("")
    for heading, style in (("low", "dim"), ("likely", "bold"), ("high", "dim")):
        table.add_column(heading, justify="right", style=style, no_wrap=True, min_width=10)
    for row in expected.rows():
        table.add_row(*row)
    console = output()
    console.print(table)
    console.print()
    for note in expected.notes():
        console.print(escape(note), highlight=False, soft_wrap=True)
