"""``partita spend``: what a session has spent, by stage, by model and by cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from partita.api import Session
from partita.commands import options
from partita.display import output
from partita.result import AS_BEFORE
from partita.spend import CURRENCY, Amount, Spend

_CLUSTERS = 60
"""Rows for clusters, as many as ``partita show`` has; the smaller ones are one row."""
_MANY = 10_000_000
_Row = tuple[tuple[str, ...], Amount]


@click.command("spend")
@options.session
@options.database
@click.option(
    "--by",
    type=click.Choice(["stage", "cluster", "model"]),
    help="Only this table.  [default: by stage and by cluster]",
)
@options.as_json
def command(session: str, db: str, by: str | None, as_json: bool) -> None:
    """Show what SESSION has spent: calls, images shown, tokens, seconds of the model, and cost.

    A call is put down to the clusters of the items that it decided about, in equal shares: the item that was described
    or embedded, the candidates of a membership question, the two sides of a merge question.
    """
    spend = Session(session, db).spend()
    if as_json:
        options.print_json(spend.to_json())
    else:
        _print(output(), spend, by)


def _print(console: Console, spend: Spend, by: str | None) -> None:
    console.print(f"session [bold]{escape(spend.session)}[/] is {spend.status}", highlight=False)
    console.print(f"spent: {spend.line()}", highlight=False)
    for table in _tables(spend, by) if spend.total.calls else ():
        console.print()
        console.print(table)
    notes = list(spend.remarks)
    if spend.of_teacher:
        notes.append(f"a teacher's answers for `partita train`, by no cluster; {AS_BEFORE}")
    elif spend.total.calls and not spend.clusters and by in (None, "cluster"):
        go_on = "" if spend.status == "running" else f"; `partita resume {spend.session}` goes on"
        notes.append(f"nothing by cluster: there is no partition yet{go_on}")
    if spend.reused:
        notes.append(f"{spend.reused:,} answers were taken over from another session and cost nothing here")
    if notes:
        console.print()
    for note in notes:
        console.print(escape(note), highlight=False, soft_wrap=True)


def _tables(spend: Spend, by: str | None) -> Iterator[Table]:
    if by in (None, "stage"):
        yield _table({"stage": "total"}, [((stage,), amount) for stage, amount in spend.stages.items()])
    if by == "model":
        yield _table({"model": "total"}, [((model,), amount) for model, amount in spend.models.items()])
    if by in (None, "cluster") and spend.clusters:
        items = sum(c.size for c in spend.clusters)
        yield _table({"cluster": "total", "items": f"{items:,}"}, _by_cluster(spend), leave_out="cached")


def _by_cluster(spend: Spend) -> list[_Row]:
    shown, rest = spend.clusters[:_CLUSTERS], spend.clusters[_CLUSTERS:]
    rows: list[_Row] = [((f"{c.id} {c.name}", f"{c.size:,}"), c.spent) for c in shown]
    if rest:
        size = sum(c.size for c in rest)
        rows.append(((f"{len(rest)} smaller ones", f"{size:,}"), sum((c.spent for c in rest), Amount())))
    if spend.elsewhere.calls:
        rows.append((("in no cluster", ""), spend.elsewhere))
    return rows


def _table(words: Mapping[str, str], rows: Sequence[_Row], leave_out: str = "") -> Table:
    """Amounts of calls in columns that add up, and their total; columns of nothing are left out.

    ``words`` are the headings of what stands before the amounts, each with its word in the row of totals. A column may
    be left out for the width of a terminal.
    """
    amounts = [amount for _, amount in rows]
    columns = {
        "calls": [a.calls for a in amounts],
        "images": [a.images for a in amounts],
        "prompt": [a.prompt_tokens for a in amounts],
        "cached": [a.cached_tokens for a in amounts],
        "reply": [a.completion_tokens for a in amounts],
        "seconds": [a.seconds for a in amounts],
        CURRENCY: [a.cost for a in amounts],
    }
    table = Table(box=None, pad_edge=False, show_footer=True, footer_style="bold")
    for heading, total in words.items():
        if table.columns:
            table.add_column(heading, total, justify="right", no_wrap=True, min_width=len(total))
        else:
            table.add_column(heading, total, style="bold", no_wrap=True, min_width=8, max_width=24)
    cells = []
    for name, numbers in columns.items():
        if any(numbers) and name != leave_out:
            *each, total = _in_words(name, numbers)
            table.add_column(name, total, justify="right", no_wrap=True, min_width=max(len(name), len(total)))
            cells.append(each)
    for (told, _), numbers_of_row in zip(rows, zip(*cells, strict=True), strict=True):
        table.add_row(*map(escape, told), *numbers_of_row)
    return table


def _in_words(name: str, numbers: Sequence[float]) -> list[str]:
    """A column as it is shown, and its sum: little money to the hundredth of a cent, many tokens in millions."""
    total = sum(numbers)
    if name == CURRENCY:
        return _adding_up(numbers, 2 if total >= 10 else 4)
    if total < _MANY:
        return _adding_up(numbers, 0)
    return [f"{number}M" for number in _adding_up([number / 1e6 for number in numbers], 2)]


def _adding_up(numbers: Sequence[float], decimals: int) -> list[str]:
    """Numbers rounded so that they add up to what their sum rounds to, and that sum.

    Those whose fractions are the largest are rounded up.
    """
    scaled = [number * 10**decimals for number in numbers]
    whole = [math.floor(number) for number in scaled]
    total = round(sum(scaled))
    for place in sorted(range(len(scaled)), key=lambda i: whole[i] - scaled[i])[: total - sum(whole)]:
        whole[place] += 1
    return [f"{number / 10**decimals:,.{decimals}f}" for number in (*whole, total)]
