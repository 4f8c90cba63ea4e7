"""A person's word from the page: corrections by form, and taking them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import Response

from partita.steering import Steering
from partita.web.clusters import head
from partita.web.desk import Desk, Seen
from partita.web.earlier import come_to
from partita.web.given import ADesk
from partita.web.rendering import page
from partita.web.said import SaidLine, led_back
from storage.errors import UsageError

router = APIRouter()


@router.post("/s/{name}/correct")
def correct(
    name: str,
    desk: ADesk,
    did: Annotated[str, Form()],
    item: Annotated[list[int] | None, Form()] = None,
    cluster: Annotated[list[int] | None, Form()] = None,
    to: Annotated[str, Form()] = "",
    called: Annotated[str, Form()] = "",
    why: Annotated[str, Form()] = "",
    partition: Annotated[str, Form()] = "",
    back: Annotated[str, Form()] = "",
) -> Response:
    """Do one correction; `partition` is the stamp of the clusters that the form was made from, by which it numbers
    them. A form without one numbers those of now."""
    seen = desk.seen(name)
    hands, items, reason = Steering(desk.db, name, seen.result), _names(seen, item or []), why.strip() or None
    match did:
        case "move":
            done = [hands.move(items, _meant(desk, seen, partition, _number(to)), reason)]
        case "split":
            done = [hands.split(items, called or None, reason)]
        case "together":
            done = [hands.together(items, reason)]
        case "apart":
            kept = [one for one in _held(desk, seen, partition, _number(to)) if one not in set(items)]
            done = [hands.apart(items, kept, reason)]
        case "unite":
            done = hands.unite_all([_meant(desk, seen, partition, number) for number in cluster or []], reason)
        case "rename":
            done = [hands.rename(_meant(desk, seen, partition, _number(to)), called, reason)]
        case _:
            raise UsageError(f"there is no correction {did!r}")
    places = desk.earlier.places(seen.record.id, partition) if partition else seen.places
    return led_back(desk, name, back, done, places)


@router.post("/s/{name}/undo")
def undo(
    name: str, desk: ADesk, number: Annotated[list[int] | None, Form()] = None, back: Annotated[str, Form()] = ""
) -> Response:
    """Take back the last correction, or those with these numbers."""
    seen, hands = desk.seen(name), Steering(desk.db, name)
    undone = {hands.undo(one).id for one in reversed(number)} if number else {hands.undo().id}
    return led_back(desk, name, back, [one.id for one in hands.told() if one.holds and one.of in undone], seen.places)


@router.get("/s/{name}/corrections")
def corrections(name: str, desk: ADesk, said: SaidLine) -> Response:
    """What people said, the last first."""
    told = Steering(desk.db, name).told()[::-1]
    return page("corrections", **head(desk, name), told=told, tab="corrections", said=said)


def _names(seen: Seen, numbers: list[int]) -> list[str]:
    return [seen.item(number).name for number in numbers]


def _meant(desk: Desk, seen: Seen, stamp: str, number: int) -> int:
    """The number that a cluster of a form has by now.

    Raises:
        UsageError: it can't be told which of the clusters it is.
    """
    if stamp in ("", seen.partition):
        return number
    found = come_to(number, _places(desk, seen, stamp), seen.places)
    if found is None:
        raise UsageError(
            f"the clusters have changed since this page was made, and its cluster {number} is no longer one of them: "
            "it was taken apart, or taken into a larger one; nothing was done; go back and choose again"
        )
    return found


def _held(desk: Desk, seen: Seen, stamp: str, number: int) -> list[str]:
    """The items of a cluster as the form shows it."""
    if stamp in ("", seen.partition):
        return seen.result.cluster(number).items
    places = _places(desk, seen, stamp)
    return [row.name for row, place in zip(seen.rows, places, strict=False) if place == number]


def _places(desk: Desk, seen: Seen, stamp: str) -> Sequence[int]:
    places = desk.earlier.places(seen.record.id, stamp)
    if places is None:
        raise UsageError(
            "the clusters have changed since this page was made, and it is too old to tell which of them is meant: "
            "nothing was done; go back and choose again"
        )
    return places


def _number(cluster: str) -> int:
    if not cluster.isdecimal() or len(cluster) > 9:
        raise UsageError("choose a cluster first")
    return int(cluster)
