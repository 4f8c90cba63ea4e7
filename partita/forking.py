"""A session made from another with other prompts: only what the new words change is asked again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from agents.prompt_sets import PromptSet, QuestionKind, prompt_hash
from graphs.likeness import VECTORS
from graphs.relational import GRAPH
from partita.estimate import TakenOver
from partita.prompts import Chosen, choose, stored_set
from partita.result import TEACHER
from partita.session_names import check_name, free_name
from storage import artefacts
from storage.database import Database
from storage.errors import UsageError
from storage.forks import fork as store
from storage.forks import reused as reused_by
from storage.sessions import SessionRecord, list_sessions, load_session

_SETTLED = "settled"
"""The artefact with the kinds of questions of which a fork is likely to have no new ones: those that its prompts leave
as they are, where the other session was done and items are described alike."""
_KINDS: tuple[QuestionKind, ...] = ("describe", "membership", "merge")


@dataclass(frozen=True, slots=True)
class Forked:
    """What came of it."""

    session: str
    reused: Mapping[str, int]
    """Answers taken over, by kind."""
    again: tuple[str, ...]
    """Kinds of questions that the new prompts word otherwise."""

    def line(self) -> str:
        """In a sentence."""
        told = ", ".join(f"{number:,} {kind}" for kind, number in self.reused.items()) or "none"
        asked = f"{' and '.join(self.again)} questions are asked anew" if self.again else "the prompts are the same"
        return f"answers taken over: {told}; {asked}"


def asked_anew(old: PromptSet, new: PromptSet) -> tuple[QuestionKind, ...]:
    """Kinds of questions that the new prompts word otherwise."""
    return tuple(kind for kind in _KINDS if old.instruction(kind) != new.instruction(kind))


def fork(db: Database, name: str, prompts: str | Chosen, *, session: str | None = None) -> Forked:
    """Make a session from the session `name` with other prompts; `partita.running.go_on` runs it.

    Args:
        prompts: a set, or what names one: a file, a shipped set's name, or the hash of a version.

    Model, parameters, items, and people's corrections are those of the session it comes from.

    Raises:
        UnknownSession: no session of that name.
        UsageError: no such prompts, or the new session's name is taken or is none.
    """
    of = load_session(db, name)
    if of.policy == TEACHER:
        raise UsageError(f"session {name!r} holds a teacher's answers and has no clusters: there is nothing to fork")
    old = stored_set(of.prompt_set, of.prompt_set_hash)
    chosen = prompts if isinstance(prompts, Chosen) else choose(db, of.criterion, prompts)
    new = chosen.prompts
    asked: dict[str, str] = {kind: prompt_hash(new.instruction(kind)) for kind in _KINDS}
    again = asked_anew(old, new)
    taken = {one.name for one in list_sessions(db)}
    named = check_name(session) if session else free_name(of.criterion, taken)
    described = "describe" not in again
    record = SessionRecord(
        name=named, criterion=of.criterion, policy=of.policy, collection=of.collection, parameters=of.parameters,
        prompt_set=new.model_dump(mode="json"), prompt_set_hash=new.hash, status="paused",
    )  # fmt: skip
    # An embedding is of a description; with the same ones, the graph is the same, too.
    reused = store(
        db, of.id, record, asked | ({"embed": asked["describe"]} if described else {}),
        (GRAPH, VECTORS) if described else (),
    )  # fmt: skip
    settled = [kind for kind in _KINDS if kind not in again] if described and of.status == "done" else []
    artefacts.put(db, record.id, _SETTLED, json.dumps(settled).encode())
    chosen.kept_in(db)
    return Forked(named, reused, again)


def taken_over(db: Database, session_id: str) -> TakenOver:
    """What a session need not ask because another one has; nothing, if it is no fork."""
    settled = artefacts.get(db, session_id, _SETTLED)
    return TakenOver(reused_by(db, session_id), frozenset(json.loads(settled) if settled else ()))
