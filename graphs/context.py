"""What a session works with while it runs."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from agents import questions
from agents.descriptions import read_description
from agents.prompt_sets import PromptSet
from graphs.asking import Asker
from graphs.likeness import Whole
from graphs.partition import PARTITION, Found, Partition, make_partition
from graphs.relational import RelationalGraph


@dataclass(frozen=True, slots=True)
class Standing:
    """The clusters as they stand at a moment; nothing that the search does later changes it."""

    clusters: list[Found]
    confidence: dict[int, float] | None
    """How sure each node's place is, where that is known."""


class Policy(Protocol):
    """A search for the clusters of a session."""

    @property
    def answers(self) -> int:
        """Answers applied so far: while they are as many, the clusters are the same."""
        ...

    async def traverse(self) -> int:
        """Run the component agents; the number of clusters that they found."""
        ...

    async def unite(self) -> int:
        """Run what is left to the merge agent; the number of clusters that are left."""
        ...

    def found(self) -> Standing | None:
        """The clusters as they stand; None while the search is not yet where the ledger ends.

        It is called where answers are applied: on the event loop.
        """
        ...


@dataclass(slots=True)
class SessionContext:
    """What a session works with; handed to the run, never stored."""

    session: uuid.UUID
    prompts: PromptSet
    hashes: Sequence[str]
    """Content hash of every node; nodes are numbered from 0 in the collection's order."""
    asker: Asker
    load_artefact: Callable[[str], bytes | None]
    store_artefact: Callable[[str, bytes], None]
    store_seconds: Callable[[Mapping[str, float]], None]
    """Keeps the time spent in each stage by this process; called when a stage ends."""
    store_decisions: Callable[[str, list[dict[str, Any]]], None]
    """Keeps what an answer decided, by the key of its question; returns at once."""
    embed_mode: Literal["native", "caption"]
    embed_model: str
    beta: float | None
    """The embedder's own β, or None for embeddings that come without one."""
    threshold: float | None
    """τ, or None to calibrate it."""
    policy: Literal["paper", "evidence"]
    representatives: int
    """K of METHOD 4."""
    window: int = 1
    """W of CONTRACT 6."""
    candidates: int = 1
    """B: candidates in one membership call."""
    checkpointer: BaseCheckpointSaver[Any] | None = None
    graph: RelationalGraph | None = None
    vectors: Whole | None = None
    search: Policy | None = None
    partition: Partition | None = None
    isolated: dict[int, str] = field(default_factory=dict)
    """Nodes whose description or embedding failed, and why; they have no neighbours (METHOD 2)."""
    rejected: int = 0
    """How many of them failed in this process."""
    said: dict[int, str] = field(default_factory=dict)
    """Every node's description, once all are described."""
    _storing: threading.Lock = field(default_factory=threading.Lock)
    _has_last: bool = False

    def config(self, part: str) -> RunnableConfig:
        """The LangGraph thread of a part of the session. LangGraph's server takes only UUIDs as thread names."""
        return {
            "configurable": {"thread_id": str(uuid.uuid5(self.session, part))},
            "recursion_limit": 2**31 - 1,
            "run_name": f"partita {part}",
            "metadata": {"session": str(self.session), "part": part},
        }

    @property
    def durability(self) -> Literal["async"] | None:
        """Checkpoints are written while the next step runs: the ledger is what must not be lost (ARCHITECTURE 1)."""
        return "async" if self.checkpointer is not None else None

    @contextmanager
    def stage(self, name: str, total: int, clock: str) -> Iterator[None]:
        """Show a stage's progress and take its time."""
        progress = self.asker.progress
        progress.stage, progress.done, progress.total = name, 0, total
        began = time.monotonic()
        try:
            yield
        finally:
            progress.seconds[clock] = progress.seconds.get(clock, 0.0) + time.monotonic() - began
            self.store_seconds(progress.seconds)

    def descriptions(self) -> dict[int, str]:
        """What the ledger says of every node; an empty text where it says nothing."""
        said = {}
        for node, content_hash in enumerate(self.hashes):
            key = questions.describe(self.prompts, content_hash).key(self.asker.sampling)
            answer = self.asker.answers.get(key)
            said[node] = read_description(answer.reply) if answer else ""
        return said

    def best_partition(self) -> Partition | None:
        """The partition as far as the search has come, or None before it has begun. For the event loop's thread."""
        standing = None if self.search is None else self.search.found()
        return None if standing is None else self.partition_of(standing)

    def partition_of(self, standing: Standing) -> Partition:
        """All nodes in named clusters. For any thread."""
        placed = {v for c in standing.clusters for v in c.members}
        # What the model could not describe it can't judge either: such an item stands alone.
        alone = [Found([v], [v]) for v in range(len(self.hashes)) if v not in placed]
        confidence = standing.confidence
        if confidence is not None:
            confidence = confidence | {c.members[0]: 1.0 for c in alone}
        return make_partition([*standing.clusters, *alone], self.said, self.prompts, confidence)

    def store_partition(self, partition: Partition, *, last: bool) -> None:
        """Store a partition. One that is not this process's last never takes the place of the last, whatever the
        threads that store them are up to."""
        with self._storing:
            if last or not self._has_last:
                self._has_last = last
                self.store_artefact(PARTITION, partition.to_bytes())
