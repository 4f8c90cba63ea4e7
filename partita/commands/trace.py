"""``partita trace``: what the agents were asked, what they answered, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from partita.api import Session
from partita.commands import options
from partita.display import output, quiet_console
from partita.moments import read_end, read_moment
from partita.plain import plain
from partita.telling import tell_all, tell_story
from storage.calls import CONCLUSIONS, Held


@click.command("trace")
@options.session
@options.database
@click.option("--item", metavar="NAME", help="Only what touched this item; on a terminal its story.")
@click.option("--cluster", type=int, metavar="ID", help="Only what touched members of this cluster.")
@click.option(
    "--kind",
    type=click.Choice(["membership", "merge", "describe", "embed"]),
    help="Only this kind.  [default: membership and merge]",
)
@click.option("--conclusion", type=click.Choice(CONCLUSIONS, case_sensitive=False), help="Only answers that say so.")
@click.option(
    "--since", metavar="TIME", help="Only answers from then on: 2026-11-28T10:30, 10:30, or 10m for ten minutes ago."
)
@click.option("--until", metavar="TIME", help="Only answers up to then.")
@click.option("--model", metavar="NAME", help="Only answers of the model that calls itself so.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N of them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    session: str,
    db: str,
    item: str | None,
    cluster: int | None,
    since: str | None,
    until: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Show every assessment of SESSION in the order in which answers came.

    With --item, tell how that item came to its place. Several filters hold together.
    """
    filters = given | {
        "cluster": cluster,
        "since": since and read_moment(since, "--since"),
        "until": until and read_end(until, "--until"),
    }
    opened = Session(session, db)
    if as_json:
        told = 0
        for told, row in enumerate(opened.trace(item=item, **filters), 1):
            options.print_json(row)
    elif item is None:
        told = tell_all(output(), opened.trace(**filters), opened.result().texts)
    else:
        named_as = opened.name_in_trace(item)
        told = tell_story(output(), item, named_as, opened.story(item, **filters), opened.result())
    if not told:
        for line in _nothing(opened.held()):
            quiet_console().print(line, markup=False, highlight=False, soft_wrap=True)


def _nothing(there: Sequence[Held]) -> list[str]:
    """What to say where nothing matches: what there is."""
    if not there:
        return ["nothing was answered in this session yet"]
    kinds: Counter[str] = Counter()
    conclusions: dict[str, Counter[str]] = {}
    for held in there:
        kinds[held.kind] += held.calls
        if held.conclusion is not None:
            # Of several candidates, each counts.
            for conclusion in held.conclusion.split():
                conclusions.setdefault(held.kind, Counter())[conclusion] += held.calls
    words = []
    for kind, calls in kinds.items():
        said = ", ".join(f"{n:,} {conclusion}" for conclusion, n in conclusions.get(kind, Counter()).items())
        words.append(f"{calls:,} {kind}" + (f" ({said})" if said else ""))
    first, last = min(held.first for held in there), max(held.last for held in there)
    models = ", ".join(sorted({plain(held.model) for held in there}))
    return [
        "nothing matches; the session has " + ", ".join(words),
        f"answered from {first.astimezone():%Y-%m-%dT%H:%M:%S%z} to {last.astimezone():%Y-%m-%dT%H:%M:%S%z} by {models}",
    ]
