"""A session's clusters as contact sheets, one cluster in full, the least certain items first; pictures."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from partita.result import ClusterResult
from partita.spend import Spend
from partita.web.desk import Desk, Seen
from partita.web.given import ADesk, SomePictures
from partita.web.pictures import AS_ASKED, SIDES, SMALL_QUALITY
from partita.web.rendering import page, tiles
from partita.web.said import SaidLine
from storage import corrections
from storage.errors import CollectionError, UsageError
from storage.sessions import load_session

router = APIRouter()
CLUSTERS = 30
"""Clusters on one page."""
FIRST = 24
"""Pictures of each."""
MORE = 120
"""Pictures that one more request brings."""


@router.get("/s/{name}")
def session(name: str, desk: ADesk, said: SaidLine, start: int = 0) -> Response:
    """The clusters, the largest first."""
    return page("session", **head(desk, name), **_clusters(desk.seen(name), start), tab="clusters", said=said)


@router.get("/s/{name}/sheet")
def sheet(name: str, desk: ADesk, start: int = 0) -> Response:
    """The clusters alone, for a page that is open."""
    seen = desk.seen(name)
    return page("_sheet", seen=seen, **_clusters(seen, start), alone=True)


@router.get("/s/{name}/live")
def live(name: str, desk: ADesk) -> Response:
    """How far the session is, for a page that is open."""
    return page("_live", **head(desk, name))


@router.get("/s/{name}/c/{number}")
def cluster(name: str, number: int, desk: ADesk, said: SaidLine, start: int = 0) -> Response:
    """One cluster with all its items."""
    seen = desk.seen(name)
    shown = seen.result.cluster(number)
    return page("cluster", **head(desk, name), **_part(seen, shown.items, start), cluster=shown, tab="clusters",
                said=said, others=seen.result.clusters)  # fmt: skip


@router.get("/s/{name}/c/{number}/more")
def more(name: str, number: int, desk: ADesk, start: int = 0) -> Response:
    """The next pictures of a cluster, without a page around them."""
    seen = desk.seen(name)
    return page("_more", **_part(seen, seen.result.cluster(number).items, start),
                where=("c", number, "more"), seen=seen, checks=True, tells=False)  # fmt: skip


@router.get("/s/{name}/doubts")
def doubts(name: str, desk: ADesk, said: SaidLine, start: int = 0) -> Response:
    """All items, the least certain first."""
    seen = desk.seen(name)
    return page("doubts", **head(desk, name), **_part(seen, _doubtful(seen), start), tab="doubts",
                said=said, others=seen.result.clusters)  # fmt: skip


@router.get("/s/{name}/doubts/more")
def more_doubts(name: str, desk: ADesk, start: int = 0) -> Response:
    """The next of these, without a page around them."""
    seen = desk.seen(name)
    return page("_more", **_part(seen, _doubtful(seen), start), where=("doubts", "more"), seen=seen,
                checks=True, tells=True)  # fmt: skip


@router.get("/s/{name}/i/{number}/picture")
def picture(
    name: str, number: int, request: Request, desk: ADesk, pictures: SomePictures, side: str = "192"
) -> Response:
    """An item's picture, small, or (`side=model`) as the model was shown it."""
    record, root, item = desk.item(name, number)
    if side == "model":
        longest, quality = int(record.parameters.get("longest_side", 768)), AS_ASKED
    elif side in map(str, SIDES):
        longest, quality = int(side), SMALL_QUALITY
    else:
        raise UsageError(f"side is one of {', '.join(map(str, SIDES))} or model")
    if item is None:
        return Response(status_code=404)
    tag = f'"{item.content_hash[:32]}-{longest}-{quality}"'
    headers = {"Cache-Control": "private, max-age=604800", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    try:
        jpeg = pictures.jpeg(item, longest, root, quality)
    except CollectionError:  # it is gone, or another one by now
        return Response(status_code=404)
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def head(desk: Desk, name: str) -> dict[str, Any]:
    """What the head of every page of a session tells."""
    seen = desk.seen(name)
    record = load_session(desk.db, name)
    spend: Spend = desk.spend(name)
    said = [one for one in corrections.said(desk.db, record.id) if one.subject["did"] != "undo" and one.holds]
    return {"seen": seen, "record": record, "result": seen.result, "spend": spend, "corrected": len(said),
            "doing": desk.work.doing(record, seen.result.status),
            "progress": record.progress if seen.result.status == "running" else None}  # fmt: skip


def _clusters(seen: Seen, start: int) -> dict[str, Any]:
    there = seen.result.clusters
    start = max(0, min(start, len(there)))
    shown: list[tuple[ClusterResult, list[Any]]] = [
        (c, list(tiles(seen, c.items[:FIRST]))) for c in there[start : start + CLUSTERS]
    ]
    following = start + CLUSTERS if start + CLUSTERS < len(there) else None
    before = max(0, start - CLUSTERS) if start else None
    largest = max((c.size for c in there), default=1)
    return {"shown": shown, "start": start, "following": following, "before": before, "largest": largest}


def _part(seen: Seen, items: list[str], start: int) -> dict[str, Any]:
    start = max(0, min(start, len(items)))
    following = start + MORE if start + MORE < len(items) else None
    shown = list(tiles(seen, items[start : start + MORE]))
    return {"shown": shown, "start": start, "following": following, "count": len(items)}


def _doubtful(seen: Seen) -> list[str]:
    """The items of which the policy has odds, the least certain first."""
    known = [
        (sure, item) for c in seen.result.clusters for item, sure in zip(c.items, c.confidence or (), strict=False)
    ]
    return [item for _, item in sorted(known)]
