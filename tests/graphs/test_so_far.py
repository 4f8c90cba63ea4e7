"""A partition so far never takes the place of the last one, however late the thread that stores it."""

from __future__ import annotations

import threading
import uuid
from typing import Any, cast

from agents.prompt_sets import set_for_criterion
from graphs.context import SessionContext
from graphs.partition import NamedCluster, Partition


def test_the_last_partition_stays() -> None:
    begun, let_go = threading.Event(), threading.Event()
    stored: list[bytes] = []

    def store(name: str, payload: bytes) -> None:
        begun.set()
        let_go.wait()
        stored.append(payload)

    nothing = cast(Any, None)
    context = SessionContext(
        session=uuid.uuid4(), prompts=set_for_criterion("suit"), hashes=[], asker=nothing, load_artefact=nothing,
        store_artefact=store, store_seconds=nothing, store_decisions=nothing, embed_mode="native", embed_model="m",
        beta=None, threshold=None, policy="paper", representatives=3,
    )  # fmt: skip
    old, late, last = (Partition((NamedCluster(name, (0,)),)) for name in ("old", "late", "last"))
    slow = threading.Thread(target=context.store_partition, args=(old,), kwargs={"last": False})
    slow.start()
    begun.wait()
    final = threading.Thread(target=context.store_partition, args=(last,), kwargs={"last": True})
    final.start()
    let_go.set()
    slow.join()
    final.join()
    context.store_partition(late, last=False)
    assert stored == [old.to_bytes(), last.to_bytes()]
