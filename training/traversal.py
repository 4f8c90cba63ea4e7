"""The agent's data of an epoch: the teacher traverses the graph of some nodes, and what it says is learnt (METHOD 8).

The walk is the program's own, component graph and merge graph of policy `paper`. Which questions come is a function of
graph and answers, so a killed traversal goes on from the ledger and asks nothing twice; and what was asked is read by
walking once more over the answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
from langchain_core.runnables import RunnableConfig

from agents.conclusions import Conclusion
from agents.questions import Question
from graphs import component, merge
from graphs.merging import Merging
from graphs.paper import PaperMerger, PaperWalk
from graphs.relational import RelationalGraph, build_graph
from graphs.threshold import DEGREES, MOST
from graphs.traversal import Cluster, Row, Traversal
from storage.ledger import Answer
from training.contrasts import Contrasts
from training.merging import NearestMerging
from training.samples import Sample
from training.teacher import Teacher, conclusion_of, sample_of

FEWEST = 0.5
"""A graph that promises fewer memberships for each node than this is made anew with a calibrated τ."""
DENSEST = 2 * DEGREES[0]
"""Likewise one with a larger mean degree and nearly all nodes in one component: its clusters would each be asked of
nearly every node, one question at a time."""

_CONFIG: RunnableConfig = {"recursion_limit": 2**31 - 1}


@dataclass(slots=True)
class Verdicts:
    """How assessments of one kind came out."""

    yes: int = 0
    no: int = 0
    unknown: int = 0

    def count(self, conclusion: Conclusion) -> None:
        """Count one conclusion."""
        match conclusion:
            case Conclusion.YES:
                self.yes += 1
            case Conclusion.NO:
                self.no += 1
            case Conclusion.UNKNOWN:
                self.unknown += 1


@dataclass(slots=True)
class Traversed:
    """What a traversal came to."""

    samples: list[Sample] = field(default_factory=list)
    """Memberships, merges, memberships with a wrong representative, those about a stranger, rehearsed merges; each
    question once, UNKNOWN ones left out."""
    clusters: list[list[str]] = field(default_factory=list)
    """Content hashes of the clusters that the teacher has found; nodes without an embedding are in none."""
    memberships: Verdicts = field(default_factory=Verdicts)
    merges: Verdicts = field(default_factory=Verdicts)
    noisy: Verdicts = field(default_factory=Verdicts)
    """Of the memberships that were asked once more with a wrong representative."""
    noisy_changed: int = 0
    """So many of these came out other than without it."""
    strangers: Verdicts = field(default_factory=Verdicts)
    """Of the memberships about a node of another cluster, which were asked for the sake of NO."""
    rehearsals: Verdicts = field(default_factory=Verdicts)
    """Of the questions about two clusters, or two halves of one, that were asked for practice."""
    threshold: float = 0.0
    """τ of the graph."""
    calibrated: bool = False
    """Whether that is a calibrated one, because the given one left too little to ask, or everything in one."""


async def traverse(
    teacher: Teacher,
    hashes: Sequence[str],
    vectors: npt.NDArray[np.float32],
    *,
    beta: float,
    threshold: float,
    representatives: int,
    merges: int,
    noisy: float,
    refused: float = 0.0,
    rehearsals: int = 0,
    rng: np.random.Generator,
) -> Traversed:
    """Have the teacher find the clusters of some nodes.

    Args:
        hashes: (n,) content hashes of the nodes, all of the teacher's session, none twice.
        vectors: (n, d) their embeddings; a row of zeros is a node without one, which is left out.
        beta, threshold: β and τ of METHOD 3. representatives: K of METHOD 4.
        merges: questions about two clusters at most; the nearest are compared first.
        noisy: share of the memberships that are asked once more with one of at least three representatives replaced by
            a node of another cluster.
        refused: share of the memberships that should conclude NO. A good graph has hardly any: so many nodes of other
            clusters are then put to clusters, mostly of the nearest.
        rehearsals: questions about two clusters that there should be at least. Where few clusters leave few, halves of
            one cluster and parts of two are compared.

    Raises:
        Paused, EndpointError: as `Asker.ask`; called again with the same, it goes on where it stopped.
    """
    nodes, rows = _ordered(teacher, hashes, vectors)
    found = Traversed()
    if len(nodes) < 2:
        return found
    graph, found.calibrated = _graph(rows, beta, threshold)
    found.threshold = graph.threshold
    within = _Within(graph, nodes)
    parts = [[nodes[v] for v in part] for part in graph.components()]
    clusters, cut = await _walk(teacher, within, parts, representatives)
    by_node = dict(zip(nodes, rows, strict=True))
    merging = partial(NearestMerging, within, clusters, cut, representatives, vectors=by_node, most=merges)
    united = await _merge(teacher, merging())

    told = _memberships(teacher, within, parts, representatives)
    _take(found, found.memberships, told)
    compared = _comparisons(teacher, merging())
    _take(found, found.merges, compared)
    found.clusters = [[teacher.hashes[v] for v in c.members] for c in united]
    contrasts = Contrasts(teacher, found.clusters, by_node, representatives, rng)
    disturbed = await contrasts.wrong_representatives(told, noisy)
    found.noisy_changed = sum(changed for _, changed in disturbed.values())
    _take(found, found.noisy, {question: answer for question, (answer, _) in disturbed.items()})
    yes, no = found.memberships.yes + found.noisy.yes, found.memberships.no + found.noisy.no
    _take(found, found.strangers, await contrasts.strangers(set(told), yes, no, refused))
    missing = rehearsals - (found.merges.yes + found.merges.no)
    _take(found, found.rehearsals, await contrasts.merges(set(compared), missing))
    return found


def _ordered(
    teacher: Teacher, hashes: Sequence[str], vectors: npt.NDArray[np.float32]
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """The session's numbers of the nodes that have an embedding, ascending, and their unit rows."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    usable = [i for i in range(len(hashes)) if np.isfinite(norms[i]) and norms[i] > 0]
    usable.sort(key=lambda i: teacher.node[hashes[i]])
    unit = (vectors[usable] / norms[usable, None]).astype(np.float32)
    return [teacher.node[hashes[i]] for i in usable], unit


def _graph(rows: npt.NDArray[np.float32], beta: float, threshold: float) -> tuple[RelationalGraph, bool]:
    """The graph at τ, or at a calibrated one where that leaves too little to ask, or everything in one; and whether."""
    graph = build_graph(rows, beta=beta, threshold=threshold)
    sizes = [len(part) for part in graph.components()]
    promised = sum(size - 1 for size in sizes)
    clump = max(sizes) > MOST * len(rows) and 2 * graph.edges > DENSEST * len(rows)
    if promised >= FEWEST * len(rows) and not clump:
        return graph, False
    return build_graph(rows, beta=beta, threshold=None), True


class _Within:
    """The rows of a graph in the session's numbers, for `graphs.traversal`."""

    def __init__(self, graph: RelationalGraph, nodes: Sequence[int]) -> None:
        self._graph = graph
        self._nodes = nodes
        self._place = {node: place for place, node in enumerate(nodes)}

    def __getitem__(self, node: int, /) -> Row:
        return [(self._nodes[u], weight) for u, weight in self._graph[self._place[node]]]


async def _walk(
    teacher: Teacher, rows: _Within, parts: Sequence[Sequence[int]], representatives: int
) -> tuple[list[Cluster], list[tuple[int, int]]]:
    """Run the component agents; their clusters, and the edges that they have cut."""
    agent = component.component_graph().compile()
    walks = [Traversal(rows, part, representatives) for part in parts]
    progress = teacher.asker.progress
    progress.stage, progress.done, progress.total = "traverse", 0, sum(map(len, parts))

    def assigned() -> None:
        progress.done += 1

    async def one(number: int, walk: Traversal) -> None:
        mine = PaperWalk(number, walk, teacher.asker, teacher.prompts, teacher.hashes, assigned)
        await agent.ainvoke({"component": number}, _CONFIG, context=component.ComponentContext(mine))

    work: Iterator[Callable[[], Awaitable[None]]] = (partial(one, i, walk) for i, walk in enumerate(walks))
    await teacher.asker.each(work)
    return [c for walk in walks for c in walk.clusters], [e for walk in walks for e in walk.cut]


async def _merge(teacher: Teacher, merging: Merging) -> list[Cluster]:
    """Run the merge agent; the clusters that are left."""
    teacher.asker.progress.stage = "merge"
    mine = PaperMerger(merging, teacher.asker, teacher.prompts, teacher.hashes)
    agent = merge.merge_graph().compile()
    await agent.ainvoke({"step": 0}, _CONFIG, context=merge.MergeContext(mine))
    return merging.clusters


def _memberships(
    teacher: Teacher, rows: _Within, parts: Sequence[Sequence[int]], representatives: int
) -> dict[Question, Answer]:
    """What the component agents have asked, and the answers, by walking once more."""
    told: dict[Question, Answer] = {}
    for number, part in enumerate(parts):
        walk = Traversal(rows, part, representatives)
        mine = PaperWalk(number, walk, teacher.asker, teacher.prompts, teacher.hashes, lambda: None)
        while (asked := walk.to_question()) is not None:
            question = mine.question(asked)
            told[question] = answer = _answer(teacher, question)
            walk.answer(conclusion_of(answer))
    return told


def _comparisons(teacher: Teacher, merging: Merging) -> dict[Question, Answer]:
    """What the merge agent has asked, and the answers, likewise."""
    told: dict[Question, Answer] = {}
    mine = PaperMerger(merging, teacher.asker, teacher.prompts, teacher.hashes)
    while (asked := merging.open) is not None:
        question = mine.question(asked)
        told[question] = answer = _answer(teacher, question)
        merging.answer(conclusion_of(answer))
    return told


def _answer(teacher: Teacher, question: Question) -> Answer:
    return teacher.asker.answers[question.key(teacher.asker.sampling)]


def _take(found: Traversed, verdicts: Verdicts, told: Mapping[Question, Answer]) -> None:
    for question, answer in told.items():
        verdicts.count(conclusion_of(answer))
        if (sample := sample_of(question, answer)) is not None:
            found.samples.append(sample)
