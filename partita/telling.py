"""The trace as a terminal shows it: each answer as a step of an argument, and an item's story from answer to answer.

Everything that a model or a user has written goes through ``partita.plain``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from partita.excerpts import named
from partita.plain import folded, plain
from partita.result import Result
from partita.steering import in_words
from storage.corrections import HUMAN

Row = Mapping[str, Any]
"""As ``Session.trace`` gives it."""
_COLOURS = {"YES": "green", "NO": "red", "UNKNOWN": "yellow"}
_Words = str | tuple[str, str]


def tell_all(console: Console, rows: Iterable[Row], texts: Mapping[str, str]) -> int:
    """Print every row: what was asked, what was said and why, and what was made of it.

    Args:
        texts: what each text says, by the item's name.

    Returns:
        How many rows there were.
    """
    told = 0
    for row in rows:
        part = "" if row["component"] is None else f", component {row['component']}"
        step = "" if row["step"] is None else f", step {row['step']}"
        _print(console, 0, (row["kind"], "bold"), f"{part}{step}", _took(row))
        _print(console, 4, *_question(row, texts))
        _print_reason(console, 4, row)
        for place, decision in enumerate(row["decisions"]):
            _print_decision(console, 4, decision, row, place)
        told += 1
    return told


def tell_story(
    console: Console, item: str, named_as: str, rows: Iterable[Row], result: Result, together: Collection[str]
) -> int:
    """Print how an item came to its place: what it was described as, whom it was compared with, and where it stands.

    Questions in which it only stood for its cluster are counted.

    Args:
        named_as: the item's name in the rows, where it has the content of another.
        rows: as ``Session.story`` gives them.
        together: as ``Session.found_with`` gives them: whose cluster is told as its own in comparisons of clusters.

    Returns:
        How many rows there were.
    """
    told = 0
    its_cluster = frozenset({named_as, *together})
    stood: Counter[str] = Counter()
    for row in rows:
        if not told:
            _print(console, 0, (named(item, result.texts), "bold"))
            if named_as != item:
                _print(console, 2, f"has the content of {plain(named_as)}, and shares its story")
        told += 1
        if _only_stood(row, named_as):
            stood.update((row["conclusion"] or "UNKNOWN").split())
            continue
        _print_stood(console, stood)
        _print_step(console, row, named_as, its_cluster, result.texts)
    if told:
        _print_stood(console, stood)
        _print(console, 0, *_place(item, result))
    return told


def _only_stood(row: Row, item: str) -> bool:
    is_asked = row["kind"] != "membership" or item in row["candidates"] or item not in row["representatives"]
    return not is_asked and not any(_is_about(decision, item) for decision in row["decisions"])


def _print_step(console: Console, row: Row, item: str, its_cluster: Collection[str], texts: Mapping[str, str]) -> None:
    took = _took(row)
    if "correction" in row:
        _print(console, 2, "a person: ", (_corrected(row), "bold"), took)
        _print_reason(console, 6, row)
    elif row["kind"] in ("describe", "embed"):
        _print(console, 2, *_described(row), took)
    elif row["kind"] == "merge":
        _print(console, 2, *_compared(row, its_cluster, texts), took)
        _print_reason(console, 6, row)
    elif item in row["candidates"]:
        place, said = row["candidates"].index(item), (row["conclusion"] or "").split()
        verdict = said[place] if len(said) == len(row["candidates"]) else "UNKNOWN"
        others = len(row["candidates"]) - 1
        beside = f", beside {others} other{'s' if others > 1 else ''}" if others else ""
        _print(console, 2, f"asked with {_listed(row['representatives'], texts)}{beside}: ", _verdict(verdict), took)
        _print_reason(console, 6, row)
    else:
        _print(console, 2, f"decided after {row['id']}, which asked about others", took)
    for place, decision in enumerate(row["decisions"]):
        if _is_about(decision, item) or (row["kind"] == "merge" and place == 0):
            _print_decision(console, 6, decision, row, place)


def _print_stood(console: Console, stood: Counter[str]) -> None:
    if stood:
        said = ", ".join(f"{count} {conclusion}" for conclusion, count in sorted(stood.items(), reverse=True))
        _print(console, 2, (f"stood for its cluster, conclusions about others: {said}", "dim"))
        stood.clear()


def _place(item: str, result: Result) -> list[_Words]:
    """Where an item stands, in words."""
    so_far = "" if result.status == "done" else " so far"
    for cluster in result.clusters:
        if item in cluster.items:
            sure = ""
            if cluster.confidence is not None:
                sure = f", right with a probability of {cluster.confidence[cluster.items.index(item)]:.3f}"
            alone = "alone" if cluster.size == 1 else f"with {cluster.size - 1} others"
            return [f"→ stands{so_far} {alone} in cluster {cluster.id} ", (f"“{plain(cluster.name)}”", "bold"), sure]
    for failed in result.failed_items:
        if failed.item == item:
            return [f"→ is in no cluster: {folded(failed.why)}"]
    return ["→ is in no cluster yet"]


def _question(row: Row, texts: Mapping[str, str]) -> list[_Words]:
    """What was asked, and the verdict."""
    if "correction" in row:
        return [_corrected(row)]
    if row["kind"] in ("describe", "embed"):
        return [f"{_listed(row['candidates'], texts)}: ", *_described(row)]
    said = (row["conclusion"] or "UNKNOWN").split()
    if row["kind"] == "merge":
        one, other = (_listed(side if isinstance(side, list) else [side], texts) for side in row["clusters"])
        return [f"is the cluster of {one} that of {other}? ", *map(_verdict, said)]
    shown = _listed(row["representatives"], texts)
    if len(row["candidates"]) == 1 or len(said) != len(row["candidates"]):
        belong = "does" if len(row["candidates"]) == 1 else "do"
        return [f"{belong} {_listed(row['candidates'], texts)} belong with {shown}? ", *map(_verdict, said)]
    words: list[_Words] = [f"which belong with {shown}?"]
    for candidate, verdict in zip(row["candidates"], said, strict=True):
        words += [f"\n    {_listed([candidate], texts)}: ", _verdict(verdict)]
    return words


def _compared(row: Row, its_cluster: Collection[str], texts: Mapping[str, str]) -> list[_Words]:
    """A merge question from the side of a cluster, where it is on one side only."""
    sides = [side if isinstance(side, list) else [side] for side in row["clusters"]]
    its = [any(item in its_cluster for item in side) for side in sides]
    if its[0] == its[1]:
        return _question(row, texts)
    own, other = sides if its[0] else reversed(sides)
    said = (row["conclusion"] or "UNKNOWN").split()
    shown = f"its cluster ({_listed(own, texts)}) compared with that of {_listed(other, texts)}: "
    return [shown, *map(_verdict, said)]


def _described(row: Row) -> list[_Words]:
    if row["kind"] == "embed":
        return ["embedded"]
    if row["reply"]:
        return [f"described as “{folded(row['reply'])}”"]
    return [f"not described: {folded(row['reason'] or 'the reply was empty')}"]


def _print_reason(console: Console, indent: int, row: Row) -> None:
    said = row["reason"] or row["reply"]
    if said and row["kind"] not in ("describe", "embed"):
        _print(console, indent, f"“{folded(said)}”")


def _print_decision(console: Console, indent: int, decision: Row, row: Row, place: int) -> None:
    """What was made of an answer; ``place`` tells decisions on what was asked from those on taking stock after it."""
    asked = len(row["candidates"]) if "candidates" in row else 1
    about = ""
    if "item" in decision and (place >= asked or asked > 1):
        about = f"{plain(str(decision['item']))} "
    stock = " (on taking stock)" if place >= asked else ""
    odds = " ".join(_odds(decision))
    _print(
        console, indent, (f"→ {about}{plain(str(decision.get('did', 'noted')))}{stock}{odds and f': {odds}'}", "dim")
    )


def _odds(decision: Row) -> list[str]:
    """The log-odds after an answer, as a probability too, and those at which it counts as settled."""
    odds, bound = decision.get("odds"), decision.get("bound")
    if not isinstance(odds, int | float):
        return []
    probability = 1 / (1 + math.exp(-max(-500.0, min(500.0, odds))))
    words = [f"log-odds {odds:+.1f} ({probability:.1%})" + ("," if isinstance(bound, int | float) else "")]
    return words + ([f"settled at {bound:.1f}"] if isinstance(bound, int | float) else [])


def _is_about(decision: Row, item: str) -> bool:
    return bool(decision.get("item") == item or item in decision.get("items", ()))


def _corrected(row: Row) -> str:
    """What a person said."""
    said = row["correction"]
    return in_words(said["did"], row["candidates"], row["representatives"], said["name"], said["of"])


def _took(row: Row) -> _Words:
    if row["origin"] == HUMAN:
        return f"  [{row['id']}: by hand, {row['at'][:16].replace('T', ' ')}]", "dim"
    tokens = "" if row["tokens"] is None else f", {row['tokens']} tokens"
    reused = "" if row["origin"] == "model" else f", {row['origin']}"
    return f"  [{row['id']}: {row['seconds']:.2f} s{tokens}{reused}]", "dim"


def _verdict(conclusion: str) -> _Words:
    return f"{plain(conclusion)} ", _COLOURS.get(conclusion, "default")


def _listed(items: Sequence[object], texts: Mapping[str, str]) -> str:
    between = "\n        " if texts and len(items) > 1 else ", "
    return between.join(named(str(item), texts) for item in items)


def _print(console: Console, indent: int, *words: _Words) -> None:
    """Words with styles, wrapped below where they begin."""
    text = Text.assemble(*words)
    text.rstrip()
    for line in text.wrap(console, max(20, console.width - indent)):
        line.rstrip()
        console.print(Text(" " * indent) + line, highlight=False, soft_wrap=True)
