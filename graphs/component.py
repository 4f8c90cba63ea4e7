"""The component agent as a LangGraph state machine: seed, candidate, assess, update or prune, finish (METHOD 4).

The nodes drive a ``Traversal``; the state holds ids and cursors only (ARCHITECTURE 3), so that a checkpoint stays
small and is a view of the ledger, never a second truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from agents import questions
from agents.conclusions import Conclusion
from agents.prompt_sets import PromptSet
from graphs.asking import Asker
from graphs.traversal import Assessment, Phase, Traversal


class ComponentState(TypedDict, total=False):
    """Where a component agent is."""

    session: str
    component: int
    size: int
    """Nodes of the component."""
    step: int
    """Answers taken."""
    clusters: int
    """Clusters finished."""
    seed: int
    members: int
    """Members of the cluster that is being grown."""
    candidate: int
    representatives: list[int]
    conclusion: str


@dataclass(frozen=True, slots=True)
class ComponentContext:
    """What a component agent works with; handed to the run, never stored."""

    component: int
    traversal: Traversal
    asker: Asker
    prompts: PromptSet
    hashes: Sequence[str]
    """Content hash of every node."""
    on_assigned: Callable[[], None]
    """Called whenever a node has joined a cluster."""

    def question(self, asked: Assessment) -> questions.Question:
        """The question of an assessment, as it is put to the model."""
        shown = [self.hashes[v] for v in asked.representatives]
        return questions.membership(self.prompts, shown, [self.hashes[asked.candidate]], asked.attempt)

    def known(self, asked: Assessment) -> Conclusion | None:
        """What the ledger says to an assessment."""
        answer = self.asker.answers.get(self.question(asked).key(self.asker.sampling))
        return None if answer is None or answer.conclusion is None else Conclusion(answer.conclusion)


def replay(context: ComponentContext) -> None:
    """Bring a traversal to where the ledger ends, without a call and without a superstep."""
    walk = context.traversal
    while walk.phase is not Phase.DONE:
        match walk.phase:
            case Phase.SEED:
                walk.seed()
                context.on_assigned()
            case Phase.CANDIDATE:
                walk.candidate()
            case Phase.FINISH:
                walk.finish()
            case Phase.ASSESS:
                assert walk.open is not None
                conclusion = context.known(walk.open)
                if conclusion is None:
                    return
                if walk.answer(conclusion) is Conclusion.YES:
                    context.on_assigned()


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
    """Where a run begins: at the phase to which the ledger has brought the traversal."""
    return _NODE[runtime.context.traversal.phase]


async def seed(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["candidate"]]:
    """Start a cluster."""
    v = runtime.context.traversal.seed()
    runtime.context.on_assigned()
    return Command(goto="candidate", update={"seed": v, "members": 1})


async def candidate(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["assess", "finish"]]:
    """Choose whom to ask about."""
    asked = runtime.context.traversal.candidate()
    if asked is None:
        return Command(goto="finish")
    shown = list(asked.representatives)
    return Command(goto="assess", update={"candidate": asked.candidate, "representatives": shown})


async def assess(
    state: ComponentState, runtime: Runtime[ComponentContext]
) -> Command[Literal["update", "prune", "assess", "candidate"]]:
    """Put the question to the model and take its answer."""
    context = runtime.context
    asked = context.traversal.open
    assert asked is not None
    answer = await context.asker.ask(
        context.question(asked),
        component=context.component,
        step=context.traversal.steps,
        subject={"representatives": list(asked.representatives), "candidates": [asked.candidate]},
    )
    conclusion = Conclusion(answer.conclusion or Conclusion.UNKNOWN)
    taken = context.traversal.answer(conclusion)
    seen = {"step": context.traversal.steps, "conclusion": conclusion.value}
    if taken is None:
        return Command(goto="assess", update=seen)
    match taken:
        case Conclusion.YES:
            return Command(goto="update", update=seen)
        case Conclusion.NO:
            return Command(goto="prune", update=seen)
        case _:
            return Command(goto="candidate", update=seen)


async def update(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["candidate"]]:
    """The candidate has joined the cluster."""
    runtime.context.on_assigned()
    return Command(goto="candidate", update={"members": runtime.context.traversal.size})


async def prune(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["candidate"]]:
    """The candidate's edges to the cluster have left the graph."""
    return Command(goto="candidate", update={"members": runtime.context.traversal.size})


async def finish(state: ComponentState, runtime: Runtime[ComponentContext]) -> Command[Literal["seed", "__end__"]]:
    """Close the cluster; go on with what is unassigned."""
    walk = runtime.context.traversal
    walk.finish()
    seen = {"clusters": len(walk.clusters)}
    if walk.phase is Phase.DONE:
        return Command(goto="__end__", update=seen)
    return Command(goto="seed", update=seen)


def component_graph() -> StateGraph[ComponentState, ComponentContext, Any, Any]:
    """The wiring; compile it with a checkpointer."""
    graph = StateGraph(ComponentState, context_schema=ComponentContext)
    for node in (seed, candidate, assess, update, prune, finish):
        graph.add_node(node.__name__, node)
    graph.add_conditional_edges(START, enter)
    return graph
