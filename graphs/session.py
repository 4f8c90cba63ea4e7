"""A whole session as a LangGraph state machine: describe, relate, traverse, merge, conclude.

The component agents and the merge agent run on LangGraph threads of their own, all on the same checkpointer, side by
side (ARCHITECTURE 2). What differs between the policies stands in ``searches``.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12, and LangGraph's server asks it

from agents import questions
from agents.descriptions import read_description
from graphs.asking import HOPELESS
from graphs.context import SessionContext
from graphs.likeness import VECTORS, bytes_of, vectors_from, whole_vectors
from graphs.partition import Partition
from graphs.relational import GRAPH, RelationalGraph, build_graph
from graphs.searches import EvidencePolicy, PaperPolicy
from graphs.so_far import keep_so_far
from storage.errors import EndpointMisbehaves, RequestRejected

Vector = npt.NDArray[np.float32]


class SessionState(TypedDict, total=False):
    """Where a session is."""

    session: str
    items: int
    """Nodes: distinct items that can be clustered."""
    edges: int
    components: int
    clusters: int


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
    known = question.key(context.asker.sampling) in context.asker.answers
    answer = await context.asker.ask(question, component=None, step=None, subject={"item": node})
    try:
        description = read_description(answer.reply)
        if not description.strip():
            raise RequestRejected(answer.reason or "the model's description is empty")
        vectors[node] = await context.asker.embed(
            question, description, mode=context.embed_mode, model=context.embed_model, node=node
        )
    except RequestRejected as e:
        context.isolated[node] = str(e)
        context.rejected += not known
        # A rejection comes quicker than an embedding: as many are waited for as may overtake the first of these.
        if context.rejected >= max(HOPELESS, 4 * context.asker.concurrency) and not vectors:
            raise EndpointMisbehaves(f"no item can be described and embedded: {e}") from e
    context.asker.progress.done += 1


def _stacked(context: SessionContext, vectors: dict[int, Vector]) -> Vector:
    """(nodes, d) float32; isolated nodes have rows of zeros."""
    if not vectors:
        raise EndpointMisbehaves(f"no item can be described and embedded: {next(iter(context.isolated.values()))}")
    widths = {len(v) for v in vectors.values()}
    if len(widths) > 1:
        lengths = ", ".join(map(str, sorted(widths)))
        raise EndpointMisbehaves(
            f"the endpoint gave embeddings of different lengths ({lengths} numbers), which can't be compared: "
            "begin a new session with an --embed-model that gives one length"
        )
    if not any(vector.any() for vector in vectors.values()):
        raise EndpointMisbehaves(
            "the endpoint gave zeros for every embedding: begin a new session with another --embed-model"
        )
    embeddings = np.zeros((len(context.hashes), widths.pop()), dtype=np.float32)
    for node, vector in vectors.items():
        embeddings[node] = vector
    return embeddings


async def relate(state: SessionState, runtime: Runtime[SessionContext]) -> Command[Literal["traverse"]]:
    """Split the relational graph into components and prepare the search over them."""
    context = runtime.context
    assert context.graph is not None
    components = context.graph.components()
    context.said = await asyncio.to_thread(context.descriptions)
    mute = {v for v, words in context.said.items() if not words.strip()}
    policy = PaperPolicy if context.policy == "paper" else EvidencePolicy
    context.search = await asyncio.to_thread(policy, context, components, mute)
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
    await asyncio.to_thread(context.store_partition, context.partition, last=True)


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

    The partition so far is stored now and then, and when it has to stop before the end.

    Raises:
        Paused: the budget is used up or the asker was told to stop; everything answered is kept.
        EndpointError: the endpoint can't be used.
    """
    graph = session_graph().compile(checkpointer=context.checkpointer)
    start: SessionState = {"session": str(context.session), "items": len(context.hashes)}
    keeping = asyncio.create_task(keep_so_far(context))
    try:
        await graph.ainvoke(start, context.config("session"), context=context, durability=context.durability)
    except BaseException:
        if (so_far := context.best_partition()) is not None:
            context.store_partition(so_far, last=True)
        raise
    finally:
        keeping.cancel()
    assert context.partition is not None
    return context.partition
