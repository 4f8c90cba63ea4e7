"""``partita compare``: two sessions side by side."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from partita.api import Session
from partita.commands import options
from partita.comparison import Comparison, Side
from partita.display import output
from partita.excerpts import excerpt, named
from partita.plain import plain
from partita.result import ClusterResult

_ROWS = 20
_GROUPS = 10
_ITEMS = 3
"""Items by name in each group."""


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@options.database
@click.option("--other-db", metavar="URL", help="The database of B.  [default: that of A]")
@options.as_json
def command(a: str, b: str, db: str, other_db: str | None, as_json: bool) -> None:
    """Put sessions A and B side by side: how far they agree, which clusters match, and the items on which they differ.

    Items are the same if name and content are; criteria and models may differ.
    """
    comparison = Session(a, db).compare(Session(b, other_db or db))
    if as_json:
        options.print_json(comparison.to_json())
    else:
        _print(output(), comparison)


def _print(console: Console, comparison: Comparison) -> None:
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        console.print(f"[bold]{letter}[/] {escape(_side(side))}", highlight=False)
    console.print()
    console.print(_figures(comparison))
    console.print()
    _print_matrix(console, comparison)
    _print_differences(console, comparison)


def _side(side: Side) -> str:
    r = side.result
    return (
        f"{plain(r.session)}: by “{plain(r.criterion)}”, {len(r.clusters):,} clusters of {r.items:,} items, {r.status}"
    )


def _figures(c: Comparison) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row("NMI", f"{c.nmi:.4f}")
    table.add_row("ARI", f"{c.ari:.4f}")
    table.add_row("items in common", f"{c.items:,}")
    table.add_row("in matching clusters", f"{c.agreeing:,} ({c.agreeing / c.items:.1%})")
    only = {"only in A": c.only_a, "only in B": c.only_b, "in a cluster of one only": c.unplaced}
    for words, count in only.items():
        if count:
            also = f", {c.changed:,} of them under a name of B" if words == "only in A" and c.changed else ""
            table.add_row(words, f"{count:,}{also}")
    return table


def _print_matrix(console: Console, comparison: Comparison) -> None:
    """As many columns as the terminal has room for, which always is one and that of the others."""
    width = max(5, len(str(comparison.cells[0].count)) + 1)
    label = 24
    columns = max(1, (console.width - label) // (width + 1) - 1)
    matrix = comparison.matrix(_ROWS, columns)
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("A \\ B", no_wrap=True, width=label - 1)
    for c in matrix.columns:
        table.add_column(str(c.id), justify="right", no_wrap=True, min_width=width - 1)
    if matrix.other_columns:
        table.add_column("other", justify="right", no_wrap=True, style="dim")
    names = [f"{c.id} {plain(c.name)}" for c in matrix.rows]
    if matrix.other_rows:
        names.append(f"{matrix.other_rows:,} other{'s' if matrix.other_rows > 1 else ''}")
    for place, (name, counts) in enumerate(zip(names, matrix.counts, strict=True)):
        told = [str(n) if n else "[dim]·[/]" for n in counts]
        if place < matrix.matched:
            told[place] = f"[bold green]{told[place]}[/]"
        table.add_row(escape(excerpt(name, label - 2)), *told)
    console.print("items by cluster of A (rows) and B (columns), matching clusters on the diagonal")
    console.print(table)
    shown = " · ".join(_cluster(c) for c in matrix.columns)
    more = f" · and {matrix.other_columns:,} more" if matrix.other_columns else ""
    console.print(f"columns: {escape(shown)}{more}", highlight=False)


def _print_differences(console: Console, comparison: Comparison) -> None:
    differences, texts = comparison.differences, comparison.a.result.texts
    console.print()
    if not differences:
        console.print("they differ on no item")
        return
    count = comparison.items - comparison.agreeing
    console.print(f"they differ on {count:,} item{'' if count == 1 else 's'}:", highlight=False)
    for cell in differences[:_GROUPS]:
        line = f"[bold]{cell.count:>5,}[/]  in A {escape(_cluster(cell.a))}, in B {escape(_cluster(cell.b))}"
        console.print(line, highlight=False)
        shown = ", ".join(named(item, texts, 40) for item in cell.items[:_ITEMS])
        more = f", … {cell.count - _ITEMS:,} more" if cell.count > _ITEMS else ""
        console.print(f"       [dim]{escape(shown)}{more}[/]", highlight=False)
    if len(differences) > _GROUPS:
        rest = sum(cell.count for cell in differences[_GROUPS:])
        console.print(
            f"… and {rest:,} more in {len(differences) - _GROUPS:,} smaller groups: --json has them all",
            highlight=False,
        )


def _cluster(cluster: ClusterResult) -> str:
    return f"{cluster.id} “{excerpt(plain(cluster.name), 40)}”"
