"""``partita trace``: what the agents were asked, what they answered, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from partita.api import Session
from partita.commands import options
from partita.display import output, quiet_console
from partita.moments import read_end, read_moment
from partita.plain import plain
from partita.telling import tell_all, tell_story
from storage.calls import CONCLUSIONS, Held
from storage.corrections import KIND as CORRECTION
from storage.errors import UsageError

_SPANS = ".otlp.jsonl"


@click.command("trace")
@options.session
@options.database
@click.option("--item", metavar="NAME", help="Only what touched this item; on a terminal its story.")
@click.option("--cluster", type=int, metavar="ID", help="Only what touched members of this cluster.")
@click.option(
    "--kind",
    type=click.Choice(["membership", "merge", "correction", "describe", "embed"]),
    help="Only this kind.  [default: membership, merge and correction]",
)
@click.option("--conclusion", type=click.Choice(CONCLUSIONS, case_sensitive=False), help="Only answers that say so.")
@click.option(
    "--since", metavar="TIME", help="Only answers from then on: 2026-11-28T10:30, 10:30, or 10m for ten minutes ago."
)
@click.option("--until", metavar="TIME", help="Only answers up to then.")
@click.option("--model", metavar="NAME", help="Only answers of the model that calls itself so.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N of them.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write to a file: JSON lines (.jsonl), or OpenTelemetry's spans (.otlp.jsonl).",
)
@click.option("--otlp", metavar="URL", help="Send spans to an OpenTelemetry collector, such as http://localhost:4318.")
@click.option("--contents", is_flag=True, help="Spans with instructions, replies and names of items; never images.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    session: str,
    db: str,
    since: str | None,
    until: str | None,
    to: Path | None,
    otlp: str | None,
    contents: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Show every assessment of SESSION in the order in which answers came.

    With --item, tell how that item came to its place. Several filters hold together.

    As spans, with --otlp or --to FILE.otlp.jsonl, a session is one trace: the session, its agents, and a span for every
    call that the filters leave, describe and embed included. Nothing is sent anywhere without --otlp.
    """
    spans = otlp is not None or (to is not None and to.name.endswith(_SPANS))
    _check(to, spans=spans, contents=contents, as_json=as_json)
    filters = given | {
        "since": since and read_moment(since, "--since"),
        "until": until and read_end(until, "--until"),
    }
    opened = Session(session, db)
    if otlp is not None:
        sent = opened.send_spans(otlp, contents=contents, **filters)
        click.echo(f"sent: {sent} spans of trace {opened.trace_id}", err=True)
    if to is not None and to.name.endswith(_SPANS):
        written = opened.write_spans(to, contents=contents, **filters)
        click.echo(f"written: {to} ({written} spans of trace {opened.trace_id})", err=True)
    elif to is not None:
        written = opened.write_trace(to, **filters)
        click.echo(f"written: {to} ({written} rows)", err=True)
    elif otlp is None and not _show(opened, filters, as_json=as_json):
        for line in _nothing(opened.held()):
            quiet_console().print(line, markup=False, highlight=False, soft_wrap=True)


def _check(to: Path | None, *, spans: bool, contents: bool, as_json: bool) -> None:
    if to is not None and to.suffix.lower() != ".jsonl":
        raise UsageError(f"--to {to}: name a .jsonl file for rows, or a {_SPANS} file for spans")
    if contents and not spans:
        raise UsageError(f"--contents is for spans: give --otlp URL or --to FILE{_SPANS} with it")
    if as_json and (to is not None or spans):
        raise UsageError("--json writes to stdout: leave it out with --to and --otlp")


def _show(opened: Session, filters: dict[str, Any], *, as_json: bool) -> int:
    """Print rows; how many there were."""
    item = filters["item"]
    if not as_json and item is None:
        return tell_all(output(), opened.trace(**filters), opened.result().texts)
    if not as_json:
        named, together = opened.name_in_trace(item), opened.found_with(item)
        return tell_story(output(), item, named, opened.story(**filters), opened.result(), together)
    shown = 0
    for row in opened.trace(**filters):
        options.print_json(row)
        shown += 1
    return shown


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
    lines = ["nothing matches; the session has " + ", ".join(words)]
    if by_models := [held for held in there if held.kind != CORRECTION]:
        first, last = (
            f"{moment.astimezone():%Y-%m-%dT%H:%M:%S%z}"
            for moment in (min(held.first for held in by_models), max(held.last for held in by_models))
        )
        models = ", ".join(sorted({plain(held.model) for held in by_models}))
        lines.append(f"answered from {first} to {last} by {models}")
    return lines
