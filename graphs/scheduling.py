"""The scheduler that keeps the endpoint busy, and policy ``evidence`` in the nodes of the state machines (METHOD 7).

A search has a window of asks outstanding. All of them are put to the model at once (the ``Asker`` has at most
``concurrency`` in flight), and their answers are applied in the order of asking, whatever the timing, so that replay
and resume are exact (CONTRACT 6). One superstep of LangGraph takes ``ROUND`` answers.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents import questions
from agents.conclusions import Conclusion
from agents.prompt_sets import PromptSet
from graphs.asking import Asker
from graphs.asks import Ask, ComparisonAsk, Decision, MembershipAsk
from graphs.component import ComponentState, Taken
from graphs.evidence import EvidenceSearch
from graphs.merge import MergeState
from graphs.traversal import Phase
from storage.ledger import Answer

ROUND = 32
"""Answers taken in one superstep."""
USUAL = 32
"""Calls in flight, if nothing else is said (CONTRACT 3)."""


def window_for(calls: int, concurrency: int) -> int:
    """W: enough asks to keep ``concurrency`` calls in flight while the oldest is waited for.

    Where few ``calls`` would ask about every item, they are not all made at once: what the first answers tell would
    come too late for the others. Where they are many, one answer that takes long holds nobody up. W decides what is
    asked, so it is the same for every ``concurrency`` up to the default of USUAL.
    """
    concurrency = max(concurrency, USUAL)
    return max(concurrency, min(3 * concurrency, math.ceil(calls / 10)), min(8 * concurrency, math.ceil(calls / 20)))


@dataclass(slots=True)
class Outstanding:
    """An ask that was put to the model."""

    ask: Ask
    key: str
    answer: asyncio.Task[Answer]


@dataclass(slots=True)
class Compared:
    """A comparison for the merge agent to wait for."""

    ask: ComparisonAsk
    decision: asyncio.Future[Decision | None]
    """None when the scheduler has stopped before it was decided."""


@dataclass(slots=True)
class Scheduler:
    """Puts a search's asks to the model and applies the answers in the order of asking."""

    search: EvidenceSearch
    asker: Asker
    prompts: PromptSet
    hashes: Sequence[str]
    """Content hash of every node."""
    nodes: Sequence[int]
    """The node that each number of the search means."""
    component: Sequence[int]
    """The component of every node in the relational graph."""
    decided: Callable[[str, list[dict[str, Any]]], None]
    """Keeps what an answer decided, by the key of its question."""
    stopped: bool = False
    taken: int = 0
    """Asks answered and applied."""
    _left: deque[Ask] = field(default_factory=deque)
    """Asks that replay has come to and the ledger has no answer for."""
    _outstanding: deque[Outstanding] = field(default_factory=deque)
    _comparisons: asyncio.Queue[Compared | None] = field(default_factory=asyncio.Queue)
    _open: dict[int, Compared] = field(default_factory=dict)

    def replay(self) -> None:
        """Bring the search to where the ledger ends, without a call and without a superstep."""
        waiting: deque[Ask] = deque(self.search.questions())
        while waiting:
            key = self.question(waiting[0]).key(self.asker.sampling)
            answer = self.asker.answers.get(key)
            if answer is None:
                break
            self._apply(waiting.popleft(), key, answer)
            waiting.extend(self.search.questions())
        self._left = waiting
        self._show_progress()

    def question(self, ask: Ask) -> questions.Question:
        """An ask as it is put to the model."""
        if isinstance(ask, ComparisonAsk):
            a, b = (self._shown(side) for side in ask.representatives)
            return questions.merge(self.prompts, a, b)
        return questions.membership(self.prompts, self._shown(ask.representatives), self._shown(ask.candidates))

    def put(self) -> None:
        """Put to the model what has come up."""
        new = [*self._left, *self.search.questions()]
        self._left.clear()
        for ask in new:
            question = self.question(ask)
            answer = asyncio.create_task(self._answered(ask, question))
            self._outstanding.append(Outstanding(ask, question.key(self.asker.sampling), answer))
            if isinstance(ask, ComparisonAsk):
                compared = Compared(ask, asyncio.get_running_loop().create_future())
                self._open[ask.number] = compared
                self._comparisons.put_nowait(compared)
        if self.search.done:
            self.stop()

    @property
    def next(self) -> Ask | None:
        """The ask whose answer is applied next."""
        return self._outstanding[0].ask if self._outstanding else None

    async def take(self, most: int) -> list[tuple[Ask, list[Decision]]]:
        """Apply the next ``most`` answers, each as soon as its turn has come; what comes up is asked at once.

        Raises:
            Paused, EndpointError: the answer could not be had. What was answered before it has been applied.
        """
        out: list[tuple[Ask, list[Decision]]] = []
        try:
            while self._outstanding and len(out) < most:
                head = self._outstanding[0]
                answer = await head.answer
                self._outstanding.popleft()
                out.append((head.ask, self._apply(head.ask, head.key, answer)))
                self.put()
        except BaseException as e:
            await self._end(cancelled=isinstance(e, asyncio.CancelledError))
            raise
        return out

    async def comparison(self) -> Compared | None:
        """The next comparison that was put to the model; None when there will be no more."""
        return None if self.stopped and self._comparisons.empty() else await self._comparisons.get()

    def more_comparisons(self) -> list[Compared]:
        """Those that were put besides."""
        more = []
        while not self._comparisons.empty():
            if (compared := self._comparisons.get_nowait()) is not None:
                more.append(compared)
        return more

    def stop(self) -> None:
        """Let go of whoever waits for comparisons."""
        self.stopped = True
        self._comparisons.put_nowait(None)
        for compared in self._open.values():
            if not compared.decision.done():
                compared.decision.set_result(None)
        self._open.clear()

    async def _answered(self, ask: Ask, question: questions.Question) -> Answer:
        component: int | None = None
        subject: dict[str, Any]
        if isinstance(ask, ComparisonAsk):
            sides = [self._named(side) for side in ask.representatives]
            subject = {"representatives": sides, "clusters": sides}
        else:
            candidates = self._named(ask.candidates)
            component = self.component[candidates[0]]
            subject = {"representatives": self._named(ask.representatives), "candidates": candidates}
        try:
            return await self.asker.ask(question, component=component, step=ask.number, subject=subject)
        except Exception as e:
            self.asker.stop(e)
            raise

    def _apply(self, ask: Ask, key: str, answer: Answer) -> list[Decision]:
        said = [Conclusion(c) for c in (answer.conclusion or "").split()]
        decisions = self.search.apply(ask, said)
        self.taken += 1
        self.decided(key, [d.to_json(self.nodes) for d in decisions])
        if (compared := self._open.pop(ask.number, None)) is not None and not compared.decision.done():
            compared.decision.set_result(decisions[0])
        self._show_progress()
        return decisions

    async def _end(self, *, cancelled: bool) -> None:
        """Those in flight are finished and recorded (unless we are cancelled); nobody waits for them any more."""
        answers = [o.answer for o in self._outstanding]
        if cancelled:
            for answer in answers:
                answer.cancel()
        try:
            await asyncio.gather(*answers, return_exceptions=True)
        finally:
            self.stop()

    def _show_progress(self) -> None:
        # Items lose their places, too: how far it was is not taken back.
        self.asker.progress.done = max(self.asker.progress.done, self.search.placed)
        self.asker.progress.clusters = self.search.founded

    def _named(self, numbers: Sequence[int]) -> list[int]:
        return [self.nodes[v] for v in numbers]

    def _shown(self, numbers: Sequence[int]) -> list[str]:
        return [self.hashes[self.nodes[v]] for v in numbers]


@dataclass(slots=True)
class EvidenceWalk:
    """The loop of the component agents: one search over all components, several clusters grown side by side."""

    scheduler: Scheduler

    @property
    def phase(self) -> Phase:
        """Where the ledger has brought the search."""
        if self.scheduler.search.done:
            return Phase.DONE
        return Phase.CANDIDATE if self.scheduler.taken else Phase.SEED

    def seed(self) -> ComponentState:
        """The search has started its first clusters; the first one's seed."""
        search = self.scheduler.search
        return {"seed": self.scheduler.nodes[search.seed], "clusters": search.founded}

    def candidate(self) -> ComponentState | None:
        """Put what has come up to the model; what is answered next."""
        self.scheduler.put()
        ask = self.scheduler.next
        if ask is None:
            return None
        if isinstance(ask, MembershipAsk):
            shown = [self.scheduler.nodes[v] for v in ask.representatives]
            return {"candidate": self.scheduler.nodes[ask.candidates[0]], "representatives": shown}
        return {}

    async def assess(self) -> tuple[Taken, ComponentState]:
        """Take a round of answers, in the order of asking."""
        taken = await self.scheduler.take(ROUND)
        did = [d.did for _, decisions in taken for d in decisions]
        goto: Taken = "update" if {"joined", "moved", "founded"} & set(did) else "prune"
        return goto, {"step": self.scheduler.taken, "conclusion": did[-1]}

    def joined(self) -> ComponentState:
        """Items have found a place."""
        search = self.scheduler.search
        return {"members": search.placed, "clusters": search.founded}

    def pruned(self) -> ComponentState:
        """Nothing has found a place."""
        return self.joined()

    def finish(self) -> ComponentState:
        """Nothing is left to ask."""
        return {"clusters": self.scheduler.search.founded}


@dataclass(slots=True)
class EvidenceMerger:
    """The merge agent, at work beside the component agents: takes the comparisons as they come up."""

    scheduler: Scheduler
    _open: list[Compared] = field(default_factory=list)

    @property
    def clusters(self) -> int:
        """Clusters for now."""
        return self.scheduler.search.founded

    async def pair(self) -> MergeState | None:
        """Wait for comparisons to come up."""
        first = await self.scheduler.comparison()
        if first is None:
            return None
        self._open = [first, *self.scheduler.more_comparisons()]
        sides = first.ask.representatives
        return {"representatives": [[self.scheduler.nodes[v] for v in side] for side in sides]}

    async def compare(self) -> tuple[bool, MergeState]:
        """Wait for what was decided."""
        decisions = [await compared.decision for compared in self._open]
        did = [d.did for d in decisions if d is not None]
        return "united" in did, {"step": self._open[-1].ask.number, "conclusion": did[-1] if did else ""}
