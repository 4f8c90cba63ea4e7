"""A person's word from the page: corrections by form, and taking them back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from partita.steering import Steering
from partita.web.clusters import head
from partita.web.desk import Seen
from partita.web.given import ADesk
from partita.web.rendering import page, session_url
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
    """Do one correction; `partition` is the clusters' stamp that the form was made from."""
    seen = desk.seen(name)
    if partition and partition != seen.partition:
        raise UsageError(
            "the clusters have changed since this page was made, and their numbers may mean others now: "
            "nothing was done; go back, load the page again, and repeat it"
        )
    hands, items, reason = Steering(desk.db, name, seen.result), _names(seen, item or []), why.strip() or None
    match did:
        case "move":
            hands.move(items, _number(to), reason)
        case "split":
            hands.split(items, called or None, reason)
        case "together":
            hands.together(items, reason)
        case "apart":
            kept = [one for one in seen.result.cluster(_number(to)).items if one not in set(items)]
            hands.apart(items, kept, reason)
        case "unite":
            hands.unite(cluster or [], reason)
        case "rename":
            hands.rename(_number(to), called, reason)
        case _:
            raise UsageError(f"there is no correction {did!r}")
    return _back(name, back)


@router.post("/s/{name}/undo")
def undo(
    name: str, desk: ADesk, number: Annotated[int | None, Form()] = None, back: Annotated[str, Form()] = ""
) -> Response:
    """Take back the last correction, or the one with this number."""
    Steering(desk.db, name).undo(number)
    return _back(name, back)


@router.get("/s/{name}/corrections")
def said(name: str, desk: ADesk) -> Response:
    """What people said, the last first."""
    return page("corrections", **head(desk, name), told=Steering(desk.db, name).told()[::-1], tab="corrections")


def _names(seen: Seen, numbers: list[int]) -> list[str]:
    return [seen.item(number).name for number in numbers]


def _number(cluster: str) -> int:
    if not cluster.isdecimal() or len(cluster) > 9:
        raise UsageError("choose a cluster first")
    return int(cluster)


def _back(name: str, back: str) -> Response:
    """To the page that the form was on, if it is one of this session's."""
    home = session_url(name)
    return RedirectResponse(back if back == home or back.startswith((f"{home}/", f"{home}?")) else home, 303)
