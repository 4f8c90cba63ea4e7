"""``partita run``: begin a session and run it to its end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click

from partita.api import Session
from partita.commands import options
from partita.display import progress_on, quiet_console
from partita.running import begin
from partita.settings import make_parameters, read_environment
from storage.database import open_database
from storage.errors import UsageError


def threshold(text: str | None) -> float | str | None:
    """τ as an option gives it: a number, or ``auto``."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--threshold {text}: give a number between 0 and 1, or 'auto'") from None


@click.command("run")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option(
    "--by",
    "criterion",
    required=True,
    metavar="CRITERION",
    help='What to cluster by, in words: "suit", "pose of the head".',
)
@click.option("--session", "name", metavar="NAME", help="Name of the session.  [default: from criterion and time]")
@options.database
@click.option(
    "--endpoint",
    envvar="PARTITA_ENDPOINT",
    metavar="URL",
    help="OpenAI-compatible base URL of the chat model.  [default: embedded]",
)
@click.option("--model", envvar="PARTITA_MODEL", metavar="NAME", help="Model at the endpoint.  [default: its first]")
@click.option("--embed-endpoint", metavar="URL", help="Where embeddings come from.  [default: the chat endpoint]")
@click.option("--embed-model", metavar="NAME", help="Model that embeds.  [default: the chat model]")
@click.option(
    "--embed-mode",
    type=click.Choice(["native", "caption"]),
    help="native: chat-form embeddings; caption: of the description.  [default: native if embedded]",
)
@click.option("--prompts", metavar="FILE|NAME", help="Prompt set.  [default: the one that matches the criterion]")
@click.option("--policy", type=click.Choice(["evidence", "paper"]), help="How the search is done.  [default: evidence]")
@click.option("--representatives", type=int, metavar="K", help="Members that stand for a cluster.  [default: 3]")
@click.option(
    "--threshold", metavar="τ", help="Least edge weight, or 'auto'.  [default: the embedder's own, otherwise auto]"
)
@click.option("--longest-side", type=int, metavar="PIXELS", help="Images are sent at most this large.  [default: 768]")
@click.option("--max-tokens", type=int, metavar="N", help="Longest reply.  [default: 2048]")
@click.option("--candidates", type=int, metavar="B", help="Candidates in one membership call.  [default: 1]")
@click.option("--seed", type=int, help="[default: 0]")
@options.working
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="PNG", help="Also draw the clusters as a contact sheet."
)
@options.as_json
def command(collection: Path, criterion: str, name: str | None, db: str, prompts: str | None, max_calls: int | None,
            max_cost: float | None, picture: Path | None, as_json: bool, **given: Any) -> None:  # fmt: skip
    """Cluster COLLECTION by a criterion in words.

    COLLECTION is a folder of images, or a .csv, .jsonl or .parquet file with a `file` or a `text` column. A key for
    the endpoint is taken from PARTITA_API_KEY or OPENAI_API_KEY.
    """
    given["threshold"] = threshold(given["threshold"])
    parameters = make_parameters(given)
    if picture is not None and not os.access(picture.absolute().parent, os.W_OK):
        raise UsageError(f"--picture {picture}: there is no such folder, or it can't be written to")
    console = quiet_console()
    with (
        open_database(db) as database,
        options.reported(database, as_json) as report,
        progress_on(console, report.begun) as watch,
    ):
        work = begin(
            database, collection, criterion, parameters, name=name, prompts=prompts,
            key=read_environment().api_key, limits=options.limits(max_calls, max_cost), watch=watch,
        )  # fmt: skip
        asyncio.run(work)
    if picture is not None:
        try:
            console.print(f"picture: {Session(report.session, db).picture(picture)}", highlight=False)
        except UsageError as e:
            console.print(f"no picture: {e}", highlight=False)
