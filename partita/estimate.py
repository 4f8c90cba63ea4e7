"""What a run will take, predicted without a call: calls, tokens, cost, time.

Tokens and seconds of a call are those measured in this database where the model was asked before, otherwise assumed.
The number of questions comes from what the policies took elsewhere; each constant says where. Items that are harder
than those (embeddings that don't see the criterion, a hundred clusters) take more than ``high``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agents.prompt_sets import PromptSet
from partita.prices import Price
from storage.spend import Usual

Policy = Literal["evidence", "paper"]

PATCH = 28
"""An image takes one token per 28 x 28 pixels as it is sent (Qwen2-VL's rule; GPT-4o's tiles come near at 768)."""
CHAT_TOKENS, LABEL_TOKENS = 10, 6
"""What a chat template adds to a message, and what the label before an item takes."""
DESCRIPTION_TOKENS, ASSESSMENT_TOKENS = 80, 60
"""Lengths of replies, assumed: a sentence or two (METHOD 2 and 4), for each candidate."""
SECONDS, CAPTION_SECONDS = 2.0, 0.3
"""Assumed for a call to a chat model, and for the embedding of a description."""
BUILT_IN_SECONDS, BUILT_IN_BATCH, BUILT_IN_START = 0.5, 16, 5.0
"""The built-in model: its card has 0.25 s for an answer alone and 0.7 s for a batch of 16, the most that it takes."""
AGENTS = 4
"""Component agents that work side by side under policy paper, one question each: the graphs in the built-in model's
card have 3 to 5 components. At best each call in flight has an agent, at worst there is one."""


@dataclass(frozen=True, slots=True)
class Span:
    """A prediction: what is likely, and between what it should lie."""

    low: float
    likely: float
    high: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float | Span) -> Span:
        """Each of the three times a number, or times its own."""
        by = factor if isinstance(factor, Span) else Span(factor, factor, factor)
        return Span(self.low * by.low, self.likely * by.likely, self.high * by.high)

    def each(self, change: Callable[[float], float]) -> Span:
        """Each of the three changed."""
        return Span(change(self.low), change(self.likely), change(self.high))

    def to_json(self, digits: int = 0) -> dict[str, float]:
        """Rounded; whole numbers without ``digits``."""
        return {
            name: round(value, digits) if digits else round(value)
            for name, value in (("low", self.low), ("likely", self.likely), ("high", self.high))
        }


_NOTHING = Span(0, 0, 0)
_QUESTIONS = ("describe", "membership", "merge")
_TAIL = Span(1.04, 1.13, 1.17)
"""Wall time of policy evidence over (sum of answer times / calls in flight), docs/design/evidence.md."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Answers that a fork has from another session."""

    answers: Mapping[str, int] = field(default_factory=dict)
    """How many, by kind."""
    settled: Collection[str] = ()
    """Kinds of questions (describe, membership, merge) of which no new ones are likely; all of them: there are none."""

    def left(self, kind: str, asked: Span) -> Span:
        """What is left of the questions of a kind."""
        left = asked.each(lambda x: max(0, x - self.answers.get(kind, 0)))
        if kind not in self.settled:
            return left
        return _NOTHING if len(self.settled) == len(_QUESTIONS) else Span(0, 0, left.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be run."""

    prompts: PromptSet
    items: int
    """Usable items."""
    distinct: int
    """Items of different content: each is described and judged once."""
    failed: int = 0
    """Items that can't be used."""
    item_tokens: float
    """Mean tokens of an item in a message: ``image_tokens``, ``text_tokens``."""
    policy: Policy = "evidence"
    representatives: int = 3
    candidates: int = 1
    """B: candidates in one membership call."""
    concurrency: int = 32
    """Calls in flight."""
    native: bool = False
    """Embeddings of conversations, item included, not of descriptions (CONTRACT 5)."""
    built_in: bool = False
    """Asks the built-in model."""
    price: Price
    embed_price: Price
    usual: Mapping[str, Usual] = field(default_factory=dict)
    """What calls of these models took before, by kind."""
    max_calls: int | None = None
    max_cost: float | None = None
    remarks: tuple[str, ...] = ()
    """Said with the estimate: where a price is not known, say."""
    taken: TakenOver = field(default_factory=TakenOver)
    """What a fork need not ask."""

    @property
    def describes(self) -> int:
        """Items to be described."""
        return max(0, self.distinct - self.taken.answers.get("describe", 0))

    @property
    def embeds(self) -> int:
        """Items to be embedded."""
        return max(0, self.distinct - self.taken.answers.get("embed", 0))


@dataclass(frozen=True, slots=True)
class Budget:
    """Whether a limit will do, and how far the run gets with it if things go as is likely."""

    option: Literal["--max-calls", "--max-cost"]
    limit: float
    verdict: Literal["enough", "probably", "short"]
    """Enough for ``high``, for ``likely``, or for neither."""
    described: float
    """Share of the items that are described."""
    questions: float
    """Share of the questions that are answered."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call takes."""

    prompt: float
    reply: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take. ``calls`` are chat calls, which ``--max-calls`` counts; the rest is of all."""

    job: Job
    memberships: Span
    merges: Span
    prompt_tokens: Span
    reply_tokens: Span
    cost: Span
    seconds: Span
    measured: int
    """Calls of the model that it rests on; 0: all is assumed."""
    budgets: tuple[Budget, ...] = ()

    @property
    def questions(self) -> Span:
        """Membership and merge calls."""
        return self.memberships + self.merges

    @property
    def calls(self) -> Span:
        """Chat calls: descriptions and questions."""
        return self.questions + _fixed(self.job.describes)

    def to_json(self) -> dict[str, Any]:
        """One object of plain values; ``calls.total`` leaves out the embeddings, as ``--max-calls`` does."""
        price = self.job.price
        found: dict[str, Any] = {
            "items": self.job.items,
            "failed_items": self.job.failed,
            "calls": {
                "describe": self.job.describes,
                "embed": self.job.embeds,
                "questions": self.questions.to_json(),
                "total": self.calls.to_json(),
            },
            "tokens": {
                "prompt": self.prompt_tokens.to_json(),
                "completion": self.reply_tokens.to_json(),
                "total": (self.prompt_tokens + self.reply_tokens).to_json(),
            },
            "cost": self.cost.to_json(6)
            | {
                "currency": price.currency,
                "price": {"input": price.input, "output": price.output, "known": price.known},
            },
            "seconds": self.seconds.to_json(1),
            "measured": self.measured,
        }
        if self.budgets:
            found["budget"] = {
                b.option.removeprefix("--").replace("-", "_"): {
                    "limit": b.limit,
                    "verdict": b.verdict,
                    "described": round(b.described, 3),
                    "questions": round(b.questions, 3),
                }
                for b in self.budgets
            }
        return found

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(what, low, likely, high) in words."""
        written = (
            ("questions", self.questions, count),
            ("calls", self.calls, count),
            ("tokens", self.prompt_tokens + self.reply_tokens, count),
            ("cost", self.cost, self._money),
            ("time", self.seconds, duration),
        )
        return [(what, say(s.low), say(s.likely), say(s.high)) for what, s, say in written]

    def notes(self) -> list[str]:
        """What it rests on, what to know of it, and whether the budget will do."""
        job = self.job
        notes = [
            f"calls: {job.describes:,} descriptions and the questions of policy {job.policy}; "
            f"tokens, cost and time are those of {job.embeds:,} embeddings too"
        ]
        if job.failed:
            notes.append(f"items that can't be used and are left out: {job.failed:,}")
        if job.items > job.distinct:
            notes.append(f"copies of others, asked about once: {job.items - job.distinct:,}")
        if self.measured:
            notes.append(f"tokens and time: from {self.measured:,} calls of this model in this database")
        else:
            notes.append("tokens and time: assumed; no call of this model is in this database yet")
        return notes + list(job.remarks) + [self._said(budget) for budget in self.budgets]

    def warnings(self) -> list[str]:
        """What to know before anything is spent: prices that are assumed, if a limit rests on them; limits too low."""
        assumed = list(self.job.remarks) if self.job.max_cost is not None else []
        return assumed + [self._said(budget) for budget in self.budgets if budget.verdict != "enough"]

    def lines(self) -> list[str]:
        """All of it in a few lines for people."""
        return [f"{what}: {likely} ({low} to {high})" for what, low, likely, high in self.rows()] + self.notes()

    def _money(self, amount: float) -> str:
        return money(amount, self.job.price.currency)

    def _said(self, b: Budget) -> str:
        of_calls = b.option == "--max-calls"
        say = count if of_calls else self._money
        most = self.calls.high if of_calls else self.cost.high
        if b.verdict == "enough":
            return f"{b.option} {b.limit:g} should be enough"
        if b.verdict == "probably":
            return f"{b.option} {b.limit:g} is probably enough; the run may want {say(most)}"
        if b.described < 1:
            described = round(b.described * self.job.describes)
            how_far = f"about {described:,} of {self.job.describes:,} items are described"
            if not described:
                return f"{b.option} {b.limit:g} is too little: it allows next to nothing"
        else:
            how_far = f"the items are described and about {b.questions:.0%} of the questions answered"
        return f"{b.option} {b.limit:g} is too little: the run pauses when {how_far}, and can be resumed"


def image_tokens(width: int, height: int, longest_side: int) -> float:
    """Tokens of an image of so many pixels, sent with at most ``longest_side`` of them on a side."""
    scale = min(1.0, longest_side / max(width, height))
    return float(math.ceil(width * scale / PATCH) * math.ceil(height * scale / PATCH))


def text_tokens(text: str) -> float:
    """Tokens of a text: a quarter of its bytes in UTF-8."""
    return len(text.encode("utf-8", "replace")) / 4


def expected_questions(policy: Policy, n: int) -> tuple[Span, Span]:
    """(memberships, merges) for n distinct items, one candidate a call.

    ``evidence``, per item, from docs/design/evidence.md: 1.08 with perfect embeddings; 1.69 for 1,500 items, 1.75 for
    600, 1.88 for 300, 2.24 for 100; 3.3 to 3.5 with embeddings that tell little, 3.6 to 4.6 with 100 clusters. In the
    world of benchmarks/evidence.py 10 to 100 items in 3 to 13 classes take 1.7 to 3.5. Merges are among them, between
    √n and 4 √n at all sizes.

    ``paper``, memberships per item: 1.0 for the built-in model on its own images (README); the six published figures of
    METHOD 11 lie between 1.24 and 2.27, at 1.5 in the mean. Merges ask all pairs of the clusters found: a few if there
    is one component for each class (README), otherwise 0.2 to 1.0 per item in that world.
    """
    if n < 2:
        return _NOTHING, _NOTHING
    if n < 4:  # too few to be asked about at clusters: each is compared with each, twice at most
        pairs = n * (n - 1) / 2
        return _NOTHING, Span(n - 1, pairs, 2 * pairs)
    if policy == "paper":
        memberships, merges = Span(1.0, 1.5, 2.3).times(n), Span(0.03, 0.35, 0.9).times(n)
    else:
        merges = Span(1.0, 1.8, 4.0).times(math.sqrt(n))
        memberships = Span(1.1, 1.7 + 30 / (n + 40), 3.5 + 130 / (n + 40)).times(n) + merges.times(-1)
    most = n * (n - 1) / 2
    return memberships.each(lambda x: min(max(x, 1), most)), merges.each(lambda x: min(x, most))


def tokens_per_call(job: Job, kind: str) -> tuple[float, float]:
    """(prompt, reply) tokens of one call: as measured, otherwise assumed.

    Membership calls with several candidates are built from the size of an item, which measured descriptions tell.
    """
    p, describe = job.prompts, job.usual.get("describe")
    item = job.item_tokens + LABEL_TOKENS
    if describe and describe.prompt_tokens:
        item = max(1.0, describe.prompt_tokens - text_tokens(p.describe) - CHAT_TOKENS)
    description = describe.completion_tokens if describe and describe.completion_tokens else DESCRIPTION_TOKENS
    if kind == "describe":
        assumed = (CHAT_TOKENS + text_tokens(p.describe) + item, float(DESCRIPTION_TOKENS))
    elif kind == "embed":
        conversation = CHAT_TOKENS + text_tokens(p.describe) + item if job.native else 0.0
        assumed = (conversation + description, 0.0)
    elif kind == "merge":
        assumed = (CHAT_TOKENS + text_tokens(p.merge) + 2 * job.representatives * item, float(ASSESSMENT_TOKENS))
    else:
        shown = (job.representatives + job.candidates) * item
        assumed = (CHAT_TOKENS + text_tokens(p.membership) + shown, float(ASSESSMENT_TOKENS * job.candidates))
    known = job.usual.get(kind)
    if known is None or (kind == "membership" and job.candidates > 1):
        return assumed
    return known.prompt_tokens or assumed[0], known.completion_tokens or assumed[1]


def estimate(job: Job) -> Estimate:
    """What the run is expected to take; asks nobody."""
    memberships, merges = expected_questions(job.policy, job.distinct)
    if job.candidates > 1:  # with four, 2.4 to 2.9 a call were measured: a cluster has not always so many to ask about
        b = job.candidates
        memberships = memberships.times(Span(1 / b, 1.5 / b, 2 / b))
    memberships = job.taken.left("membership", memberships.each(math.ceil))
    merges = job.taken.left("merge", merges.each(math.ceil))
    describes, embeds = _fixed(job.describes), _fixed(job.embeds)
    counts = {"describe": describes, "embed": embeds, "membership": memberships, "merge": merges}
    calls = {kind: _Call(*tokens_per_call(job, kind), _seconds(job, kind)) for kind in counts}
    cost = {}
    for kind, call in calls.items():
        price = job.embed_price if kind == "embed" else job.price
        cost[kind] = counts[kind].times(price.cost(call.prompt, call.reply))
    total = sum(cost.values(), _NOTHING)
    questions = memberships + merges
    budgets: list[Budget] = []
    if job.max_calls is not None:
        budgets.append(_budget("--max-calls", job.max_calls, job.describes, questions))
    if job.max_cost is not None:
        first = (cost["describe"] + cost["embed"]).likely
        budgets.append(_budget("--max-cost", job.max_cost, first, cost["membership"] + cost["merge"]))
    return Estimate(
        job=job,
        memberships=memberships,
        merges=merges,
        prompt_tokens=sum((counts[k].times(c.prompt) for k, c in calls.items()), _NOTHING),
        reply_tokens=sum((counts[k].times(c.reply) for k, c in calls.items()), _NOTHING),
        cost=total,
        seconds=_time(job, counts, calls),
        measured=sum(u.calls for kind, u in job.usual.items() if kind != "embed"),
        budgets=tuple(budgets),
    )


def _fixed(value: float) -> Span:
    return Span(value, value, value)


def _seconds(job: Job, kind: str) -> float:
    if (known := job.usual.get(kind)) is not None and known.seconds:
        return known.seconds
    if kind == "embed" and not job.native and not job.built_in:
        return CAPTION_SECONDS
    chats = [u for k, u in job.usual.items() if k != "embed"]
    if chats:  # of another kind, but of this model
        return sum(u.seconds * u.calls for u in chats) / sum(u.calls for u in chats)
    return BUILT_IN_SECONDS if job.built_in else SECONDS


def _time(job: Job, counts: Mapping[str, Span], calls: Mapping[str, _Call]) -> Span:
    slots = max(1, min(job.concurrency, job.distinct, BUILT_IN_BATCH if job.built_in else job.concurrency))
    busy = {kind: counts[kind].times(call.seconds) for kind, call in calls.items()}
    seconds = (busy["describe"] + busy["embed"]).times(1 / slots)
    if job.policy == "paper":  # an agent has one question outstanding, and there is one merge agent
        seconds += busy["membership"].times(Span(1 / slots, 1 / min(slots, AGENTS), 1)) + busy["merge"]
    else:
        seconds += (busy["membership"] + busy["merge"]).times(1 / slots).times(_TAIL)
    return seconds + _fixed(BUILT_IN_START) if job.built_in else seconds


def _budget(option: Literal["--max-calls", "--max-cost"], limit: float, first: float, questions: Span) -> Budget:
    """How far a limit goes that is spent on descriptions first, ``first`` of it, and then on questions."""
    verdict: Literal["enough", "probably", "short"] = "short"
    if limit >= first + questions.likely:
        verdict = "enough" if limit >= first + questions.high else "probably"
    described = min(1.0, limit / first) if first else 1.0
    left = max(0.0, limit - first)
    answered = min(1.0, left / questions.likely) if questions.likely else described
    return Budget(option, limit, verdict, described, answered)


def count(number: float) -> str:
    """A number for people: three figures of it."""
    for unit, name in ((1e9, " billion"), (1e6, " million")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    if number >= 1000:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:.0f}"


def money(amount: float, currency: str, *, known: bool = True) -> str:
    """An amount for people; "about" so much where the price is not known."""
    if not amount:
        return "nothing"
    if amount < 0.01:
        return f"under 0.01 {currency}"
    return f"{'' if known else 'about '}{amount:,.2f} {currency}"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} days"
