"""A whole session as a LangGraph state machine: describe, relate, traverse, merge, conclude.

Each component agent and the merge agent run on LangGraph threads of their own, all on the same checkpointer; agents of
different components run side by side (ARCHITECTURE 2).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
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
from graphs import component, merge
from graphs.asking import Asker
from graphs.merging import Merging
from graphs.partition import PARTITION, Partition, make_partition
from graphs.relational import RelationalGraph, build_graph
from graphs.traversal import Phase, Traversal
from storage.errors import EndpointMisbehaves, RequestRejected

GRAPH = "graph"
"""The artefact that holds a session's relational graph."""
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
    embed_mode: Literal["native", "caption"]
    embed_model: str
    beta: float | None
    """The embedder's own β, or None for embeddings that come without one."""
    threshold: float | None
    """τ, or None to calibrate it."""
    representatives: int
    """K of METHOD 4."""
    checkpointer: BaseCheckpointSaver[Any] | None = None
    graph: RelationalGraph | None = None
    walks: list[Traversal] = field(default_factory=list)
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

    def described(self, node: int) -> str:
        """What the ledger says of a node, or an empty text."""
        answer = self.asker.answers.get(questions.describe(self.prompts, self.hashes[node]).key(self.asker.sampling))
        return answer.reply if answer else ""


async def describe(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["relate"]]:
    """Describe and embed every item (METHOD 2) and relate them (METHOD 3), unless the graph is there already."""
    context = runtime.context
    stored = await asyncio.to_thread(context.load_artefact, GRAPH)
    if stored is not None:
        context.graph = RelationalGraph.from_bytes(stored)
        return Command(goto="relate")
    vectors: dict[int, Vector] = {}
    with context.stage("describe", len(context.hashes), "embed"):
        await context.asker.each(partial(_describe, context, node, vectors) for node in range(len(context.hashes)))
    with context.stage("relate", len(context.hashes), "graph"):
        embeddings = _stacked(context, vectors)
        context.graph = await asyncio.to_thread(build_graph, embeddings, beta=context.beta, threshold=context.threshold)
        await asyncio.to_thread(context.store_artefact, GRAPH, context.graph.to_bytes())
        context.asker.forget_vectors()
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
    """Split the relational graph into components and give each an agent."""
    context = runtime.context
    assert context.graph is not None
    components = context.graph.components()
    context.walks = [Traversal(context.graph, nodes, context.representatives) for nodes in components]
    return Command(goto="traverse", update={"edges": context.graph.edges, "components": len(components)})


async def traverse(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["unite"]]:
    """Run the component agents side by side (METHOD 4)."""
    context = runtime.context
    agent = component.component_graph().compile(checkpointer=context.checkpointer)

    def assigned() -> None:
        context.asker.progress.done += 1

    async def one(number: int, walk: Traversal) -> None:
        mine = component.ComponentContext(number, walk, context.asker, context.prompts, context.hashes, assigned)
        nodes = walk.nodes
        component.replay(mine)
        if nodes == 1:
            return  # nothing to ask, so nothing for LangGraph to keep
        where: component.ComponentState = {
            "session": str(context.session), "component": number, "size": nodes, "step": walk.steps,
            "clusters": len(walk.clusters), "members": walk.size,
        }  # fmt: skip
        await agent.ainvoke(where, context.config(f"component {number}"), context=mine, durability=_durability(context))

    with context.stage("traverse", len(context.hashes), "traverse"):
        work: Iterator[Callable[[], Awaitable[None]]] = (partial(one, i, w) for i, w in enumerate(context.walks))
        await context.asker.each(work)
    assert all(walk.phase is Phase.DONE for walk in context.walks)
    return Command(goto="unite", update={"clusters": sum(len(walk.clusters) for walk in context.walks)})


async def unite(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["conclude"]]:
    """Run the merge agent over the clusters of all components (METHOD 5), and name what is left."""
    context = runtime.context
    assert context.graph is not None
    said = {v: context.described(v) for v in range(len(context.hashes))}
    found = [cluster for walk in context.walks for cluster in walk.clusters]
    # What the model could not describe it can't compare either: such an item stands alone.
    mute = [cluster for cluster in found if not any(said[v] for v in cluster.members)]
    clusters = [cluster for cluster in found if any(said[v] for v in cluster.members)]
    cut = (e for walk in context.walks for e in walk.cut)
    merging = Merging(context.graph, clusters, cut, context.representatives)
    mine = merge.MergeContext(merging, context.asker, context.prompts, context.hashes)
    with context.stage("merge", 0, "merge"):
        merge.replay(mine)
        agent = merge.merge_graph().compile(checkpointer=context.checkpointer)
        where: merge.MergeState = {
            "session": str(context.session),
            "step": merging.steps,
            "clusters": len(merging.clusters),
        }
        await agent.ainvoke(where, context.config("merge"), context=mine, durability=_durability(context))
    context.partition = make_partition([*merging.clusters, *mute], said, context.prompts, context.representatives)
    return Command(goto="conclude", update={"clusters": len(merging.clusters)})


async def conclude(state: SessionState, runtime: Runtime[SessionContext]) -> None:
    """Store the partition."""
    context = runtime.context
    assert context.partition is not None
    await asyncio.to_thread(context.store_artefact, PARTITION, context.partition.to_bytes())


def _durability(context: SessionContext) -> Literal["async"] | None:
    """Checkpoints are written while the next step runs: the ledger is what must not be lost (ARCHITECTURE 1)."""
    return "async" if context.checkpointer is not None else None


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

    Raises:
        Paused: the budget is used up or the asker was told to stop; everything answered is kept.
        EndpointError: the endpoint can't be used.
    """
    graph = session_graph().compile(checkpointer=context.checkpointer)
    start: SessionState = {"session": str(context.session), "items": len(context.hashes)}
    await graph.ainvoke(start, context.config("session"), context=context, durability=_durability(context))
    assert context.partition is not None
    return context.partition
