"""What a session has spent: calls, images, tokens, time and money, by stage, by model and by cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

from partita.estimate import count, money
from partita.prices import Price, Prices, Rates
from partita.result import TEACHER, ClusterResult
from partita.settings import Parameters
from partita.stored import result_of, status_now
from storage.calls import KINDS
from storage.database import Database
from storage.ledger import tally
from storage.sessions import SessionRecord, load_items, load_session
from storage.spend import Spent, spent, summed

CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Amount:
    """What some calls took. Numbers of a cluster need not be whole: a call may be shared."""

    calls: float = 0
    images: float = 0
    """Images shown to the model; one that is shown twice counts twice."""
    prompt_tokens: float = 0
    cached_tokens: float = 0
    """Those of the prompt tokens that the endpoint had in its cache; 0 also where it doesn't say."""
    completion_tokens: float = 0
    seconds: float = 0
    """The answers' times, one after the other: not wall time, as many calls are in flight at once."""
    uncounted_calls: float = 0
    """Calls whose endpoint counted no tokens."""
    known: float = 0.0
    """USD for counted tokens at a known price."""
    assumed: float = 0.0
    """USD for counted tokens of a model whose price is not known, and is taken for a dear one's."""
    uncounted: float = 0.0
    """USD for the calls that were not counted, as for usual ones of their kind."""

    @property
    def cost(self) -> float:
        """In USD."""
        return self.known + self.assumed + self.uncounted

    @property
    def tokens(self) -> float:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    def price(self) -> str:
        """The cost in words."""
        if not self.cost:
            return "at no cost"
        return money(self.cost, CURRENCY, known=not (self.assumed or self.uncounted))

    def __add__(self, other: Amount) -> Amount:
        return Amount(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Amount)))

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the cost told apart by what it rests on."""
        told = asdict(self)
        parts = {name: round(told.pop(name), 9) for name in ("known", "assumed", "uncounted")}
        return told | {"cost": {"total": round(self.cost, 9)} | parts}


@dataclass(frozen=True, slots=True)
class ClusterSpend:
    """What one cluster took."""

    id: int
    name: str
    size: int
    spent: Amount


@dataclass(frozen=True, slots=True)
class Spend:
    """What a session has spent so far. Stages, models, and clusters with ``elsewhere``, add up to ``total`` each.

    A call belongs to the clusters of the items that it decided about, in equal shares: the item that it described or
    embedded, the candidates of a membership question, the two sides of a merge question.
    """

    session: str
    status: str
    total: Amount
    stages: dict[str, Amount]
    """By kind of call: describe, embed, membership, merge."""
    models: dict[str, Amount]
    """By the name that the endpoint answered with."""
    clusters: list[ClusterSpend]
    """The largest first, as in the result; empty while there is no partition."""
    elsewhere: Amount
    """What is no cluster's: all of it while there is no partition."""
    reused: int
    """Answers taken over from another session, which cost nothing here."""
    prices: dict[str, Price]
    """Of the models that were asked."""
    remarks: tuple[str, ...]
    """What to know of the cost: prices that are assumed, calls that were not counted."""
    of_teacher: bool = False
    """Whether it holds a teacher's answers, and so never has a partition."""

    def line(self) -> str:
        """The total in a few words. Calls are those that `--max-calls` counts: embeddings are told apart."""
        t = self.total
        if not t.calls:
            return "nothing"
        embed = self.stages["embed"].calls
        calls = f"{t.calls - embed:,} calls" + (f" and {embed:,} embedding{'' if embed == 1 else 's'}" if embed else "")
        calls += f", {count(t.tokens)} tokens" + (f", {t.images:,} images shown" if t.images else "")
        return f"{calls}, {t.price()}"

    def to_json(self) -> dict[str, Any]:
        """One object of plain values."""
        return {
            "session": self.session,
            "status": self.status,
            "currency": CURRENCY,
            "prices": {model: _price(price) for model, price in self.prices.items()},
            "total": self.total.to_json(),
            "stages": {stage: amount.to_json() for stage, amount in self.stages.items()},
            "models": {model: amount.to_json() for model, amount in self.models.items()},
            "clusters": [{"id": c.id, "name": c.name, "size": c.size} | c.spent.to_json() for c in self.clusters],
            "not_in_a_cluster": self.elsewhere.to_json(),
            "reused": self.reused,
        }


def spend_of(db: Database, name: str, prices: Prices, *, by_cluster: bool = True) -> Spend:
    """What a session has spent so far, at the prices of now.

    Args:
        by_cluster: also what each cluster took; without it all is ``elsewhere``, which is told several times as fast.

    Raises:
        UnknownSession: no session of that name.
    """
    record = load_session(db, name)
    clusters, homes = _homes(db, record) if by_cluster else ([], {})
    rows = spent(db, record.id, homes)
    parameters = Parameters.model_validate(record.parameters)
    rates = prices.rates(parameters)
    of_cluster: dict[int | None, list[Spent]] = {}
    for row in rows:
        of_cluster.setdefault(row.cluster, []).append(row)
    total = _amount(rows, rates)
    asked = {parameters.embed_model: rates.embed, parameters.model: rates.chat}
    priced = {model: price for model, price in asked.items() if model is not None}
    remarks = [remark for model, price in priced.items() if (remark := prices.remark(model, price))] if rows else []
    if total.uncounted_calls:
        assumed = f"; {money(total.uncounted, CURRENCY)} is assumed for them, as for usual ones"
        uncounted = f"{total.uncounted_calls:,} calls were answered without a count of tokens, and are in none here"
        remarks.append(uncounted + (assumed if total.uncounted else ""))
    return Spend(
        session=record.name,
        status=status_now(db, record),
        total=total,
        stages={kind: _amount((row for row in rows if row.kind == kind), rates) for kind in KINDS},
        models={
            model: _amount((row for row in rows if row.model == model), rates)
            for model in sorted({row.model for row in rows})
        },
        clusters=[ClusterSpend(c.id, c.name, c.size, _amount(of_cluster.get(c.id, ()), rates)) for c in clusters],
        elsewhere=_amount(of_cluster.get(None, ()), rates),
        reused=tally(db, record.id)["reused"],
        prices=priced,
        remarks=tuple(remarks),
        of_teacher=record.policy == TEACHER,
    )


def _homes(db: Database, record: SessionRecord) -> tuple[list[ClusterResult], dict[int, int]]:
    """The clusters, and the number of the cluster in which each node stands."""
    clusters = result_of(db, record.name).clusters
    nodes = {row.name: row.node for row in load_items(db, record.id) if row.node is not None}
    return clusters, {nodes[item]: c.id for c in clusters for item in c.items}


def amount_of(db: Database, record: SessionRecord, prices: Prices) -> Amount:
    """What a session has spent so far in all, but for the images, which take a look at every call."""
    return _amount(summed(db, record.id), prices.rates(Parameters.model_validate(record.parameters)))


def _amount(rows: Iterable[Spent], rates: Rates) -> Amount:
    """Exact until it is a sum: fractions of many clusters make whole numbers again."""
    names = ("calls", "images", "prompt_tokens", "cached_tokens", "completion_tokens", "seconds", "uncounted")
    sums = dict.fromkeys(names, Fraction())
    known = assumed = uncounted = 0.0
    for row in rows:
        for name in names:
            sums[name] += getattr(row, name)
        price = rates.of(row.kind)
        counted = price.cost(float(row.prompt_tokens), float(row.completion_tokens), float(row.cached_tokens))
        known += counted if price.known else 0.0
        assumed += 0.0 if price.known else counted
        uncounted += float(row.uncounted) * price.cost_of_call(row.kind, None, None)
    plain = {name: _plain(total) for name, total in sums.items()}
    uncounted_calls = plain.pop("uncounted")
    return Amount(**plain, uncounted_calls=uncounted_calls, known=known, assumed=assumed, uncounted=uncounted)


def _plain(number: Fraction) -> float:
    return number.numerator if number.denominator == 1 else float(number)


def _price(price: Price) -> dict[str, Any]:
    return {"input": price.input, "cached": price.cached, "output": price.output, "known": price.known}
