"""Policy ``paper`` in the nodes of the state machines: Algorithm 1 to the letter, one question at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents import questions
from agents.conclusions import Conclusion
from agents.prompt_sets import PromptSet
from graphs.asking import Asker
from graphs.component import ComponentState, Taken
from graphs.merge import MergeState
from graphs.merging import Comparison, Merging
from graphs.traversal import Assessment, Phase, Traversal


@dataclass(frozen=True, slots=True)
class PaperWalk:
    """A component agent's walk."""

    component: int
    traversal: Traversal
    asker: Asker
    prompts: PromptSet
    hashes: Sequence[str]
    """Content hash of every node."""
    on_assigned: Callable[[], None]
    """Called whenever a node has joined a cluster."""

    @property
    def phase(self) -> Phase:
        """Where the traversal is."""
        return self.traversal.phase

    def replay(self) -> None:
        """Bring the traversal to where the ledger ends, without a call and without a superstep."""
        while (asked := self.traversal.to_question()) is not None:
            answer = self.asker.answers.get(self.question(asked).key(self.asker.sampling))
            if answer is None or answer.conclusion is None:
                return
            self.traversal.answer(Conclusion(answer.conclusion))

    def seed(self) -> ComponentState:
        """Start a cluster."""
        v = self.traversal.seed()
        self.on_assigned()
        return {"seed": v, "members": 1}

    def candidate(self) -> ComponentState | None:
        """The next to be asked about."""
        asked = self.traversal.candidate()
        if asked is None:
            return None
        return {"candidate": asked.candidate, "representatives": list(asked.representatives)}

    async def assess(self) -> tuple[Taken, ComponentState]:
        """Ask, and take the answer."""
        asked = self.traversal.open
        assert asked is not None
        answer = await self.asker.ask(
            self.question(asked),
            component=self.component,
            step=self.traversal.steps,
            subject={"representatives": list(asked.representatives), "candidates": [asked.candidate]},
        )
        conclusion = Conclusion(answer.conclusion or Conclusion.UNKNOWN)
        taken = self.traversal.answer(conclusion)
        goto: dict[Conclusion | None, Taken] = {
            None: "assess",
            Conclusion.YES: "update",
            Conclusion.NO: "prune",
            Conclusion.UNKNOWN: "candidate",
        }
        return goto[taken], {"step": self.traversal.steps, "conclusion": conclusion.value}

    def joined(self) -> ComponentState:
        """The candidate has joined the cluster."""
        self.on_assigned()
        return {"members": self.traversal.size}

    def pruned(self) -> ComponentState:
        """The candidate's edges to the cluster have left the graph."""
        return {"members": self.traversal.size}

    def finish(self) -> ComponentState:
        """The cluster's nodes leave the component."""
        self.traversal.finish()
        return {"clusters": len(self.traversal.clusters)}

    def question(self, asked: Assessment) -> questions.Question:
        """What the model is asked."""
        shown = [self.hashes[v] for v in asked.representatives]
        return questions.membership(self.prompts, shown, [self.hashes[asked.candidate]], asked.attempt)


@dataclass(frozen=True, slots=True)
class PaperMerger:
    """The merge agent: all pairs, one at a time."""

    merging: Merging
    asker: Asker
    prompts: PromptSet
    hashes: Sequence[str]
    """Content hash of every node."""

    def replay(self) -> None:
        """Bring the merge to where the ledger ends, without a call and without a superstep."""
        while (asked := self.merging.open) is not None:
            answer = self.asker.answers.get(self.question(asked).key(self.asker.sampling))
            if answer is None or answer.conclusion is None:
                return
            self.merging.answer(Conclusion(answer.conclusion))

    @property
    def clusters(self) -> int:
        """Clusters that are left."""
        return len(self.merging.clusters)

    async def pair(self) -> MergeState | None:
        """The next pair; shows how many are judged, and at most how many there are."""
        progress = self.asker.progress
        progress.done = self.merging.steps
        progress.total = self.merging.steps + self.merging.pairs_left
        asked = self.merging.open
        return None if asked is None else {"representatives": [list(side) for side in asked.representatives]}

    async def compare(self) -> tuple[bool, MergeState]:
        """Ask, and take the answer."""
        asked = self.merging.open
        assert asked is not None
        shown = [list(side) for side in asked.representatives]
        answer = await self.asker.ask(
            self.question(asked),
            component=None,
            step=self.merging.steps,
            subject={"representatives": shown, "clusters": shown},
        )
        conclusion = Conclusion(answer.conclusion or Conclusion.UNKNOWN)
        united = self.merging.answer(conclusion)
        return united, {"step": self.merging.steps, "conclusion": conclusion.value}

    def question(self, asked: Comparison) -> questions.Question:
        """What the model is asked."""
        a, b = ([self.hashes[v] for v in shown] for shown in asked.representatives)
        return questions.merge(self.prompts, a, b, asked.attempt)
