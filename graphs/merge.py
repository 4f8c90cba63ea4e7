"""The global merge agent as a LangGraph state machine: pair, compare, unite or keep (METHOD 5).

What happens in each node is the policy's: ``paper.PaperMerger`` or ``scheduling.EvidenceMerger``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12, and LangGraph's server asks it


class MergeState(TypedDict, total=False):
    """Where the merge agent is."""

    session: str
    step: int
    """Answers taken."""
    clusters: int
    """Clusters that are left."""
    representatives: list[list[int]]
    """Of the two clusters that are being compared."""
    conclusion: str


class Merger(Protocol):
    """What a policy does in the nodes; each returns what changes in the state."""

    async def pair(self) -> MergeState | None:
        """Choose which two clusters to compare; None when nothing changes any more."""
        ...

    async def compare(self) -> tuple[bool, MergeState]:
        """Put the question to the model and take its answer; True when clusters were united."""
        ...

    @property
    def clusters(self) -> int:
        """Clusters that are left."""
        ...


@dataclass(frozen=True, slots=True)
class MergeContext:
    """What the merge agent works with; handed to the run, never stored."""

    merger: Merger


async def pair(state: MergeState, runtime: Runtime[MergeContext]) -> Command[Literal["compare", "__end__"]]:
    """Choose which two clusters to compare."""
    merger = runtime.context.merger
    asked = await merger.pair()
    if asked is None:
        return Command(goto="__end__", update={"clusters": merger.clusters})
    return Command(goto="compare", update=asked)


async def compare(state: MergeState, runtime: Runtime[MergeContext]) -> Command[Literal["unite", "keep"]]:
    """Put the question to the model and take its answer."""
    united, seen = await runtime.context.merger.compare()
    return Command(goto="unite" if united else "keep", update=seen)


async def unite(state: MergeState, runtime: Runtime[MergeContext]) -> Command[Literal["pair"]]:
    """The two clusters have become one."""
    return Command(goto="pair", update={"clusters": runtime.context.merger.clusters})


async def keep(state: MergeState) -> Command[Literal["pair"]]:
    """The two clusters stay apart, or the question is asked again."""
    return Command(goto="pair")


def merge_graph() -> StateGraph[MergeState, MergeContext, Any, Any]:
    """The wiring; compile it with a checkpointer."""
    graph = StateGraph(MergeState, context_schema=MergeContext)
    for node in (pair, compare, unite, keep):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "pair")
    return graph
