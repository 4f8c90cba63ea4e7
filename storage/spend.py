"""What calls have taken, read from the ledger: tokens and seconds of a session, and what a model usually takes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, case, func, or_, select

from storage.database import Database
from storage.tables import answers, sessions

_answered = answers.c.seconds > 0
"""Not so for a question that the endpoint refused to take: it is recorded with no tokens in no time."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a session's calls of one kind to one model took together.

    Attributes:
        model: the name that the endpoint answered with.
        seconds: the sum of the answers' times, not wall time.
        uncounted: calls answered without a count of tokens, which are in ``calls`` and not in the tokens.
    """

    kind: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    uncounted: int = 0


@dataclass(frozen=True, slots=True)
class Usual:
    """What a call of one kind to one model takes on average, over ``calls`` calls.

    Token counts are means over the calls whose endpoint counted, 0.0 if none did.
    """

    prompt_tokens: float
    completion_tokens: float
    seconds: float
    calls: int


def spent(db: Database, session_id: str) -> list[Spent]:
    """What the session has spent, by kind and model; answers that were reused or given by people cost nothing."""
    counted = func.coalesce(answers.c.prompt_tokens, 0) + func.coalesce(answers.c.completion_tokens, 0)
    query = (
        select(
            answers.c.kind,
            answers.c.model,
            func.count(),
            func.coalesce(func.sum(answers.c.prompt_tokens), 0),
            func.coalesce(func.sum(answers.c.completion_tokens), 0),
            func.sum(answers.c.seconds),
            func.sum(case((and_(_answered, counted == 0), 1), else_=0)),
        )
        .where(answers.c.session_id == session_id, answers.c.origin == "model")
        .group_by(answers.c.kind, answers.c.model)
        .order_by(answers.c.kind, answers.c.model)
    )
    with db.reading() as connection:
        return [
            Spent(kind, model, int(calls), int(prompt), int(completion), float(seconds), int(uncounted))
            for kind, model, calls, prompt, completion, seconds, uncounted in connection.execute(query)
        ]


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
