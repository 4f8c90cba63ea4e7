"""The two policies of METHOD 7, as a session runs them: the same state machines, other searches behind their nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from graphs import component, merge
from graphs.asks import EvidenceSettings
from graphs.context import SessionContext, Standing
from graphs.evidence import EvidenceSearch
from graphs.merging import Merging
from graphs.paper import PaperMerger, PaperWalk
from graphs.partition import Found
from graphs.scheduling import EvidenceMerger, EvidenceWalk, Scheduler
from graphs.traversal import Cluster, Phase, Traversal


class PaperPolicy:
    """Algorithm 1: an agent for each component, all side by side, then the merge agent."""

    def __init__(self, context: SessionContext, components: Sequence[Sequence[int]], mute: set[int]) -> None:
        """``mute`` are nodes that the model could not describe: they are not compared."""
        assert context.graph is not None
        self._context = context
        self._rows = context.graph
        self._walks = [Traversal(context.graph, nodes, context.representatives) for nodes in components]
        self._mute = mute
        self._merging: Merging | None = None
        self._replayed = False

    async def traverse(self) -> int:
        """The component agents, each on a LangGraph thread of its own (ARCHITECTURE 2)."""
        context = self._context
        agent = component.component_graph().compile(checkpointer=context.checkpointer)

        def assigned() -> None:
            context.asker.progress.done += 1

        walks = [
            PaperWalk(number, walk, context.asker, context.prompts, context.hashes, assigned)
            for number, walk in enumerate(self._walks)
        ]
        for mine in walks:
            mine.replay()
        self._replayed = True
        context.asker.progress.done = sum(walk.assigned for walk in self._walks)

        async def one(mine: PaperWalk) -> None:
            number, walk = mine.component, mine.traversal
            where: component.ComponentState = {
                "session": str(context.session), "component": number, "size": walk.nodes, "step": walk.steps,
                "clusters": len(walk.clusters), "members": walk.size,
            }  # fmt: skip
            handed = component.ComponentContext(mine)
            config = context.config(f"component {number}")
            await agent.ainvoke(where, config, context=handed, durability=context.durability)

        work: Iterator[Callable[[], Awaitable[None]]] = (partial(one, w) for w in walks if w.phase is not Phase.DONE)
        await context.asker.each(work)
        assert all(walk.phase is Phase.DONE for walk in self._walks)
        return sum(len(walk.clusters) for walk in self._walks)

    async def unite(self) -> int:
        """The merge agent over the clusters of all components."""
        context = self._context
        clusters = [c for walk in self._walks for c in walk.clusters if not self._mute.issuperset(c.members)]
        cut = (e for walk in self._walks for e in walk.cut)
        self._merging = merging = Merging(self._rows, clusters, cut, context.representatives)
        mine = PaperMerger(merging, context.asker, context.prompts, context.hashes)
        mine.replay()
        agent = merge.merge_graph().compile(checkpointer=context.checkpointer)
        where: merge.MergeState = {
            "session": str(context.session),
            "step": merging.steps,
            "clusters": mine.clusters,
        }
        handed, config = merge.MergeContext(mine), context.config("merge")
        await agent.ainvoke(where, config, context=handed, durability=context.durability)
        return mine.clusters

    @property
    def answers(self) -> int:
        """Answers applied so far, seeds among them: they make clusters, too."""
        walked = sum(walk.steps + len(walk.clusters) for walk in self._walks)
        return walked + (self._merging.steps if self._merging else 0)

    def found(self) -> Standing | None:
        """The clusters so far; what no agent has come to stands alone."""
        if not self._replayed:
            return None
        clusters = self._merging.clusters if self._merging else [c for w in self._walks for c in w.begun]
        return Standing([self._of(c) for c in clusters], None)

    def _of(self, cluster: Cluster) -> Found:
        return Found(tuple(cluster.members), cluster.representatives(self._context.representatives))


class EvidencePolicy:
    """One search over all components: its component agents and its merge agent work side by side."""

    def __init__(self, context: SessionContext, components: Sequence[Sequence[int]], mute: set[int]) -> None:
        """``mute`` are nodes that the model could not describe: they are not asked about."""
        assert context.graph is not None and context.vectors is not None
        self._context = context
        self._nodes = [v for v in range(len(context.hashes)) if v not in mute]
        settings = EvidenceSettings(context.representatives, context.window, context.candidates)
        self._search = EvidenceSearch(context.vectors[self._nodes], context.graph.degrees()[self._nodes], settings)
        home = {v: number for number, nodes in enumerate(components) for v in nodes}
        self._scheduler = Scheduler(
            search=self._search,
            asker=context.asker,
            prompts=context.prompts,
            hashes=context.hashes,
            nodes=self._nodes,
            component=[home[v] for v in range(len(context.hashes))],
            decided=context.store_decisions,
        )
        self._replayed = False

    async def traverse(self) -> int:
        """Component agents and merge agent, each on a LangGraph thread of its own."""
        context, scheduler = self._context, self._scheduler
        await asyncio.to_thread(scheduler.replay)
        self._replayed = True
        if not self._search.done:
            walk, merger = EvidenceWalk(scheduler), EvidenceMerger(scheduler)
            agent = component.component_graph().compile(checkpointer=context.checkpointer)
            uniter = merge.merge_graph().compile(checkpointer=context.checkpointer)
            here: component.ComponentState = {
                "session": str(context.session), "size": len(self._nodes), "step": scheduler.taken,
                "clusters": self._search.founded, "members": self._search.placed,
            }  # fmt: skip
            there: merge.MergeState = {"session": str(context.session), "clusters": self._search.founded}
            durability = context.durability

            async def walking() -> None:
                handed = component.ComponentContext(walk)
                try:
                    await agent.ainvoke(here, context.config("components"), context=handed, durability=durability)
                finally:
                    scheduler.stop()  # however it ends, the merge agent has nothing more to wait for

            async def uniting() -> None:
                handed = merge.MergeContext(merger)
                await uniter.ainvoke(there, context.config("merge"), context=handed, durability=durability)

            await context.asker.each([walking, uniting])
        return self._search.founded

    async def unite(self) -> int:
        """Nothing is left: clusters were united as they were found to be one."""
        return len(self._search.clusters)

    @property
    def answers(self) -> int:
        """Answers applied so far."""
        return self._scheduler.taken

    def found(self) -> Standing | None:
        """The clusters so far; what was not asked about stands where it most probably belongs."""
        if not self._replayed:
            return None
        clusters = [[self._nodes[v] for v in members] for members in self._search.clusters]
        sure = {self._nodes[v]: round(p, 4) for v, p in enumerate(self._search.confidence.tolist())}
        return Standing([Found(c, sorted(c[: self._context.representatives])) for c in clusters], sure)
