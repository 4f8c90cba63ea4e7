"""All answers of a session, as they came, filtered as `partita trace` filters them."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from partita.web.clusters import head
from partita.web.given import ADesk
from partita.web.item import STEPS, step_of
from partita.web.rendering import page
from storage.calls import CONCLUSIONS, TOLD, TRACED, Wanted, calls

router = APIRouter()


@router.get("/s/{name}/trace")
def trace(
    name: str,
    desk: ADesk,
    kind: str = "",
    conclusion: str = "",
    item: str = "",
    cluster: str = "",
    after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    latest: bool = False,
) -> Response:
    """Answers in the order of writing; empty filters hold nothing back."""
    seen = desk.seen(name)
    chosen = seen.result.cluster(int(cluster)).items if cluster.isdecimal() and len(cluster) < 10 else None
    wanted = Wanted(
        (kind,) if kind else TOLD,
        item=item.strip() or None,
        cluster_items=chosen,
        conclusion=conclusion or None,
        after=after,
        last=STEPS if latest else None,
    )
    found = list(islice(calls(desk.db, seen.record.id, wanted), STEPS + 1))
    filters = {"kind": kind, "conclusion": conclusion, "item": item.strip(), "cluster": cluster}
    return page(
        "trace", **head(desk, name), tab="trace", steps=[step_of(seen, call, None) for call in found[:STEPS]],
        following=found[STEPS - 1].id if len(found) > STEPS else None, filters=filters, latest=latest, after=after,
        kinds=TRACED, conclusions=CONCLUSIONS, others=seen.result.clusters,
    )  # fmt: skip
