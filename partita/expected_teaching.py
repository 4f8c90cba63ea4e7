"""What a teacher will be asked for a training, and what that will cost: predicted without a call.

The most of each kind is bounded by the recipe and the collection. How much of it comes is assumed where nothing is
measured: a training that stops early asks less, and pairs that were mined before are not asked again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.prompt_sets import PromptSet
from partita.estimate import Job, Span, count, money, tokens_per_call
from partita.expected import item_tokens
from partita.prices import Price
from storage.items import Collection
from storage.spend import Usual
from training.recipe import Recipe, What, held_out_of

NEW_PAIRS = Span(0.3, 0.7, 1.0)
"""Share of an epoch's pairs that were not mined before; assumed."""
PER_NODE = Span(1.0, 1.5, 2.3)
"""Memberships for each node of a traversal: policy `paper`, as in `estimate.expected_questions`."""
MERGED = Span(0.05, 0.5, 1.0)
"""Share of the merge questions that an epoch may ask; assumed."""
_NOTHING = Span(0, 0, 0)


@dataclass(frozen=True, slots=True)
class TeachingEstimate:
    """What is still to be asked of a teacher. What its session has is taken off what is low and likely; it may be the
    answers to another training's questions, so that high leaves it out of account."""

    calls: Mapping[str, Span]
    """By kind: describe, membership, merge."""
    prompt_tokens: Span
    reply_tokens: Span
    cost: Span
    price: Price
    measured: int
    """Calls of the model that tokens rest on; 0: they are assumed."""
    had: int
    """Answers that the teacher's session has already."""

    @property
    def total(self) -> Span:
        """Chat calls, which `--max-calls` counts."""
        return sum(self.calls.values(), _NOTHING)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(what, low, likely, high) in words."""

        def cost(amount: float) -> str:
            return money(amount, self.price.currency)

        names = {"describe": "captions", "membership": "memberships", "merge": "merges"}
        told = [(names[kind], span, count) for kind, span in self.calls.items()]
        written = [*told, ("calls", self.total, count), ("tokens", self.prompt_tokens + self.reply_tokens, count)]
        spans = [*written, ("cost", self.cost, cost)]
        return [(what, say(s.low), say(s.likely), say(s.high)) for what, s, say in spans]

    def notes(self) -> list[str]:
        """What it rests on."""
        notes = ["high: every epoch of the recipe, and every pair of each new; a training stops when it gets no better"]
        if self.had:
            notes.append(f"answers that the teacher's session has already: {self.had:,}; high does not count on them")
        if self.measured:
            notes.append(f"tokens: from {self.measured:,} calls of this model in this database")
        elif self.price.input or self.price.output:
            notes.append("tokens: assumed; no call of this model is in this database yet")
        return notes

    def to_json(self) -> dict[str, Any]:
        """One object of plain values."""
        return {
            "calls": {kind: span.to_json() for kind, span in self.calls.items()} | {"total": self.total.to_json()},
            "tokens": {"prompt": self.prompt_tokens.to_json(), "completion": self.reply_tokens.to_json()},
            "cost": self.cost.to_json(6) | {"currency": self.price.currency, "known": self.price.known},
            "measured": self.measured,
            "had": self.had,
        }


def expected_teaching(
    found: Collection,
    prompt_set: PromptSet,
    recipe: Recipe,
    what: What,
    *,
    price: Price,
    took: Mapping[str, Usual] | None = None,
    had: Mapping[str, int] | None = None,
    longest_side: int = 768,
) -> TeachingEstimate:
    """Calls, tokens and cost of a teacher for a whole training.

    Args:
        found: the items that the teacher can be asked about.
        price: of the teacher's model; `prices.FREE` for labels.
        took: what calls of the model took before (`partita.expected.measured`).
        had: answers by kind that are in the teacher's session (`storage.ledger.tally`).
    """
    took, had = took or {}, had or {}
    counts = {"describe": _NOTHING, "membership": _NOTHING, "merge": _NOTHING}
    distinct = len({item.content_hash for item in found.items})
    if distinct >= 2:
        counts = _counts(distinct, recipe, what)
    counts = {kind: _less(span, had.get(kind, 0)) for kind, span in counts.items()}
    tokens_of_item = item_tokens(found, longest_side)

    def tokens(kind: str, representatives: int) -> tuple[float, float]:
        asked = Job(
            prompts=prompt_set, items=distinct, distinct=distinct, item_tokens=tokens_of_item, policy="paper",
            representatives=representatives, price=price, embed_price=price, usual=took,
        )  # fmt: skip
        return tokens_per_call(asked, kind)

    # Pairs show one representative, and so do a component agent's first questions.
    shown = recipe.representatives if what != "embedder" else 1
    each = {kind: tokens(kind, shown) for kind in counts}
    cost = sum((counts[kind].times(price.cost(*each[kind])) for kind in counts), _NOTHING)
    return TeachingEstimate(
        calls=counts,
        prompt_tokens=sum((counts[kind].times(each[kind][0]) for kind in counts), _NOTHING),
        reply_tokens=sum((counts[kind].times(each[kind][1]) for kind in counts), _NOTHING),
        cost=cost,
        price=price,
        measured=sum(usual.calls for kind, usual in took.items() if kind != "embed"),
        had=sum(had.get(kind, 0) for kind in counts),
    )


def _less(span: Span, had: int) -> Span:
    low, likely = (max(0.0, math.ceil(calls) - had) for calls in (span.low, span.likely))
    return Span(low, likely, math.ceil(span.high))


def _counts(distinct: int, recipe: Recipe, what: What) -> dict[str, Span]:
    held = held_out_of(distinct, recipe)
    taught = distinct - held
    early = min(recipe.epochs, recipe.patience + 1)
    epochs = Span(early, max(early, 0.6 * recipe.epochs), recipe.epochs)
    membership, describe, merge = _NOTHING, _NOTHING, _NOTHING
    if what != "agent":
        measured = min(recipe.held_out_pairs, held * (held - 1) // 2)
        membership = Span(measured, measured, measured)
        every = taught * (taught - 1) / 2
        pairs = min(recipe.pairs + recipe.random_pairs, every)
        new = epochs.times(pairs).times(NEW_PAIRS).each(lambda x: min(every, max(x, pairs)))
        membership += new
        # Mined pairs share items: the first epoch's have about as many as there are pairs.
        seen = epochs.times(recipe.captions)
        describe = Span(min(taught, pairs + seen.low), min(taught, 2 * new.likely + seen.likely), distinct)
    if what != "embedder":
        nodes = min(recipe.nodes, taught)
        strangers = recipe.refused / (1 - recipe.refused)  # for each that was taken in, where the graph is good
        each = (1 + recipe.noisy) * (1 + strangers)
        # Those held out are walked once.
        membership += (epochs.times(nodes) + Span(held, held, held)).times(each).times(PER_NODE)
        most = [max(recipe.rehearsals, min(recipe.merges, n * (n - 1) / 2)) for n in (nodes, held)]
        merge = (epochs.times(most[0]) + Span(most[1], most[1], most[1])).times(MERGED)
    return {"describe": describe, "membership": membership, "merge": merge}
