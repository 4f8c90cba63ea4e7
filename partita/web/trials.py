"""Trials and drafts of prompt sets from the page: planned and agreed to, made in the background, and looked at."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from partita.drafting import Drafted, check_can_draft, draft, some_of
from partita.keys import find_keys
from partita.prompts import Chosen
from partita.result import TEACHER
from partita.settings import EMBEDDED, Parameters, read_environment
from partita.trial_questions import Said, Tried
from partita.trying import Plan, Trial, try_prompts
from partita.web.desk import Desk, Seen
from partita.web.given import ADesk
from partita.web.jobs import Job
from partita.web.prompts import Draught, Written, editor, prompts_url, to_try
from partita.web.rendering import Tile, page, tiles
from storage.database import Database
from storage.errors import PartitaError, PromptError, UsageError
from storage.prompts import find
from storage.sessions import SessionRecord, load_session

router = APIRouter()
MOST_SHOWN, USUALLY_SHOWN = 8, 4
"""Items that a model is shown when it drafts."""

_CONCLUSION = re.compile(r"<CONCLUSION>[^<]{0,40}</CONCLUSION>")


@dataclass(frozen=True, slots=True)
class Trying:
    """What is told of a trial."""

    draught: Draught
    session: str
    name: str
    """Of the prompt set."""
    hash: str
    criterion: str
    given: str
    """What ``$criterion`` stood for."""
    line: str
    """What it was going to ask."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drafting:
    """What is told of a draft."""

    criterion: str
    session: str
    shown: int
    model: str


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as a page shows it."""

    text: str
    conclusion: str | None
    reply: str
    """In full, where it says more than the text."""
    asked: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A question of a trial with both answers."""

    words: str
    sides: Sequence[tuple[str, Sequence[Tile]]]
    before: Answered | None
    now: Answered | None
    changed: bool
    sure: float | None


@router.post("/prompts/try")
def order_trial(form: Written, desk: ADesk, number: Annotated[str, Form()] = "") -> Response:
    """Try what was planned."""
    try:
        job = desk.jobs.get(number) or _order_trial(desk, number, form, form.planned(desk.db))
    except PartitaError as e:
        return editor(desk, form, why=str(e), status=400)
    return RedirectResponse(prompts_url("job", job.number), 303)


@router.get("/prompts/draft")
def draft_form(desk: ADesk, criterion: str = "", session: str = "") -> Response:
    """The form that has a model draft a set."""
    return _draft_form(desk, criterion, session)


@router.post("/prompts/draft")
def order_draft(
    desk: ADesk,
    criterion: Annotated[str, Form()] = "",
    session: Annotated[str, Form()] = "",
    shown: Annotated[int, Form()] = 0,
    number: Annotated[str, Form()] = "",
) -> Response:
    """Have it drafted."""
    try:
        job = desk.jobs.get(number) or _order_draft(desk, number, criterion, session, shown)
    except PartitaError as e:
        return _draft_form(desk, criterion, session, shown, why=str(e), status=400)
    return RedirectResponse(prompts_url("job", job.number), 303)


@router.get("/prompts/job/{number}")
def job(number: str, desk: ADesk) -> Response:
    """How far a trial or a draft is, and what came of it."""
    found = desk.jobs.get(number)
    return _gone() if found is None else page("prompt_job", **_told(desk, found))


@router.get("/prompts/job/{number}/live")
def live(number: str, desk: ADesk) -> Response:
    """The same, for a page that is open."""
    found = desk.jobs.get(number)
    return _gone() if found is None else page("_prompt_job", **_told(desk, found))


@router.post("/prompts/job/{number}/stop")
def stop(number: str, desk: ADesk) -> Response:
    """End it without a result."""
    found = desk.jobs.get(number)
    if found is None:
        return _gone()
    found.stop()
    return RedirectResponse(prompts_url("job", number), 303)


def rows(seen: Seen, tried: Sequence[Tried]) -> Iterator[Row]:
    """The questions of a trial, with the pictures of their items."""
    for one in tried:
        if one.kind == "describe":
            words, sides = "What is it?", [("", one.candidates)]
        elif one.kind == "merge":
            first, second = one.clusters
            words = f"Are clusters {first} and {second} one?"
            sides = [(f"cluster {first}", one.representatives[0]), (f"cluster {second}", one.representatives[1])]
        else:
            number = one.clusters[1]
            cluster = f"its own cluster {number}" if one.within else f"cluster {number}, which is not its own"
            words = f"Does it belong to {cluster}?"
            sides = [("it", one.candidates), (f"cluster {number}", one.representatives[0])]
        yield Row(
            words, [(label, list(tiles(seen, names))) for label, names in sides], _answered(one.before),
            _answered(one.now), one.changed, one.confidence,
        )  # fmt: skip


def _answered(said: Said | None) -> Answered | None:
    if said is None:
        return None
    without = _CONCLUSION.sub("", said.reply).strip()
    return Answered(said.text, said.conclusion, "" if without == said.text.strip() else said.reply, said.asked)


def _order_trial(desk: Desk, number: str, form: Draught, plan: Plan) -> Job:
    keys = find_keys(read_environment())

    async def work(job: Job) -> Trial:
        return await try_prompts(plan, keys=keys, prices=desk.prices, on_note=job.note, on_answer=job.answered)

    prompts = plan.prompts
    given = form.criterion or load_session(desk.db, plan.session).criterion
    about = Trying(form, plan.session, prompts.name, prompts.hash, prompts.criterion, given, plan.line(), plan.notes)
    same = "trial", plan.session, prompts.hash, form.items
    return desk.jobs.order(number, same, about, work, total=plan.calls)


def _order_draft(desk: Desk, number: str, criterion: str, session: str, shown: int) -> Job:
    if not session:
        raise UsageError("choose a session whose model is to draft")
    if not 0 <= shown <= MOST_SHOWN:
        raise UsageError(f"show it 0 to {MOST_SHOWN} items")
    seen = desk.seen(session)
    if seen.record.policy == TEACHER:
        raise UsageError(f"session {seen.record.name!r} holds a teacher's answers: choose another")
    parameters = Parameters.model_validate({"constrain": False} | seen.record.parameters)
    if parameters.endpoint == EMBEDDED:
        raise UsageError(
            f"the built-in model, which session {seen.record.name!r} has, can't write prompts: choose a session with "
            "an endpoint's model, or edit a copy of a shipped set"
        )
    words = check_can_draft(parameters, criterion)
    items = some_of(list(seen.items.values()), shown) if shown else []
    keys = find_keys(read_environment())

    async def work(job: Job) -> Drafted:
        made = await draft(words, parameters, keys=keys, items=items, prices=desk.prices, on_note=job.note)
        Chosen(made.prompts, "drafted", made.text).kept_in(desk.db)
        return made

    about = Drafting(words, seen.record.name, len(items), parameters.model or "its model")
    return desk.jobs.order(number, ("draft", seen.record.name, words, shown), about, work)


def _told(desk: Desk, job: Job) -> dict[str, Any]:
    told: dict[str, Any] = {"job": job, "about": job.about, "trial": None, "drafted": None, "rows": [], "opens": None,
                            "kept": False, "trying": isinstance(job.about, Trying)}  # fmt: skip
    if isinstance(job.about, Drafting):
        if isinstance(job.result, Drafted):
            told |= {"drafted": job.result}
            told["opens"] = _in_editor(job.result.prompts.hash, job.about.session)
        return told
    told["kept"] = _is_kept(desk.db, job.about.hash)
    if isinstance(job.result, Trial):
        told |= {"trial": job.result, "rows": list(rows(desk.seen(job.about.session), job.result.tried))}
    return told


def _in_editor(hashed: str, session: str) -> str:
    return prompts_url("edit", **{"from": hashed, "session": session})


def _is_kept(db: Database, hashed: str) -> bool:
    try:
        find(db, hashed)
    except PromptError:
        return False
    return True


def _draft_form(
    desk: Desk,
    criterion: str,
    session: str,
    shown: int = USUALLY_SHOWN,
    *,
    why: str = "",
    status: int = 200,
) -> Response:
    return page(
        "prompt_draft", status, criterion=criterion, session=session, shown=shown, why=why,
        sessions=_with_endpoints(desk.db), numbers=range(MOST_SHOWN + 1), number=secrets.token_urlsafe(12),
    )  # fmt: skip


def _with_endpoints(db: Database) -> list[SessionRecord]:
    return [record for record in to_try(db) if record.parameters.get("endpoint", EMBEDDED) != EMBEDDED]


def _gone() -> Response:
    return page(
        "error",
        404,
        why="This is no longer known: drafts are among the prompts, trials are kept nowhere.",
        session=None,
    )
