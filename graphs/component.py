"""The component agent as a LangGraph state machine: seed, candidate, assess, update or prune, finish (METHOD 4).

What happens in each node is the policy's: ``paper.PaperWalk`` has one question outstanding, ``scheduling.EvidenceWalk``
a window of them, and takes many answers in one superstep. The state holds ids and cursors only (ARCHITECTURE 3), so
that a checkpoint stays small and is a view of the ledger, never a second truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12, and LangGraph's server asks it

from graphs.traversal import Phase


class ComponentState(TypedDict, total=False):
    """Where a component agent is."""

    session: str
    component: int
    size: int
    """Nodes of the component."""
    step: int
    """Answers taken."""
    clusters: int
    """Clusters finished; for policy evidence, found so far."""
    seed: int
    members: int
    """Members of the cluster that is being grown; for policy evidence, nodes that have a place."""
    candidate: int
    representatives: list[int]
    """Of the question that is answered next."""
    conclusion: str


Taken = Literal["update", "prune", "assess", "candidate"]
"""Where an answer leads: the candidate has joined, is refused, is asked about again, or is put off."""


class Walk(Protocol):
    """What a policy does in the nodes; each returns what changes in the state."""

    @property
    def phase(self) -> Phase:
        """Where the ledger has brought the walk."""
        ...

    def seed(self) -> ComponentState:
        """Start a cluster."""
        ...

    def candidate(self) -> ComponentState | None:
        """Choose whom to ask about; None when there is nobody left."""
        ...

    async def assess(self) -> tuple[Taken, ComponentState]:
        """Put the question to the model and take its answer."""
        ...

    def joined(self) -> ComponentState:
        """Called after a candidate has joined."""
        ...

    def pruned(self) -> ComponentState:
        """Called after a candidate was refused."""
        ...

    def finish(self) -> ComponentState:
        """Close the cluster."""
        ...


@dataclass(frozen=True, slots=True)
class ComponentContext:
    """What a component agent works with; handed to the run, never stored."""

    walk: Walk


_NODE: dict[Phase, Literal["seed", "candidate", "assess", "finish", "__end__"]] = {
    Phase.SEED: "seed",
    Phase.CANDIDATE: "candidate",
    Phase.ASSESS: "assess",
    Phase.FINISH: "finish",
    Phase.DONE: "__end__",
}


def enter(
    state: ComponentState, runtime: Runtime[ComponentContext]
) -> Literal["seed", "candidate", "assess", "finish", "__end__"]:
    """Where a run begins: at the phase to which the ledger has brought the walk."""
    return _NODE[runtime.context.walk.phase]


async def seed(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["candidate"]]:
    """Start a cluster."""
    return Command(goto="candidate", update=runtime.context.walk.seed())


async def candidate(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["assess", "finish"]]:
    """Choose whom to ask about."""
    asked = runtime.context.walk.candidate()
    return Command(goto="finish") if asked is None else Command(goto="assess", update=asked)


async def assess(
    state: ComponentState, runtime: Runtime[ComponentContext]
) -> Command[Literal["update", "prune", "assess", "candidate"]]:
    """Put the question to the model and take its answer."""
    goto, seen = await runtime.context.walk.assess()
    return Command(goto=goto, update=seen)


async def update(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["candidate"]]:
    """The candidate has joined a cluster."""
    return Command(goto="candidate", update=runtime.context.walk.joined())


async def prune(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["candidate"]]:
    """The candidate was refused."""
    return Command(goto="candidate", update=runtime.context.walk.pruned())


async def finish(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["seed", "__end__"]]:
    """Close the cluster; go on with what is unassigned."""
    seen = runtime.context.walk.finish()
    return Command(goto="__end__" if runtime.context.walk.phase is Phase.DONE else "seed", update=seen)


def component_graph() -> StateGraph[ComponentState, ComponentContext, Any, Any]:
    """The wiring; compile it with a checkpointer."""
    graph = StateGraph(ComponentState, context_schema=ComponentContext)
    for node in (seed, candidate, assess, update, prune, finish):
        graph.add_node(node.__name__, node)
    graph.add_conditional_edges(START, enter)
    return graph
