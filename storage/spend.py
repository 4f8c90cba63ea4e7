"""What calls have taken, read from the ledger: those of a session, by cluster too, and what a model usually takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import and_, case, func, or_, select

from storage.database import Database
from storage.shown import Subject, images_shown
from storage.tables import answers, sessions

_PAGE = 1000
_MICRO = 1_000_000
_WHOLE: tuple[list[tuple[int, int]], int] = [(-1, 1)], 1
"""The shares of a call where no cluster is known: all of it is nobody's."""
_answered = answers.c.seconds > 0
"""Not so for a question that the endpoint refused to take: it is recorded with no tokens in no time."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls of one kind to one model took, as far as they are one cluster's.

    Every amount is exact: a fraction where calls are shared by clusters.

    Attributes:
        cluster: None for what is no cluster's.
        model: the name that the endpoint answered with.
        images: those that the calls showed.
        cached_tokens: those of the prompt tokens that the endpoint had in its cache.
        seconds: the sum of the answers' times, to the microsecond; not wall time.
        uncounted: calls answered without a count of tokens, which are in ``calls`` and not in the tokens.
    """

    cluster: int | None
    kind: str
    model: str
    calls: Fraction
    images: Fraction
    prompt_tokens: Fraction
    cached_tokens: Fraction
    completion_tokens: Fraction
    seconds: Fraction
    uncounted: Fraction


@dataclass(frozen=True, slots=True)
class Usual:
    """What a call of one kind to one model takes on average, over ``calls`` calls.

    Token counts are means over the calls whose endpoint counted, 0.0 if none did.
    """

    prompt_tokens: float
    completion_tokens: float
    seconds: float
    calls: int


def spent(db: Database, session_id: str, clusters: Mapping[int, int] | None = None) -> list[Spent]:
    """What the session has spent, by kind, model and cluster; ``clusters`` has the cluster of each node.

    A call is the clusters' of the items that it decided about, in equal shares: of the item that was described or
    embedded, of the candidates (not the representatives) of a membership question, of the two sides of a merge
    question, half each. So the shares of all clusters add up to what was spent. Answers that were reused or given by
    people cost nothing.
    """
    homes = clusters or {}
    # Sums are kept in whole numbers of equal parts of a call: [calls, images, ...] by into how many parts it is shared.
    sums: dict[tuple[str, str, int | None], dict[int, list[int]]] = {}
    query = select(
        answers.c.kind,
        answers.c.model,
        answers.c.subject,
        answers.c.prompt_tokens,
        answers.c.cached_tokens,
        answers.c.completion_tokens,
        answers.c.seconds,
    ).where(answers.c.session_id == session_id, answers.c.origin == "model")
    with db.reading() as connection:
        images = images_shown(connection, session_id)
        rows = connection.execution_options(yield_per=_PAGE).execute(query)
        for kind, model, subject, prompt, cached, completion, seconds in rows:
            answered = seconds > 0
            took = (
                1,
                images(kind, subject) if answered else 0,
                prompt or 0,
                cached or 0,
                completion or 0,
                round(seconds * _MICRO),
                int(answered and not (prompt or completion)),
            )
            shares, parts = _shares(subject) if homes else _WHOLE
            for node, share in shares:
                by_parts = sums.setdefault((kind, model, homes.get(node)), {})
                sum_so_far = by_parts.setdefault(parts, [0] * len(took))
                for place, amount in enumerate(took):
                    sum_so_far[place] += share * amount
    found = []
    for kind, model, cluster in sorted(sums, key=lambda key: (key[0], key[1], key[2] is None, key[2] or 0)):
        by_parts = sums[kind, model, cluster]
        calls, shown, prompt, cached, completion, micro, uncounted = (
            sum((Fraction(whole[place], parts) for parts, whole in by_parts.items()), Fraction()) for place in range(7)
        )
        found.append(Spent(cluster, kind, model, calls, shown, prompt, cached, completion, micro / _MICRO, uncounted))
    return found


def summed(db: Database, session_id: str) -> list[Spent]:
    """The same without images and clusters, by kind and model: the database adds it up in a few milliseconds."""
    uncounted = and_(
        _answered, func.coalesce(answers.c.prompt_tokens, 0) + func.coalesce(answers.c.completion_tokens, 0) == 0
    )
    tokens = (answers.c.prompt_tokens, answers.c.cached_tokens, answers.c.completion_tokens)
    query = (
        select(
            answers.c.kind,
            answers.c.model,
            func.count(),
            *(func.coalesce(func.sum(column), 0) for column in tokens),
            func.sum(answers.c.seconds),
            func.sum(case((uncounted, 1), else_=0)),
        )
        .where(answers.c.session_id == session_id, answers.c.origin == "model")
        .group_by(answers.c.kind, answers.c.model)
        .order_by(answers.c.kind, answers.c.model)
    )
    with db.reading() as connection:
        return [
            Spent(None, kind, model, Fraction(calls), Fraction(), Fraction(prompt), Fraction(cached),
                  Fraction(completion), Fraction(round(seconds * _MICRO), _MICRO), Fraction(uncounted))
            for kind, model, calls, prompt, cached, completion, seconds, uncounted in connection.execute(query)
        ]  # fmt: skip


def _shares(subject: Subject) -> tuple[list[tuple[int, int]], int]:
    """The nodes that a call decided about, each with its share of the call, and what the shares add up to."""
    if "item" in subject:
        return [(subject["item"], 1)], 1
    if candidates := subject.get("candidates"):
        return [(node, 1) for node in candidates], len(candidates)
    one, other = subject["representatives"]
    shares = [(node, len(other)) for node in one] + [(node, len(one)) for node in other]
    return shares, 2 * len(one) * len(other)


def usual(db: Database, model: str) -> dict[str, Usual]:
    """What a call to the model takes, by kind of question, over all sessions of this database.

    A model is known by the name it was asked under and by the one it answered with (``gpt-4o`` answers as
    ``gpt-4o-2024-08-06``). Kinds that were never asked are missing.
    """
    asked_chat = and_(answers.c.kind != "embed", sessions.c.parameters["model"].as_string() == model)
    asked_embed = and_(answers.c.kind == "embed", sessions.c.parameters["embed_model"].as_string() == model)
    query = (
        select(
            answers.c.kind,
            func.avg(func.nullif(answers.c.prompt_tokens, 0)),
            func.avg(func.nullif(answers.c.completion_tokens, 0)),
            func.avg(answers.c.seconds),
            func.count(),
        )
        .join(sessions, sessions.c.id == answers.c.session_id)
        .where(answers.c.origin == "model", _answered, or_(answers.c.model == model, asked_chat, asked_embed))
        .group_by(answers.c.kind)
        .order_by(answers.c.kind)
    )
    with db.reading() as connection:
        return {
            kind: Usual(float(prompt or 0), float(completion or 0), float(seconds), int(calls))
            for kind, prompt, completion, seconds, calls in connection.execute(query)
        }
