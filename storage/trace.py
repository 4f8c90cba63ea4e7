"""The trace: every assessment of a session in words, one row each, straight from the ledger (CONTRACT 3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC
from typing import Any

from sqlalchemy import select

from storage.database import Database
from storage.errors import UsageError
from storage.shown import Subject, images_shown
from storage.tables import answers, decisions, items, prompts

ASSESSMENTS = ("membership", "merge")
KINDS = ("describe", "embed", *ASSESSMENTS)
_PAGE = 500


def trace(
    db: Database,
    session_id: str,
    item: str | None = None,
    cluster_items: Collection[str] | None = None,
    kind: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows in the order of writing, streamed. Node numbers are given as item names.

    `kind` chooses one kind; without it the assessments (membership and merge) are shown. `item` keeps the rows that
    item takes part in, `cluster_items` the rows that any of those items takes part in.

    A row of describe or embed has the item as its only candidate. `tokens` is prompt and completion together, None
    when the endpoint did not say; `images` those that the question showed.

    `decisions` is what the search made of the answer ([] when nothing is known of it), `odds` those of the first.

    Items of the same content share a node, which bears the first one's name.

    Raises:
        UsageError: no such kind, or no such item in the session.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"There is no kind {kind!r} of answer: --kind takes {', '.join(KINDS)}.")
    with db.reading() as connection:
        images = images_shown(connection, session_id)
        named = connection.execute(
            select(items.c.node, items.c.name).where(items.c.session_id == session_id).order_by(items.c.position)
        )
        names: dict[int, str] = {}
        shown: dict[str, str] = {}
        for node, name in named:
            shown.setdefault(name, name if node is None else names.setdefault(node, name))
    if item is not None and item not in shown:
        raise UsageError(f"There is no item {item!r} in this session: `partita show` lists them.")
    cluster = None if cluster_items is None else frozenset(shown.get(name, name) for name in cluster_items)
    return _rows(db, session_id, names, images, None if item is None else shown[item], cluster, kind)


def _rows(
    db: Database,
    session_id: str,
    names: dict[int, str],
    images: Callable[[str, Subject], int],
    item: str | None,
    cluster: frozenset[str] | None,
    kind: str | None,
) -> Iterator[dict[str, Any]]:
    query = (
        select(
            *(column for column in answers.c if column.name != "vector"),
            prompts.c.text.label("prompt"),
            decisions.c.decided,
        )
        .select_from(answers)
        .outerjoin(prompts, prompts.c.hash == answers.c.prompt_hash)
        .outerjoin(decisions, decisions.c.answer == answers.c.id)
        .where(answers.c.session_id == session_id)
        .where(answers.c.kind.in_(ASSESSMENTS if kind is None else (kind,)))
        .order_by(answers.c.id)
        .limit(_PAGE)
    )
    # Page by page, each in a transaction of its own: whoever reads may be slow, or stop in the middle.
    last = -1
    while True:
        with db.reading() as connection:
            rows = connection.execute(query.where(answers.c.id > last)).mappings().all()
        for row in rows:
            subject = _subject(row["kind"], row["subject"], names)
            taking_part = set(_flat(list(subject.values())))
            if item is not None and item not in taking_part:
                continue
            if cluster is not None and not cluster & taking_part:
                continue
            decided = [_decision(one, names) for one in row["decided"] or []]
            tokens = [row["prompt_tokens"], row["completion_tokens"]]
            yield {
                "id": row["id"],
                "kind": row["kind"],
                "component": row["component"],
                "step": row["step"],
                **subject,
                "prompt": row["prompt"],
                "prompt_hash": row["prompt_hash"],
                "reply": row["reply"],
                "conclusion": row["conclusion"],
                "decisions": decided,
                "odds": decided[0].get("odds") if decided else None,
                "reason": row["reason"],
                "model": row["model"],
                "tokens": None if tokens == [None, None] else sum(count or 0 for count in tokens),
                "images": images(row["kind"], row["subject"]),
                "seconds": row["seconds"],
                "attempts": row["attempts"],
                "origin": row["origin"],
                "at": row["at"].astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            }
        if len(rows) < _PAGE:
            return
        last = rows[-1]["id"]


def _subject(kind: str, subject: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    representatives = _named(subject.get("representatives", []), names)
    if kind == "merge":
        clusters = subject.get("clusters", [])
        # Bare numbers here are ids of clusters; only lists of numbers are nodes.
        named = [_named(cluster, names) if isinstance(cluster, list) else cluster for cluster in clusters]
        return {"representatives": representatives, "clusters": named}
    candidates = [subject["item"]] if "item" in subject else subject.get("candidates", [])
    return {"representatives": representatives, "candidates": _named(candidates, names)}


def _decision(decision: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    return {
        what: _named(value, names) if what in ("item", "items", "clusters") else value
        for what, value in decision.items()
    }


def _named(value: Any, names: dict[int, str]) -> Any:
    if isinstance(value, list):
        return [_named(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, int) else value


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _flat(inner)
    elif isinstance(value, str):
        yield value
