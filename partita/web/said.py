"""What a person said last, told in one line on the page that the form leads to, with a button that takes it back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Query, Request
from starlette.responses import RedirectResponse

from partita.result import ClusterResult
from partita.steering import Steering, Told
from partita.web.desk import Desk, Seen
from partita.web.earlier import come_to
from partita.web.given import ADesk
from partita.web.rendering import session_url

_SAID = "said"
"""Parameter of an address: numbers of corrections. The words are looked up, never taken from there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line about corrections that were stored by one form."""

    words: str
    cluster: ClusterResult | None
    """Where the items stand now; ends the sentence."""
    numbers: list[int]
    undo: str
    """What the button says; empty where there is nothing left to take back."""
    back: str
    """The page's own address."""


def _line(
    name: str, desk: ADesk, request: Request, said: Annotated[list[int] | None, Query(max_length=100)] = None
) -> Line | None:
    if not said:
        return None
    told = {one.id: one for one in Steering(desk.db, name).told()}
    ones = [told[number] for number in said if number in told]
    if not ones:
        return None
    words, cluster = _words(ones, told, desk.seen(name))
    undo = ("Bring back" if ones[0].did == "undo" else "Undo") if all(one.holds for one in ones) else ""
    return Line(words, cluster, [one.id for one in ones], undo, _without_said(request.url.path, request.url.query))


SaidLine = Annotated[Line | None, Depends(_line)]
"""For handlers of pages on which a form stands: what their template is given as `said`."""


def led_back(
    desk: Desk, name: str, back: str, numbers: Sequence[int], places: Sequence[int] | None
) -> RedirectResponse:
    """To the page that a form was on, if it is one of this session's, where these corrections are told.

    Args:
        places: where the items stood when the page was made, which numbers the clusters; None if that is forgotten.
    """
    home = session_url(name)
    path, _, query = (back if back.startswith((f"{home}/", f"{home}?")) else home).partition("?")
    number = path.removeprefix(f"{home}/c/")
    if number != path and number.isdecimal() and len(number) <= 9:  # the cluster may have another number by now
        found = None if places is None else come_to(int(number), places, desk.seen(name).places)
        path = home if found is None else session_url(name, "c", found)
    return RedirectResponse(_without_said(path, query, [(_SAID, str(one)) for one in numbers]), 303)


def _without_said(path: str, query: str, more: Sequence[tuple[str, str]] = ()) -> str:
    asked = [(key, value) for key, value in parse_qsl(query) if key != _SAID]
    return path + ("?" + urlencode([*asked, *more]) if asked or more else "")


def _words(ones: Sequence[Told], told: dict[int, Told], seen: Seen) -> tuple[str, ClusterResult | None]:
    """A sentence, and the cluster that ends it."""
    first, of = ones[0], [_undone(one, told) for one in ones]
    if first.did == "undo" or not first.holds:
        what = "Brought back" if of[0].holds else "Taken back"
        return f"{what}: {', '.join(one.words for one in of)}", None
    homes = Counter(seen.place[item][0].id for item in first.items if item in seen.place)
    if not homes:
        return f"Stored: {first.words}", None
    nodes = {seen.node[item] for item in first.items}
    count = sum(node in nodes for node in seen.node.values())  # copies go where the item goes
    these = f"{count:,} item{'' if count == 1 else 's'}"
    words = {
        "move": f"Moved {these} to",
        "split": f"Split off {these} as",
        "unite": f"United {len(ones) + 1} clusters in",
        "rename": "Renamed a cluster: it is now",
        "together": f"Put {these} together in",
        "apart": f"Set {these} apart in",
    }[first.did]
    return words, seen.result.cluster(homes.most_common(1)[0][0])


def _undone(one: Told, told: dict[int, Told]) -> Told:
    """What was undone, or brought back, in the end."""
    while one.of is not None:
        one = told[one.of]
    return one
