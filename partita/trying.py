"""Trying a prompt set on a few items of a session: what it would say beside what the session's own prompts said.

A dozen calls at most show what a fork would change, before it is paid for. Nothing of it goes into the session: its
ledger, its spend and its clusters stay as they are. What its ledger has an answer to is taken from there.

    plan = plan_trial(db, "animals-1", choose(db, None, "mine.yaml").prompts)      # asks nobody
    trial = asyncio.run(try_prompts(plan, keys=keys, prices=prices))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from agents.prompt_sets import PromptSet
from agents.questions import Question
from graphs.asking import Asker
from graphs.budget import Budget
from partita.drafting import spent
from partita.endpoints import chat_alone, connect
from partita.gallery import Gallery
from partita.keys import Keys
from partita.prices import Prices, call_cost, load_prices
from partita.result import TEACHER
from partita.settings import Parameters
from partita.stored import result_of
from partita.trial_questions import Tried, World, told
from storage.database import Database
from storage.errors import UsageError
from storage.items import Collection, collection_from_rows
from storage.ledger import Answer, Ledger
from storage.sessions import load_items, load_session

ITEMS, MOST_ITEMS = 4, 12
"""Items that are described, unless it is said otherwise, and at most."""


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
    world = World(result_of(db, session), found, stored, answers)
    picked = world.require(chosen) if chosen else world.telling(min(items, MOST_ITEMS))
    if not stored.model:
        raise UsageError(f"session {session!r} never got to a model: try it on another session, or resume it first")
    tried, asking = [], []
    for one, question in world.questions(prompts, picked):
        known = answers.get(question.key(stored.sampling))
        tried.append(replace(one, now=None if known is None else told(known, asked=False)))
        asking.append(question)
    notes = [*prompts.doubts()]
    if not world.clusters:
        notes.append("the session has no clusters yet: only descriptions are tried")
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
                sampling=p.sampling,
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
        replace(one, now=told(answers[place], asked=True)) if place in answers else one
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


class _Nowhere:
    """A ledger that keeps nothing."""

    async def record(self, answer: Answer, prompt_text: str | None = None) -> None:
        """Nothing of a trial is kept."""
