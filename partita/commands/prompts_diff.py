"""``partita prompts diff``: what differs between two prompt sets."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.text import Text

from agents.prompt_sets import is_file
from partita.commands import options
from partita.display import output, quiet_console
from partita.plain import plain
from partita.prompts import compare
from storage.database import is_there, open_database
from storage.prompts import is_hash

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command("diff")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option(
    "--by", "criterion", metavar="CRITERION", help="What $criterion stands for.  [default: that of a version]"
)
@options.database
def command(one: str, other: str, criterion: str | None, db: str) -> None:
    """Show what differs between the sets A and B, each a file, a shipped set's name, or a version's hash.

    Lines of A begin with -, those of B with +; each sentence has a line of its own. Where both ask the same, nothing
    is printed but a word of that on stderr.
    """
    if is_there(db) and any(is_hash(named) and not is_file(named) for named in (one, other)):
        with open_database(db) as database:
            lines = compare(database, one, other, criterion)
    else:
        lines = compare(None, one, other, criterion)
    if not lines:
        quiet_console().print(escape(plain(f"{one} and {other} ask the same in the same words")), highlight=False)
    console = output()
    for line in lines:
        console.print(Text(plain(line), style=_COLOURS.get(line[:1], "")), soft_wrap=True)
