"""The trace: every assessment of a session in words, one row each, straight from the ledger (CONTRACT 3)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from storage.calls import TOLD, Call, Wanted, calls
from storage.database import Database


def trace(
    db: Database,
    session_id: str,
    item: str | None = None,
    cluster_items: Collection[str] | None = None,
    kind: str | None = None,
    conclusion: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
    last: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows in the order of writing, streamed. Node numbers are given as item names.

    `kind` chooses one kind; without it the assessments (membership and merge) and people's corrections are shown.
    `item` keeps the rows that item takes part in, `cluster_items` the rows that any of those items takes part in; the
    rest is as in `storage.calls.Wanted`.

    A row of describe or embed has the item as its only candidate. `tokens` is prompt and completion together, None
    when the endpoint did not say; `images` those that the question showed.

    `decisions` is what the search made of the answer ([] when nothing is known of it), `odds` those of the first.

    Items of the same content share a node, which bears the first one's name.

    Raises:
        UsageError: no such kind or conclusion, or no such item in the session.
    """
    kinds = TOLD if kind is None else (kind,)
    wanted = Wanted(kinds, item, cluster_items, conclusion, since, until, model, last)
    return map(trace_row, calls(db, session_id, wanted))


def trace_row(call: Call) -> dict[str, Any]:
    """A call as one line of `trace --json`."""
    tokens = (call.prompt_tokens, call.completion_tokens)
    return {
        "id": call.id,
        "kind": call.kind,
        "component": call.component,
        "step": call.step,
        **call.about,
        "prompt": call.prompt,
        "prompt_hash": call.prompt_hash,
        "reply": call.reply,
        "conclusion": call.conclusion,
        "decisions": call.decisions,
        "odds": call.decisions[0].get("odds") if call.decisions else None,
        "reason": call.reason,
        "model": call.model,
        "tokens": None if tokens == (None, None) else sum(count or 0 for count in tokens),
        "images": call.images,
        "seconds": call.seconds,
        "attempts": call.attempts,
        "origin": call.origin,
        "at": call.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
