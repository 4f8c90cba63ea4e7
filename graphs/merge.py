"""The global merge agent as a LangGraph state machine: pair, compare, unite or keep (METHOD 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from agents import questions
from agents.conclusions import Conclusion
from agents.prompt_sets import PromptSet
from graphs.asking import Asker
from graphs.merging import Comparison, Merging


class MergeState(TypedDict, total=False):
    """Where the merge agent is."""

    session: str
    step: int
    """Answers taken."""
    clusters: int
    """Clusters that are left."""
    a: int
    b: int
    """Positions of the two clusters that are being compared."""
    conclusion: str


@dataclass(frozen=True, slots=True)
class MergeContext:
    """What the merge agent works with; handed to the run, never stored."""

    merging: Merging
    asker: Asker
    prompts: PromptSet
    hashes: Sequence[str]
    """Content hash of every node."""

    def question(self, asked: Comparison) -> questions.Question:
        """The question of a comparison, as it is put to the model."""
        a, b = ([self.hashes[v] for v in shown] for shown in asked.representatives)
        return questions.merge(self.prompts, a, b, asked.attempt)

    def show_progress(self) -> None:
        """Pairs judged, and at most how many there are."""
        progress = self.asker.progress
        progress.done = self.merging.steps
        progress.total = self.merging.steps + self.merging.pairs_left


def replay(context: MergeContext) -> None:
    """Bring the merge to where the ledger ends, without a call and without a superstep."""
    while (asked := context.merging.open) is not None:
        answer = context.asker.answers.get(context.question(asked).key(context.asker.sampling))
        if answer is None or answer.conclusion is None:
            return
        context.merging.answer(Conclusion(answer.conclusion))


async def pair(state: MergeState, runtime: Runtime[MergeContext]) -> Command[Literal["compare", "__end__"]]:
    """Choose which two clusters to compare."""
    context = runtime.context
    context.show_progress()
    asked = context.merging.open
    if asked is None:
        return Command(goto="__end__", update={"clusters": len(context.merging.clusters)})
    return Command(goto="compare", update={"a": asked.a, "b": asked.b})


async def compare(state: MergeState, runtime: Runtime[MergeContext]) -> Command[Literal["unite", "keep"]]:
    """Put the question to the model and take its answer."""
    context = runtime.context
    asked = context.merging.open
    assert asked is not None
    shown = [list(side) for side in asked.representatives]
    answer = await context.asker.ask(
        context.question(asked),
        component=None,
        step=context.merging.steps,
        subject={"representatives": shown, "clusters": shown},
    )
    conclusion = Conclusion(answer.conclusion or Conclusion.UNKNOWN)
    united = context.merging.answer(conclusion)
    seen = {"step": context.merging.steps, "conclusion": conclusion.value}
    return Command(goto="unite" if united else "keep", update=seen)


async def unite(state: MergeState, runtime: Runtime[MergeContext]) -> Command[Literal["pair"]]:
    """The two clusters have become one."""
    return Command(goto="pair", update={"clusters": len(runtime.context.merging.clusters)})


async def keep(state: MergeState) -> Command[Literal["pair"]]:
    """The two clusters stay apart, or the question is asked again after an UNKNOWN."""
    return Command(goto="pair")


def merge_graph() -> StateGraph[MergeState, MergeContext, Any, Any]:
    """The wiring; compile it with a checkpointer."""
    graph = StateGraph(MergeState, context_schema=MergeContext)
    for node in (pair, compare, unite, keep):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "pair")
    return graph
