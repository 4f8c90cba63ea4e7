"""All answers of a session, as they came, filtered as `partita trace` filters them."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from partita.moments import read_end, read_moment
from partita.web.clusters import head
from partita.web.desk import Seen
from partita.web.given import ADesk
from partita.web.item import STEPS, step_of
from partita.web.rendering import page
from storage.calls import CONCLUSIONS, TOLD, TRACED, Wanted, calls, held
from storage.errors import UsageError

router = APIRouter()


@router.get("/s/{name}/trace")
def trace(
    name: str,
    desk: ADesk,
    kind: str = "",
    conclusion: str = "",
    item: str = "",
    cluster: str = "",
    since: str = "",
    until: str = "",
    model: str = "",
    after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    latest: bool = False,
) -> Response:
    """Answers in the order of writing; empty filters hold nothing back.

    Raises:
        UsageError: a filter is none.
    """
    seen = desk.seen(name)
    filters = {
        "kind": kind, "conclusion": conclusion, "item": item.strip(), "cluster": cluster.strip(),
        "since": since.strip(), "until": until.strip(), "model": model,
    }  # fmt: skip
    wanted = Wanted(
        (kind,) if kind else TOLD,
        item=filters["item"] or None,
        cluster_items=_members(seen, filters["cluster"]) if filters["cluster"] else None,
        conclusion=conclusion or None,
        since=read_moment(since, "since") if filters["since"] else None,
        until=read_end(until, "until") if filters["until"] else None,
        model=model or None,
        after=after,
        last=STEPS if latest else None,
    )
    found = list(islice(calls(desk.db, seen.record.id, wanted), STEPS + 1))
    # "10m" is another moment by the time that the next page is asked for.
    moments = {what: read_moment(filters[what], what).isoformat() for what in ("since", "until") if filters[what]}
    return page(
        "trace", **head(desk, name), tab="trace", steps=[step_of(seen, call, None) for call in found[:STEPS]],
        following=found[STEPS - 1].id if len(found) > STEPS else None, filters=filters, latest=latest, after=after,
        onwards={what: said for what, said in (filters | moments).items() if said}, kinds=TRACED,
        conclusions=CONCLUSIONS, models=sorted({one.model for one in held(desk.db, seen.record.id)}),
        others=seen.result.clusters,
    )  # fmt: skip


def _members(seen: Seen, cluster: str) -> list[str]:
    if not cluster.isdecimal() or len(cluster) > 9:
        raise UsageError(f"cluster {cluster!r}: give a cluster's number")
    return seen.result.cluster(int(cluster)).items
