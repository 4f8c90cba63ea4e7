"""Trying a prompt set on a few items of a session: what it would say beside what the session's own prompts said.

A dozen calls at most show what a fork would change, before it is paid for. Nothing of it goes into the session: its
ledger, its spend and its clusters stay as they are. What its ledger has an answer to is taken from there.

    plan = plan_trial(db, "animals-1", choose(db, None, "mine.yaml").prompts)      # asks nobody
    trial = asyncio.run(try_prompts(plan, keys=keys, prices=prices))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from agents import questions
from agents.conclusions import Conclusion
from agents.descriptions import read_description
from agents.prompt_sets import PromptSet, QuestionKind
from agents.questions import Question, Sampling
from graphs.asking import Asker
from graphs.budget import Budget
from partita.drafting import some_of, spent
from partita.endpoints import chat_alone, connect
from partita.gallery import Gallery
from partita.keys import Keys
from partita.prices import Prices, call_cost, load_prices
from partita.result import TEACHER, ClusterResult, Result
from partita.settings import Parameters
from partita.stored import result_of
from storage.database import Database
from storage.errors import UsageError
from storage.items import Collection, collection_from_rows
from storage.ledger import Answer, Ledger
from storage.sessions import load_items, load_session

ITEMS, MOST_ITEMS = 4, 12
"""Items that are described, unless it is said otherwise, and at most."""
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


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be asked."""

    session: str
    prompts: PromptSet
    parameters: Parameters
    tried: tuple[Tried, ...]
    """Those in the ledger have their answer already."""
    asking: tuple[Question, ...]
    """The question behind each of them."""
    found: Collection
    notes: tuple[str, ...]
    """What to know about it."""

    @property
    def calls(self) -> int:
        """So many calls are to be made."""
        return sum(one.now is None for one in self.tried)

    def line(self) -> str:
        """What is to be asked, in a sentence."""
        kinds = Counter(one.kind for one in self.tried)
        names = {"describe": "descriptions", "membership": "memberships", "merge": "merges"}
        told = ", ".join(f"{number} {names[kind] if number > 1 else kind}" for kind, number in kinds.items())
        known = len(self.tried) - self.calls
        taken = f"; {known} are in the session's ledger" if known else ""
        return f"{told}: {self.calls} calls to {self.parameters.model}{taken}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

    session: str
    name: str
    """Of the prompt set."""
    hash: str
    model: str
    tried: tuple[Tried, ...]
    calls: int
    taken: int
    """Answers from the session's ledger."""
    tokens: int
    cost: float
    """In USD; at an assumed price where ``price_known`` is False."""
    price_known: bool
    notes: tuple[str, ...] = ()

    @property
    def compared(self) -> int:
        """Verdicts that there were before, too."""
        return sum(one.before is not None and one.kind != "describe" for one in self.tried)

    @property
    def changed(self) -> int:
        """Those of them that are others now."""
        return sum(one.changed for one in self.tried)

    def line(self) -> str:
        """What came of it and what it took, in a sentence."""
        verdicts = [one for one in self.tried if one.expected is not None and one.now is not None]
        agree = sum(one.now is not None and one.now.conclusion == one.expected for one in verdicts)
        told = [f"{self.changed} of {self.compared} verdicts changed"] if self.compared else []
        told += [f"{agree} of {len(verdicts)} agree with the session's clusters"] if verdicts else []
        told.append(spent(self.calls, self.tokens, self.cost, self.price_known))
        return "; ".join(told)

    def to_json(self) -> dict[str, Any]:
        """One object of plain values."""
        tried = [asdict(one) | {"expected": one.expected, "changed": one.changed} for one in self.tried]
        return asdict(self) | {"tried": tried, "compared": self.compared, "changed": self.changed}


def plan_trial(
    db: Database, session: str, prompts: PromptSet, *, items: int = ITEMS, chosen: Sequence[str] = ()
) -> Plan:
    """Choose what a prompt set is tried on; the same session, set and numbers give the same. Asks nobody.

    Items come from all clusters, those first that the agents are least sure of, among questions those that the session
    asked itself, so that there is something to compare with.

    Args:
        items: so many items, at most ``MOST_ITEMS``.
        chosen: names of items, instead.

    Raises:
        UnknownSession: no session of that name.
        UsageError: no such item, or a session without agents, or one that has none yet.
    """
    record = load_session(db, session)
    if record.policy == TEACHER:
        raise UsageError(
            f"session {session!r} holds a teacher's answers and has no clusters: try it on another session"
        )
    stored = Parameters.model_validate({"constrain": False} | record.parameters)  # as `resume` reads them
    found = collection_from_rows(record.collection, load_items(db, record.id))
    with Ledger(db, record.id) as ledger:
        answers = ledger.load()
    world = _World(result_of(db, session), found, stored, answers)
    picked = world.require(chosen) if chosen else world.telling(min(items, MOST_ITEMS))
    if not stored.model:
        raise UsageError(f"session {session!r} never got to a model: try it on another session, or resume it first")
    sampling = Sampling(
        stored.model, stored.temperature, stored.max_tokens, stored.seed, stored.longest_side,
        constrain=bool(stored.constrain),
    )  # fmt: skip
    tried, asking = [], []
    for one, question in world.questions(prompts, picked):
        known = answers.get(question.key(sampling))
        tried.append(replace(one, now=None if known is None else _said(known, asked=False)))
        asking.append(question)
    notes = [] if world.clusters else ["the session has no clusters yet: only descriptions are tried"]
    return Plan(session, prompts, stored, tuple(tried), tuple(asking), found, tuple(notes))


async def try_prompts(
    plan: Plan,
    *,
    keys: Keys | None = None,
    prices: Prices | None = None,
    on_note: Callable[[str], None] | None = None,
    on_answer: Callable[[int], None] | None = None,
) -> Trial:
    """Ask what is planned, of the session's model. Stores nothing.

    Args:
        on_note: told in a line about each retry.
        on_answer: told after each answer how many there are.

    Raises:
        EndpointError: the endpoint can't be used.
        CollectionError: the file of an item is gone, or has changed.
    """
    prices = prices or load_prices()
    p = plan.parameters
    answers: dict[int, Answer] = {}
    budget = Budget(cost=call_cost(prices, p))
    if plan.calls:
        async with connect(chat_alone(p), keys, on_note) as connection:
            asker = Asker(
                chat=connection.chat,
                embedder=connection.embedder,  # never asked
                ledger=_Nowhere(),
                answers={},
                sampling=Sampling(
                    p.model or "", p.temperature, p.max_tokens, p.seed, p.longest_side, constrain=bool(p.constrain)
                ),
                gallery=Gallery(plan.found.items, p.longest_side),
                concurrency=p.concurrency,
                budget=budget,
            )

            async def ask(place: int) -> None:
                answers[place] = await asker.ask(plan.asking[place], component=None, step=None, subject={})
                if on_answer is not None:
                    on_answer(len(answers))

            await asker.each(partial(ask, place) for place, one in enumerate(plan.tried) if one.now is None)
    tried = tuple(
        replace(one, now=_said(answers[place], asked=True)) if place in answers else one
        for place, one in enumerate(plan.tried)
    )
    made = answers.values()
    return Trial(
        session=plan.session,
        name=plan.prompts.name,
        hash=plan.prompts.hash,
        model=p.model or "",
        tried=tried,
        calls=len(made),
        taken=sum(one.now is not None and not one.now.asked for one in tried),
        tokens=sum((answer.prompt_tokens or 0) + (answer.completion_tokens or 0) for answer in made),
        cost=budget.cost,
        price_known=prices.rates(p).chat.known,
        notes=plan.notes,
    )


class _World:
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
                self._described[about["item"]] = _said(answer, asked=False)
            elif answer.kind == "membership":
                said = (answer.conclusion or "").split()
                for place, candidate in enumerate(about["candidates"]):
                    one = _said(answer, asked=False)
                    if len(about["candidates"]) > 1:
                        one = replace(one, conclusion=said[place] if place < len(said) else Conclusion.UNKNOWN.value)
                    asked = self._judged.setdefault(candidate, {})
                    asked.pop(shown := tuple(about["representatives"]), None)
                    asked[shown] = one
            elif answer.kind == "merge":
                sides = tuple(tuple(side) for side in about["representatives"])
                self._merged.pop(sides, None)
                self._merged[sides] = _said(answer, asked=False)

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


def _said(answer: Answer, *, asked: bool) -> Said:
    if answer.kind == "describe":
        text, conclusion = read_description(answer.reply) or answer.reason or "", None
    else:
        text, conclusion = answer.reason or "", answer.conclusion
    tokens = (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)
    return Said(text, conclusion, answer.reply, asked, tokens, answer.seconds)


class _Nowhere:
    """A ledger that keeps nothing."""

    async def record(self, answer: Answer, prompt_text: str | None = None) -> None:
        """Nothing of a trial is kept."""
