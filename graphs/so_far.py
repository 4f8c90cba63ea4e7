"""The partition so far, stored now and then while a search goes on, for whoever looks at a session that is running."""

from __future__ import annotations

import asyncio
import time

from graphs.context import SessionContext, Standing
from storage.errors import DatabaseError

EVERY = 5.0
"""Seconds between two partitions."""
SHARE = 20
"""It takes at most one part in so many of the time."""


async def keep_so_far(context: SessionContext) -> None:
    """Store the partition whenever answers have changed it, until cancelled.

    Where everything stands is read here, on the event loop, where answers are applied; naming the clusters and storing
    them, which takes longer, is left to a thread.
    """
    stored: int | None = None
    wait = EVERY
    while True:
        await asyncio.sleep(wait)
        wait = EVERY
        search = context.search
        if search is None or (answers := search.answers) == stored:
            continue
        began = time.monotonic()
        if (standing := search.found()) is None:
            continue
        if await asyncio.to_thread(_is_stored, context, standing):
            stored = answers
        wait = max(EVERY, SHARE * (time.monotonic() - began))


def _is_stored(context: SessionContext, standing: Standing) -> bool:
    try:
        context.store_partition(context.partition_of(standing), last=False)
    except DatabaseError:  # busy for a moment, say: the next one will do, and the last one has to
        return False
    return True
