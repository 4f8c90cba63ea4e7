"""An item: what it was described as, its nearest, and every answer that it took part in or that decided about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from partita.steering import in_words
from partita.web.clusters import head
from partita.web.desk import Desk, Seen
from partita.web.given import ADesk
from partita.web.rendering import AS_SHOWN, LARGE, MIDDLE, SMALL, Tile, page, session_url, tile, tiles
from partita.web.said import SaidLine
from storage.calls import KINDS, TOLD, Call, Wanted, calls

router = APIRouter()
NEAREST = 12
STEPS = 40
"""Answers on one page."""


@dataclass(frozen=True, slots=True)
class Step:
    """One answer of an item's story, with the pictures that the agent saw."""

    call: Call
    sides: list[tuple[str, list[Tile]]]
    """What was shown, under which words."""
    verdict: str
    """YES, NO or UNKNOWN about the item, or of the whole question; empty where none was asked for."""
    said: str
    """The reason, or the reply where there is none."""
    corrected: str
    """What a person said; empty for an answer of a model."""


@router.get("/s/{name}/i/{number}")
def item(name: str, number: int, desk: ADesk, said: SaidLine, start: int = 0) -> Response:
    """One item."""
    seen = desk.seen(name)
    row = seen.item(number)
    shown_as = seen.named.get(row.node, row.name) if row.node is not None else row.name
    steps, following = _steps(desk, seen, row.node, shown_as, max(0, start)) if row.node is not None else ([], None)
    why = next((failed.why for failed in seen.result.failed_items if failed.item == row.name), None)
    return page(
        "item",
        **head(desk, name),
        tab="",
        row=row,
        tile=tile(seen, row.name, LARGE),
        described=_described(desk, seen, shown_as) if row.node is not None else "",
        near=_nearest(desk, seen, row.node),
        steps=steps,
        start=start,
        following=following,
        why=why,
        copies=[other.name for other in seen.rows if other.node == row.node and other.name != row.name][:5]
        if row.node is not None
        else [],
        others=seen.result.clusters,
        said=said,
    )


@router.get("/s/{name}/a/{number}")
def answer(name: str, number: int, desk: ADesk) -> Response:
    """One answer, whoever took part in it."""
    seen = desk.seen(name)
    wanted = Wanted((*KINDS, *TOLD[-1:]), only=number)
    found = next(calls(desk.db, seen.record.id, wanted), None) if 0 <= number < 2**63 else None
    step = None if found is None else step_of(seen, found, None, AS_SHOWN)
    return page("answer", 200 if step else 404, **head(desk, name), tab="", step=step, number=number)


def _described(desk: Desk, seen: Seen, shown_as: str) -> str:
    said = next(calls(desk.db, seen.record.id, Wanted(("describe",), shown_as, last=1)), None)
    return "" if said is None else said.reply


def _nearest(desk: Desk, seen: Seen, node: int | None) -> list[tuple[Tile, float]] | None:
    """The items whose embeddings are nearest, with their cosines; None while there are no embeddings."""
    embedded = desk.embeddings.of(seen.record.id) if node is not None else None
    if embedded is None or node is None:
        return None
    near = embedded.nearest(node, NEAREST)
    return [(tile(seen, seen.named[other]), cosine) for other, cosine in near if other in seen.named]


def _steps(desk: Desk, seen: Seen, node: int, shown_as: str, start: int) -> tuple[list[Step], int | None]:
    """A part of an item's story, and where the next begins."""
    together = next((c.nodes for c in seen.found.clusters if node in c.nodes), ())
    wanted = Wanted(TOLD, shown_as, story=[seen.named[v] for v in together])
    told: list[Step] = []
    for place, call in enumerate(calls(desk.db, seen.record.id, wanted)):
        if place < start:
            continue
        if len(told) == STEPS:
            return told, place
        told.append(step_of(seen, call, shown_as))
    return told, None


def step_of(seen: Seen, call: Call, item: str | None, side: str | None = None) -> Step:
    """One answer as a page shows it, from the side of an item where one is given."""
    about = call.about
    said = (call.conclusion or "").split()
    corrected = ""
    if "correction" in about:
        did = about["correction"]
        corrected = in_words(did["did"], about["candidates"], about["representatives"], did["name"], did["of"])
        sides = [("these", about["candidates"]), ("those", about["representatives"])]
    elif call.kind == "merge":
        sides = [
            (f"cluster {letter}", side if isinstance(side, list) else [side])
            for letter, side in zip("AB", about["clusters"], strict=False)
        ]
    elif call.kind in ("describe", "embed"):
        sides = [("shown", about["candidates"])]
    else:
        sides = [("representatives", about["representatives"]), ("candidate", about["candidates"])]
    verdict = call.conclusion or ""
    candidates: list[Any] = about.get("candidates", [])
    if item in candidates and len(said) == len(candidates):
        verdict = said[candidates.index(item)]
    small = SMALL if sum(len(names) for _, names in sides) > 8 else MIDDLE
    shown = [(label, list(tiles(seen, map(str, names), side or small))) for label, names in sides if names]
    return Step(call, shown, verdict, call.reason or call.reply, corrected)


def answer_url(session: str, number: int) -> str:
    """Where an answer is shown."""
    return session_url(session, "a", number)
