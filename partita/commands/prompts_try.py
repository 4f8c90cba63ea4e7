"""``partita prompts try``: a prompt set on a few items of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import click
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from partita.commands import options
from partita.display import output, quiet_console
from partita.excerpts import named
from partita.keys import find_keys
from partita.plain import folded, plain
from partita.prices import find_prices
from partita.prompts import choose
from partita.settings import read_environment
from partita.stored import result_of
from partita.trial_questions import Said, Tried
from partita.trying import ITEMS, MOST_ITEMS, plan_trial, try_prompts
from storage.database import open_database
from storage.errors import Paused
from storage.sessions import load_session

_COLOURS = {"YES": "green", "NO": "red", "UNKNOWN": "yellow"}


@click.command("try")
@click.argument("prompts", metavar="FILE|NAME|HASH")
@options.session
@click.option(
    "--items", type=click.IntRange(1, MOST_ITEMS), default=ITEMS, show_default=True, metavar="N",
    help="Items to try it on: from all clusters, the least certain first.",
)  # fmt: skip
@click.option(
    "--item", "chosen", multiple=True, metavar="NAME", help="Try it on this item; may be given several times."
)
@options.database
@options.as_json
def command(prompts: str, session: str, items: int, chosen: tuple[str, ...], db: str, as_json: bool) -> None:
    """Try a prompt set on a few items of SESSION, beside what the session's own prompts said.

    They are described, asked about with their own cluster and with another one, and two clusters are compared: eleven
    calls with four items, fewer where the session has the answer. SESSION stays as it is, and so do its numbers.
    """
    environment, console = read_environment(), quiet_console()

    def note(line: str) -> None:
        console.print(f"[yellow]{escape(plain(line))}[/]", highlight=False)

    with open_database(db, make=False) as database:
        chosen_set = choose(database, load_session(database, session).criterion, prompts).prompts
        plan = plan_trial(database, session, chosen_set, items=items, chosen=chosen)
        texts = result_of(database, session).texts
    console.print(escape(plain(f"{chosen_set.name} ({chosen_set.hash}): {plan.line()}")), highlight=False)
    prices = find_prices(environment.prices, environment.config_home)
    try:
        trial = asyncio.run(try_prompts(plan, keys=find_keys(environment), prices=prices, on_note=note))
    except KeyboardInterrupt:
        raise Paused("stopped; nothing of a trial is kept") from None
    for line in plan.notes:
        note(line)
    if as_json:
        options.print_json(trial.to_json())
        return
    say = output()
    for one in trial.tried:
        _tell(say, one, texts)
    say.print(escape(plain(trial.line())), highlight=False)


def _tell(console: Console, one: Tried, texts: Mapping[str, str]) -> None:
    """A question, and below it what was and what is said."""
    console.print(Text(_question(one, texts), style="bold"))
    before = [] if one.before is None else _answer(one.before)
    _print(console, "before", before or [("the session did not ask this", "dim")])
    if one.now is not None:
        known = [] if one.now.asked else [("  [from its ledger]", "dim")]
        _print(console, "now", [*_answer(one.now), *known])
    console.print()


def _question(one: Tried, texts: Mapping[str, str]) -> str:
    if one.kind == "describe":
        where = f" (cluster {one.clusters[0]}{_sure(one)})" if one.clusters else ""
        return f"{_listed(one.candidates, texts)}{where}"
    first, second = one.clusters
    if one.kind == "merge":
        a, b = (_listed(side, texts) for side in one.representatives)
        return f"is cluster {first} ({a}) the same as cluster {second} ({b})?"
    shown = _listed(one.representatives[0], texts)
    where = f"its own cluster {second}{_sure(one)}" if one.within else f"cluster {second}, not its own"
    return f"does {_listed(one.candidates, texts)} belong with {shown}? ({where})"


def _sure(one: Tried) -> str:
    return "" if one.confidence is None else f", sure to {one.confidence:.0%}"


def _answer(said: Said) -> list[tuple[str, str]]:
    words = folded(said.text)
    if said.conclusion is None:
        return [(f"“{words}”", "")]
    return [(f"{said.conclusion} ", _COLOURS.get(said.conclusion, "")), (f"“{words}”", "")]


def _listed(items: Iterable[str], texts: Mapping[str, str]) -> str:
    return ", ".join(named(item, texts, 40) for item in items)


def _print(console: Console, when: str, words: list[tuple[str, str]]) -> None:
    """Wrapped, with its lines one below the other."""
    for number, line in enumerate(Text.assemble(*words).wrap(console, max(20, console.width - 10))):
        line.rstrip()
        console.print(Text(f"  {when if not number else '':6}  ") + line, highlight=False, soft_wrap=True)
