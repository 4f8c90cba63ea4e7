"""The teacher's session: its answers are kept like those of any session, and are nowhere paid for twice.

The session's name is made from the collection, the prompts of the criterion and the teacher, so whatever is trained
from these, in whatever folder, asks the same session. Nothing is clustered in it: `show`, `spend` and `trace` work on
it, and it goes on with `partita train`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.prompt_sets import PromptSet
from graphs.asking import Asker, Chat, Embedder
from graphs.asking import Gallery as Parts
from graphs.budget import Budget
from partita.endpoints import check_built_in, check_kind, connect
from partita.gallery import Gallery
from partita.keys import Keys
from partita.labels import labelled
from partita.prices import call_cost
from partita.result import TEACHER
from partita.running import Limits, status_after
from partita.settings import EMBEDDED, Parameters, make_parameters
from partita.watch import Watch
from serving.client import Vector
from serving.llava.about import is_supervised
from serving.roles import CHAT
from serving.roles import TEACHER as ROLE
from storage.database import Database
from storage.errors import SessionExists, UnknownSession, UsageError
from storage.items import Collection
from storage.ledger import Ledger
from storage.locks import session_lock
from storage.sessions import SessionRecord, add_items, create_session, list_sessions, load_session, update_session
from training.labels import SUPERVISED, HashGallery, LabelsTeacher
from training.replies import words_of
from training.teacher import Teacher

ASKED = ("temperature", "max_tokens", "seed", "longest_side")
"""What of the parameters determines an answer, and so which session it is in."""


@dataclass(frozen=True, slots=True)
class Teaching:
    """An open teacher's session."""

    teacher: Teacher
    session: str
    """Its name."""
    record: str
    """Its id in the database."""
    parameters: Parameters
    """How it is asked."""
    found: Collection
    """The items that the teacher can be asked about: with labels, those that have one."""
    values: Mapping[str, str]
    """What labels say of each item, by content hash; empty where a model is asked."""
    notes: tuple[str, ...]
    """What the user has to know."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """A teacher's session as far as it is known without asking anybody."""

    record: str | None
    """Its id in the database; None where it would be new."""
    parameters: Parameters
    """How it would be asked; `model` is None where none is named and none was asked before."""
    found: Collection
    """As in `Teaching`."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Source:
    """Whoever answers."""

    chat: Chat
    gallery: Parts
    parameters: Parameters
    budget: Budget
    found: Collection
    asked: tuple[str, ...]
    """What it is known by."""
    values: Mapping[str, str]
    notes: tuple[str, ...] = ()


@asynccontextmanager
async def teaching(
    db: Database,
    collection: Path,
    found: Collection,
    criterion: str,
    prompt_set: PromptSet,
    teacher: str,
    *,
    column: str | None = None,
    model: str | None = None,
    keys: Keys | None = None,
    limits: Limits | None = None,
    watch: Watch | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Teaching]:
    """Open the teacher's session, begun before or new; it is this process's until the block ends.

    Args:
        found: what `storage.items.scan` found in the collection.
        teacher: base URL of an OpenAI-compatible API, or the path of a CSV with labels.
        column: the CSV's column with the labels; None for the one that is called as the criterion is.
        model: at the URL; None for its first.
        settings: fields of `Parameters` that say how a model is asked, e.g. `concurrency`.

    Raises:
        UsageError: bad input; nothing was begun.
        SessionBusy: another training asks this teacher now.
        EndpointError: the endpoint can't be used; what was answered is kept.
    """
    watch, limits = watch or Watch(), limits or Limits()
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    async with AsyncExitStack() as stack:
        if is_model(teacher):
            parameters = _parameters(given | {"endpoint": teacher, "model": model}, criterion, found)
            connection = await stack.enter_async_context(connect(parameters, keys, watch.on_note, role=ROLE))
            source = _of_model(connection.chat, connection.parameters, found, limits)
        else:
            csv = _csv(teacher)
            source = await asyncio.to_thread(_of_labels, csv, column, collection, found, prompt_set, criterion)
        place = str(await asyncio.to_thread(collection.resolve))
        name = session_name(criterion, prompt_set, [place, *source.asked])
        fresh = SessionRecord(
            name=name,
            criterion=criterion,
            policy=TEACHER,
            parameters=source.parameters.model_dump(mode="json"),
            prompt_set=prompt_set.model_dump(mode="json"),
            prompt_set_hash=prompt_set.hash,
            collection=place,
        )
        record = await asyncio.to_thread(_begun, db, fresh, source.found)
        stack.enter_context(session_lock(db, record.id, name))
        update_session(db, record.id, wish=None, progress=None)  # of a process that is gone
        rows = await asyncio.to_thread(add_items, db, record.id, source.found)
        hashes = {row.node: row.content_hash for row in rows if row.node is not None and row.content_hash is not None}
        # Held to a form as when it was begun: otherwise its questions would be others.
        constrain = bool(Parameters.model_validate(record.parameters).constrain)
        stored = source.parameters.model_copy(update={"constrain": constrain})
        update_session(db, record.id, status="running", why=None, parameters=stored.model_dump(mode="json"))
        if watch.on_named:
            watch.on_named(name)
        ledger = stack.enter_context(Ledger(db, record.id))
        asker = Asker(
            chat=source.chat,
            embedder=_NoEmbedder(),
            ledger=ledger,
            answers=await asyncio.to_thread(ledger.load),
            sampling=stored.sampling,
            gallery=source.gallery,
            concurrency=stored.concurrency,
            budget=source.budget,
            progress=watch.progress,
        )
        nodes = [hashes[node] for node in sorted(hashes)]
        taught = Teacher(asker, prompt_set, nodes, supervised=is_supervised(stored.model or ""))
        why: BaseException | None = None
        try:
            yield Teaching(taught, name, record.id, stored, source.found, source.values, source.notes)
        except BaseException as e:
            why = e
            raise
        finally:
            said = None if why is None else str(why) or type(why).__name__
            update_session(db, record.id, status=status_after(why), why=said, wish=None, progress=None)


def prospect(
    db: Database,
    collection: Path,
    found: Collection,
    criterion: str,
    prompt_set: PromptSet,
    teacher: str,
    *,
    column: str | None = None,
    model: str | None = None,
) -> Prospect:
    """What `teaching` would open. Asks nobody and begins nothing; of a URL's models, where none is named, the one that
    was asked last is taken for its first.

    Raises:
        UsageError: bad input.
    """
    place = str(collection.resolve())
    if not is_model(teacher):
        source = _of_labels(_csv(teacher), column, collection, found, prompt_set, criterion)
        name = session_name(criterion, prompt_set, [place, *source.asked])
        begun = [record.id for record in list_sessions(db) if record.name == name]
        return Prospect(begun[0] if begun else None, source.parameters, source.found, source.notes)
    p = _parameters({"endpoint": teacher, "model": model}, criterion, found)
    for record in list_sessions(db):
        asked = p.model_copy(update={"model": model or record.parameters.get("model")})
        if record.name == session_name(criterion, prompt_set, [place, *_asked_of(asked)]):
            return Prospect(record.id, asked, found)
    return Prospect(None, p, found)


def is_model(teacher: str) -> bool:
    """Whether a teacher is a model at an endpoint; otherwise it is a CSV with labels."""
    return teacher == EMBEDDED or re.match(r"https?://", teacher) is not None


def session_name(criterion: str, prompt_set: PromptSet, known_by: list[str]) -> str:
    """The name of the teacher's session for a criterion and whatever else it is known by: `teach-pose-1a2b3c4d`.

    Two spellings of a criterion that have one prompt set ask the same, and are one session.
    """
    words = criterion if prompt_set.name == "default" else prompt_set.name
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40].rstrip("-") or "criterion"
    return f"teach-{slug}-{hashlib.sha256(json.dumps([prompt_set.hash, *known_by]).encode()).hexdigest()[:8]}"


def _of_model(chat: Chat, parameters: Parameters, found: Collection, limits: Limits) -> _Source:
    # Embeddings are the learner's own: the teacher's are never asked for.
    p = parameters.model_copy(update={"embed_endpoint": None, "embed_model": None, "embed_mode": None})
    return _Source(
        chat=chat,
        gallery=Gallery(found.items, p.longest_side),
        parameters=p,
        budget=Budget(limits.max_calls, limits.max_cost, call_cost(limits.prices, p), go_on=_GO_ON),
        found=found,
        asked=_asked_of(p),
        values={},
    )


def _asked_of(p: Parameters) -> tuple[str, ...]:
    return ("model", p.endpoint, p.model or "", *(str(getattr(p, name)) for name in ASKED))


_GO_ON = "the same `partita train`"


def _of_labels(
    csv: Path,
    column: str | None,
    collection: Path,
    found: Collection,
    prompts: PromptSet,
    criterion: str,
) -> _Source:
    told = labelled(csv, column, collection, found, prompts, criterion)
    # As if on this machine: it costs nothing.
    p = Parameters(endpoint=EMBEDDED, model=SUPERVISED, constrain=False)
    return _Source(
        chat=LabelsTeacher(told.values, words_of(prompts)),
        gallery=HashGallery(),
        parameters=p,
        budget=Budget(),
        found=told.found,
        asked=("labels", hashlib.sha256(csv.read_bytes()).hexdigest(), told.column),
        values=told.values,
        notes=tuple(told.notes()),
    )


def _parameters(given: Mapping[str, Any], criterion: str, found: Collection) -> Parameters:
    try:
        parameters = make_parameters(given)
    except UsageError as error:  # options have other names here
        told = str(error).replace(CHAT.endpoint, ROLE.endpoint).replace(CHAT.model, ROLE.model)
        raise UsageError(told) from None
    check_built_in(parameters, criterion)
    check_kind(parameters, found)
    return parameters


def _csv(teacher: str) -> Path:
    path = Path(teacher).expanduser()
    if not path.is_file():
        raise UsageError(
            f"--teacher {teacher}: no such file, and no http(s) URL; give the base URL of an OpenAI-compatible API, or "
            "a CSV with labels"
        )
    return path


def _begun(db: Database, fresh: SessionRecord, found: Collection) -> SessionRecord:
    """The session of that name; it is begun where there is none."""
    try:
        record = load_session(db, fresh.name)
    except UnknownSession:
        try:
            return create_session(db, fresh, found)
        except SessionExists:  # begun by another process just now
            record = load_session(db, fresh.name)
    if record.policy != TEACHER:
        raise UsageError(f"session {fresh.name!r} is no teacher's: choose another database with --db")
    return record


class _NoEmbedder(Embedder):
    """Whoever teaches is not asked for embeddings."""

    async def embed_text(self, text: str, *, key: str) -> Vector:
        raise AssertionError("a teacher gives no embeddings")

    async def embed_messages(self, messages: list[dict[str, Any]], *, key: str) -> Vector:
        raise AssertionError("a teacher gives no embeddings")
