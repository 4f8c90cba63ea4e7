"""What a prompt set is tried on: items of a session that tell much, and questions that the session asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from agents import questions
from agents.conclusions import Conclusion
from agents.descriptions import read_description
from agents.prompt_sets import PromptSet, QuestionKind
from agents.questions import Question
from partita.drafting import some_of
from partita.result import ClusterResult, Result
from partita.settings import Parameters
from storage.errors import UsageError
from storage.items import Collection
from storage.ledger import Answer

PAIRS = 3
"""Items that are asked about with their own cluster, and with another one."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    text: str
    """The description, or the reason; of a question that the endpoint refused, its words."""
    conclusion: str | None
    """YES, NO or UNKNOWN; None for a description."""
    reply: str
    """To the letter."""
    asked: bool
    """False: it is in the session's ledger."""
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Tried:
    """One question, with the answers to the session's own prompts and to the new ones."""

    kind: QuestionKind
    candidates: tuple[str, ...]
    """The item that is described, or asked about; none of a merge."""
    representatives: tuple[tuple[str, ...], ...]
    """Items that stand for a cluster: none to describe, those of one cluster, or of either for a merge."""
    clusters: tuple[int, ...]
    """Numbers of the candidate's cluster and of that of the representatives, or of both of a merge; empty before there
    are clusters."""
    confidence: float | None
    """How probable it is that the candidate stands where it belongs, where that is known."""
    before: Said | None
    """None where the session did not ask this."""
    now: Said | None
    """None before it is tried."""

    @property
    def within(self) -> bool:
        """Whether it is about one cluster."""
        return len(set(self.clusters)) == 1

    @property
    def expected(self) -> str | None:
        """What the session's clusters say."""
        if self.kind == "describe" or not self.clusters:
            return None
        return Conclusion.YES.value if self.within else Conclusion.NO.value

    @property
    def changed(self) -> bool:
        """Whether the verdict is another one than before."""
        return self.before is not None and self.now is not None and self.before.conclusion != self.now.conclusion


class World:
    """A session's clusters and answers in node numbers."""

    def __init__(self, result: Result, found: Collection, p: Parameters, answers: Mapping[str, Answer]) -> None:
        self._session = result.session
        self._found = found
        self._shown = p.representatives
        self.hashes = list(dict.fromkeys(item.content_hash for item in found.items))
        nodes = {content_hash: node for node, content_hash in enumerate(self.hashes)}
        self.node = {item.name: nodes[item.content_hash] for item in found.items}
        self.names: dict[int, str] = {}
        for name, node in self.node.items():
            self.names.setdefault(node, name)
        self.clusters = result.clusters
        self.members = {c.id: list(dict.fromkeys(self.node[item] for item in c.items)) for c in result.clusters}
        self.home = {node: number for number, members in self.members.items() for node in members}
        self.sure: dict[int, float] = {}
        for c in result.clusters:
            self.sure |= {self.node[item]: s for item, s in zip(c.items, c.confidence or (), strict=False)}
        self._read(answers.values())

    def _read(self, answers: Iterable[Answer]) -> None:
        """What was said of whom, the last answer to each question."""
        self._described: dict[int, Said] = {}
        self._judged: dict[int, dict[tuple[int, ...], Said]] = {}
        self._merged: dict[tuple[tuple[int, ...], ...], Said] = {}
        for answer in answers:
            about = answer.subject
            if answer.kind == "describe":
                self._described[about["item"]] = told(answer, asked=False)
            elif answer.kind == "membership":
                said = (answer.conclusion or "").split()
                for place, candidate in enumerate(about["candidates"]):
                    one = told(answer, asked=False)
                    if len(about["candidates"]) > 1:
                        one = replace(one, conclusion=said[place] if place < len(said) else Conclusion.UNKNOWN.value)
                    asked = self._judged.setdefault(candidate, {})
                    asked.pop(shown := tuple(about["representatives"]), None)
                    asked[shown] = one
            elif answer.kind == "merge":
                sides = tuple(tuple(side) for side in about["representatives"])
                self._merged.pop(sides, None)
                self._merged[sides] = told(answer, asked=False)

    def require(self, names: Sequence[str]) -> list[int]:
        """The nodes of items.

        Raises:
            UsageError: there is no such item.
        """
        for name in names:
            if name not in self.node:
                raise UsageError(
                    f"there is no item {name!r} in session {self._session!r}: `partita show {self._session} --json` "
                    "lists them"
                )
        return list(dict.fromkeys(self.node[name] for name in names))

    def telling(self, number: int) -> list[int]:
        """Items that tell much: from all clusters in turn, in each the least certain and the most typical first."""
        if not self.clusters:
            return [self.node[item.name] for item in some_of(self._found.items, number)]
        waiting = [self._by_doubt(c) for c in self.clusters]
        # The cluster with the least certain item begins.
        waiting.sort(key=lambda nodes: self.sure.get(nodes[0], 1.0))
        picked: list[int] = []
        while len(picked) < number and any(waiting):
            for nodes in waiting:
                if nodes and len(picked) < number:
                    picked.append(nodes.pop(0))
        return picked

    def _by_doubt(self, c: ClusterResult) -> list[int]:
        members = self.members[c.id]
        place = {node: i for i, node in enumerate(members)}
        doubtful = sorted(members, key=lambda node: (self.sure.get(node, 1.0), -place[node]))
        both = [node for pair in zip(doubtful, members, strict=True) for node in pair]
        return list(dict.fromkeys(both))

    def questions(self, prompts: PromptSet, picked: Sequence[int]) -> Iterator[tuple[Tried, Question]]:
        """What to ask about these items."""
        for node in picked:
            one = Tried(
                "describe", (self.names[node],), (), self._numbers(node), self.sure.get(node),
                self._described.get(node), None,
            )  # fmt: skip
            yield one, questions.describe(prompts, self.hashes[node])
        for other in (False, True):
            asked = 0
            for node in picked:
                if asked < PAIRS and (shown := self._stand(node, other=other)):
                    asked += 1
                    yield self._membership(prompts, node, shown)
        if (sides := self._sides(picked)) is not None:
            a, b = (self._shown_hashes(side) for side in sides)
            clusters = (self.home[sides[0][0]], self.home[sides[1][0]])
            named = tuple(self._named(side) for side in sides)
            yield (
                Tried("merge", (), named, clusters, None, self._merged.get(sides), None),
                questions.merge(prompts, a, b),
            )

    def _membership(self, prompts: PromptSet, node: int, shown: tuple[int, ...]) -> tuple[Tried, Question]:
        clusters = (self.home[node], self.home[shown[0]])
        before = self._judged.get(node, {}).get(shown)
        one = Tried(
            "membership", (self.names[node],), (self._named(shown),), clusters, self.sure.get(node), before, None
        )
        return one, questions.membership(prompts, self._shown_hashes(shown), [self.hashes[node]])

    def _stand(self, node: int, *, other: bool) -> tuple[int, ...]:
        """Who stands for the item's own cluster, or for another one: as the session asked last, or else the first."""
        if node not in self.home:
            return ()
        own = self.home[node]
        for shown in reversed(self._judged.get(node, {})):
            homes = {self.home.get(one) for one in shown}
            if len(homes) == 1 and None not in homes and (own not in homes) == other and node not in shown:
                return shown
        cluster = next((number for number in self.members if (number != own) == other), None)
        if cluster is None:
            return ()
        return tuple(sorted([one for one in self.members[cluster] if one != node][: self._shown]))

    def _sides(self, picked: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Two clusters: those that the session compared last and are two still, or the first item's and another."""
        for sides in reversed(self._merged):
            homes = [{self.home.get(one) for one in side} for side in sides]
            if all(len(home) == 1 and None not in home for home in homes) and homes[0] != homes[1]:
                return sides[0], sides[1]
        if len(self.members) < 2 or not picked:
            return None
        own = self.home.get(picked[0], self.clusters[0].id)
        other = next(number for number in self.members if number != own)
        one, two = (tuple(sorted(self.members[number][: self._shown])) for number in (own, other))
        return one, two

    def _numbers(self, node: int) -> tuple[int, ...]:
        return (self.home[node],) if node in self.home else ()

    def _named(self, nodes: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.names[node] for node in nodes)

    def _shown_hashes(self, nodes: Iterable[int]) -> list[str]:
        return [self.hashes[node] for node in nodes]


def told(answer: Answer, *, asked: bool) -> Said:
    """An answer as a trial tells it."""
    if answer.kind == "describe":
        text, conclusion = read_description(answer.reply) or answer.reason or "", None
    else:
        text, conclusion = answer.reason or "", answer.conclusion
    tokens = (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)
    return Said(text, conclusion, answer.reply, asked, tokens, answer.seconds)
