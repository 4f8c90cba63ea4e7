"""A whole session as a LangGraph state machine: describe, relate, traverse, merge, conclude.

The component agents and the merge agent run on LangGraph threads of their own, all on the same checkpointer, side by
side (ARCHITECTURE 2). What differs between the policies stands in ``searches``.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from agents import questions
from agents.prompt_sets import PromptSet
from graphs.asking import Asker
from graphs.likeness import Whole, bytes_of, vectors_from, whole_vectors
from graphs.partition import PARTITION, Found, Partition, make_partition
from graphs.relational import RelationalGraph, build_graph
from graphs.searches import EvidencePolicy, PaperPolicy, Policy
from storage.errors import EndpointMisbehaves, RequestRejected

GRAPH = "graph"
"""The artefact that holds a session's relational graph."""
VECTORS = "vectors"
"""The artefact that holds the embeddings as policy ``evidence`` sees them."""
HOPELESS = 8
"""So many items that can't be described or embedded, and none that can, and the endpoint is no use."""

Vector = npt.NDArray[np.float32]


class SessionState(TypedDict, total=False):
    """Where a session is."""

    session: str
    items: int
    """Nodes: distinct items that can be clustered."""
    edges: int
    components: int
    clusters: int


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

    def config(self, part: str) -> RunnableConfig:
        """The LangGraph thread of a part of the session. LangGraph's server takes only UUIDs as thread names."""
        return {
            "configurable": {"thread_id": str(uuid.uuid5(self.session, part))},
            "recursion_limit": 2**31 - 1,
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
            said[node] = answer.reply if answer else ""
        return said

    def best_partition(self) -> Partition | None:
        """The partition as far as the search has come, or None before it has begun."""
        if self.search is None:
            return None
        said = self.descriptions()
        found, confidence = self.search.found()
        placed = {v for c in found for v in c.members}
        # What the model could not describe it can't judge either: such an item stands alone.
        alone = [Found([v], [v]) for v in range(len(self.hashes)) if v not in placed]
        if confidence is not None:
            confidence |= {c.members[0]: 1.0 for c in alone}
        return make_partition([*found, *alone], said, self.prompts, confidence)


async def describe(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["relate"]]:
    """Describe and embed every item (METHOD 2) and relate them (METHOD 3), unless the graph is there already."""
    context = runtime.context
    stored = await asyncio.to_thread(context.load_artefact, GRAPH)
    if stored is not None:
        context.graph = RelationalGraph.from_bytes(stored)
        if context.policy == "evidence":
            stored = await asyncio.to_thread(context.load_artefact, VECTORS)
            assert stored is not None  # it was stored before the graph
            context.vectors = vectors_from(stored)
        return Command(goto="relate")
    vectors: dict[int, Vector] = {}
    with context.stage("describe", len(context.hashes), "embed"):
        await context.asker.each(partial(_describe, context, node, vectors) for node in range(len(context.hashes)))
    with context.stage("relate", len(context.hashes), "graph"):
        embeddings = _stacked(context, vectors)
        vectors.clear()
        context.asker.forget_vectors()
        if context.policy == "evidence":
            context.vectors = await asyncio.to_thread(whole_vectors, embeddings)
            await asyncio.to_thread(context.store_artefact, VECTORS, bytes_of(context.vectors))
        context.graph = await asyncio.to_thread(build_graph, embeddings, beta=context.beta, threshold=context.threshold)
        await asyncio.to_thread(context.store_artefact, GRAPH, context.graph.to_bytes())
    return Command(goto="relate")


async def _describe(context: SessionContext, node: int, vectors: dict[int, Vector]) -> None:
    question = questions.describe(context.prompts, context.hashes[node])
    answer = await context.asker.ask(question, component=None, step=None, subject={"item": node})
    try:
        if not answer.reply.strip():
            raise RequestRejected(answer.reason or "the model's description is empty")
        vectors[node] = await context.asker.embed(
            question, answer.reply, mode=context.embed_mode, model=context.embed_model, node=node
        )
    except RequestRejected as e:
        context.isolated[node] = str(e)
        if len(context.isolated) >= HOPELESS and not vectors:
            raise EndpointMisbehaves(f"no item can be described and embedded: {e}") from e
    context.asker.progress.done += 1


def _stacked(context: SessionContext, vectors: dict[int, Vector]) -> Vector:
    """(nodes, d) float32; isolated nodes have rows of zeros."""
    if not vectors:
        raise EndpointMisbehaves(f"no item can be described and embedded: {next(iter(context.isolated.values()))}")
    widths = {len(v) for v in vectors.values()}
    if len(widths) > 1:
        raise EndpointMisbehaves(f"embeddings have different widths ({sorted(widths)}): name one model, --embed-model")
    embeddings = np.zeros((len(context.hashes), widths.pop()), dtype=np.float32)
    for node, vector in vectors.items():
        embeddings[node] = vector
    return embeddings


async def relate(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["traverse"]]:
    """Split the relational graph into components and prepare the search over them."""
    context = runtime.context
    assert context.graph is not None
    components = context.graph.components()
    said = await asyncio.to_thread(context.descriptions)
    mute = {v for v, words in said.items() if not words.strip()}
    if context.policy == "paper":
        context.search = PaperPolicy(context, components, mute)
    else:
        context.search = EvidencePolicy(context, components, mute)
    return Command(goto="traverse", update={"edges": context.graph.edges, "components": len(components)})


async def traverse(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["unite"]]:
    """Run the component agents (METHOD 4)."""
    context = runtime.context
    assert context.search is not None
    with context.stage("traverse", len(context.hashes), "traverse"):
        clusters = await context.search.traverse()
    return Command(goto="unite", update={"clusters": clusters})


async def unite(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["conclude"]]:
    """Run what is left to the merge agent (METHOD 5), and name the clusters."""
    context = runtime.context
    assert context.search is not None
    with context.stage("merge", 0, "merge"):
        clusters = await context.search.unite()
    context.partition = await asyncio.to_thread(context.best_partition)
    return Command(goto="conclude", update={"clusters": clusters})


async def conclude(state: SessionState, runtime: Runtime[SessionContext]) -> None:
    """Store the partition."""
    context = runtime.context
    assert context.partition is not None
    await asyncio.to_thread(context.store_artefact, PARTITION, context.partition.to_bytes())


def session_graph() -> StateGraph[SessionState, SessionContext, Any, Any]:
    """The wiring; compile it with a checkpointer."""
    graph = StateGraph(SessionState, context_schema=SessionContext)
    for node in (describe, relate, traverse, unite, conclude):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "describe")
    graph.add_edge("conclude", END)
    return graph


async def run_session(context: SessionContext) -> Partition:
    """Run a session from wherever its ledger stands to its partition.

    When it has to stop before the end, the best partition so far is stored.

    Raises:
        Paused: the budget is used up or the asker was told to stop; everything answered is kept.
        EndpointError: the endpoint can't be used.
    """
    graph = session_graph().compile(checkpointer=context.checkpointer)
    start: SessionState = {"session": str(context.session), "items": len(context.hashes)}
    try:
        await graph.ainvoke(start, context.config("session"), context=context, durability=context.durability)
    except BaseException:
        if (so_far := context.best_partition()) is not None:
            context.store_artefact(PARTITION, so_far.to_bytes())
        raise
    assert context.partition is not None
    return context.partition
