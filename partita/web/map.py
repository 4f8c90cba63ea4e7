"""The map of a session: its items where their embeddings put them, coloured by the clusters of now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from partita.result import ClusterResult
from partita.web.clusters import head
from partita.web.desk import Desk, Seen
from partita.web.given import ADesk
from partita.web.maps import Map
from partita.web.palette import COLOURED, colours, mark
from partita.web.rendering import MIDDLE, page, tile, words
from storage.errors import UsageError

router = APIRouter()
GRID = 10_000
"""Positions are told in so many parts of the map's width."""
STILL = 4_000
"""Points of the map that is a picture, for browsers without script."""
DOUBT = 0.9
"""An item that belongs where it stands with less probability than this is marked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A cluster in the legend."""

    cluster: ClusterResult
    colour: int
    """From 1; 0 is grey."""
    shape: str


@router.get("/s/{name}/map")
def map_(name: str, desk: ADesk) -> Response:
    """The page."""
    seen = desk.seen(name)
    return page("map", **head(desk, name), **_legend(seen), map=desk.maps.of(seen.record.id), tab="map", still=STILL,
                is_map=_is_map, coloured=COLOURED)  # fmt: skip


@router.get("/s/{name}/map/state")
def state(name: str, desk: ADesk) -> Response:
    """Whether it is drawn, for a page that is open."""
    seen = desk.seen(name)
    return page("_map_state", seen=seen, record=seen.record, map=desk.maps.of(seen.record.id), is_map=_is_map)


@router.get("/s/{name}/map/legend")
def legend(name: str, desk: ADesk) -> Response:
    """The clusters with their colours, for a page that is open."""
    seen = desk.seen(name)
    return page("_map_legend", record=seen.record, **_legend(seen))


@router.get("/s/{name}/map/points")
def points(name: str, desk: ADesk, v: str = "") -> Response:
    """Where the items lie: numbers and positions, which stay as long as the embeddings do."""
    seen, drawn = _drawn(desk, name)
    nodes, numbers = _shown(seen, drawn)
    places = np.rint(drawn.places[nodes] * GRID).astype(int)
    told = {"grid": GRID, "item": numbers, "x": places[:, 0].tolist(), "y": places[:, 1].tolist()}
    kept = {"Cache-Control": "private, max-age=604800, immutable"} if v == drawn.stamp[:16] else None
    return JSONResponse(told, headers=kept)


@router.get("/s/{name}/map/clusters")
def clusters(name: str, desk: ADesk) -> Response:
    """Where the items stand, in the order of the points: numbers of clusters (0: none), and how sure, in percent."""
    seen, drawn = _drawn(desk, name)
    nodes, _ = _shown(seen, drawn)
    standing = [seen.place.get(seen.named[node]) for node in nodes.tolist()]
    sure = [_percent(None if at is None else at[0].confidence, 0 if at is None else at[1]) for at in standing]
    return JSONResponse(
        {"partition": seen.partition, "cluster": [0 if at is None else at[0].id for at in standing], "sure": sure}
    )


@router.get("/s/{name}/map/card/{number}")
def card(name: str, number: int, desk: ADesk) -> Response:
    """What is shown of an item that somebody points at."""
    seen = desk.seen(name)
    return page("_map_card", t=tile(seen, seen.item(number).name, MIDDLE))


@router.get("/s/{name}/map/drawn.svg")
def drawn_svg(name: str, desk: ADesk, scheme: Literal["light", "dark"] = "light") -> Response:
    """The map as a picture; of many items some."""
    seen, drawn = _drawn(desk, name)
    nodes, _ = _shown(seen, drawn)
    if len(nodes) > STILL:
        nodes = nodes[np.linspace(0, len(nodes) - 1, STILL).astype(int)]
    marks = []
    for node in nodes.tolist():
        at = seen.place.get(seen.named[node])
        colour, shape = mark(at[0].id if at else 0)
        x, y = (drawn.places[node] * 1000).tolist()
        marks.append((x, y, colour, shape))
    marks.sort(key=lambda one: one[2] != 0)  # the grey ones lie below
    svg = words("_map_drawn", marks=marks, colours=colours(scheme))
    return Response(svg, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=60"})


def _is_map(there: object) -> bool:
    return isinstance(there, Map)


def _drawn(desk: Desk, name: str) -> tuple[Seen, Map]:
    seen = desk.seen(name)
    there = desk.maps.of(seen.record.id)
    if not isinstance(there, Map):
        raise UsageError("the map of this session is not drawn yet: open its page")
    return seen, there


def _shown(seen: Seen, drawn: Map) -> tuple[np.ndarray[Any, Any], list[int]]:
    """The nodes that have a place on the map, and the number of the first item of each."""
    placed = np.flatnonzero(np.isfinite(drawn.places[:, 0]))
    nodes = [node for node in placed.tolist() if node in seen.named]
    return np.array(nodes, dtype=int), [seen.numbers[seen.named[node]] for node in nodes]


def _percent(confidence: list[float] | None, at: int) -> int:
    """-1 where it is not known."""
    if confidence is None:
        return -1
    return math.floor(confidence[at] * 100 + 1e-9)


def _legend(seen: Seen) -> dict[str, Any]:
    entries = [Entry(c, *mark(c.id)) for c in seen.result.clusters[:COLOURED]]
    smaller = seen.result.clusters[COLOURED:]
    odds = any(c.confidence is not None for c in seen.result.clusters)
    return {"entries": entries, "smaller": smaller, "odds": odds, "doubt": DOUBT}
