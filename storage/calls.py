"""The calls of a session as the ledger has them: streamed, filtered, with the names of items for node numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Text, cast, func, literal, or_, select

from storage.corrections import HUMAN, said
from storage.corrections import KIND as CORRECTION
from storage.database import Database
from storage.errors import UsageError
from storage.shown import Subject, images_shown
from storage.tables import answers, decisions, items, prompts

ASSESSMENTS = ("membership", "merge")
KINDS = ("describe", "embed", *ASSESSMENTS)
"""Of calls to a model."""
TOLD = (*ASSESSMENTS, CORRECTION)
"""What a trace shows unless it is told otherwise: what agents judged, and what a person said."""
TRACED = (*KINDS, CORRECTION)
CONCLUSIONS = ("YES", "NO", "UNKNOWN")
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls are wanted: those for which everything holds that is given."""

    kinds: Collection[str] = ASSESSMENTS
    item: str | None = None
    """It takes part, as representative, candidate, or what was described or embedded."""
    cluster_items: Collection[str] | None = None
    """Any of these takes part."""
    conclusion: str | None = None
    """YES, NO or UNKNOWN: about the item, if it is a candidate; otherwise any of the conclusions."""
    since: datetime | None = None
    """Answered then or later."""
    until: datetime | None = None
    """Answered then or earlier."""
    model: str | None = None
    """The name that the endpoint answered with."""
    last: int | None = None
    """Only so many, the last ones."""
    only: int | None = None
    """The one with this id."""
    after: int | None = None
    """Those that were written after the one with this id."""
    story: Collection[str] | None = None
    """For ``item`` its story: besides, answers that decided about it, merges in which any of these took part, and the
    undoing of corrections that it takes part in."""


@dataclass(frozen=True, slots=True)
class Call:
    """One answered question, with names.

    Attributes:
        key: hash of everything that determines the question.
        about: ``representatives``, and ``clusters`` (merge) or ``candidates`` (otherwise; the only one is the item that
            was described or embedded). Of a person's correction the ``candidates`` are its items, the
            ``representatives`` the others that it names, and ``correction`` says what was done.
        conclusion: one for each candidate, joined by a space; None for describe and embed.
        decisions: what the search made of the answer, [] when nothing is known of it.
        prompt: the instruction, None where it is not kept.
        images: those that the question showed.
        seconds: from asking to the answer, which came ``at``; 0 for a question that the endpoint refused to take.
        attempts: requests it took, faults included.

    The rest is as in `storage.ledger.Answer`.
    """

    id: int
    key: str
    kind: str
    component: int | None
    step: int | None
    about: dict[str, Any]
    prompt: str | None
    prompt_hash: str
    reply: str
    conclusion: str | None
    decisions: list[dict[str, Any]]
    reason: str | None
    model: str
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    images: int
    seconds: float
    attempts: int
    origin: str
    at: datetime

    def takes_part(self) -> set[str]:
        """The items that the question was about."""
        return set(_flat(list(self.about.values())))


def calls(db: Database, session_id: str, wanted: Wanted) -> Iterator[Call]:
    """The calls that are wanted, in the order of writing. Items of the same content have the first one's name.

    Raises:
        UsageError: no such kind, conclusion or item in the session.
    """
    for kind in wanted.kinds:
        if kind not in TRACED:
            raise UsageError(f"There is no kind {kind!r} of answer: --kind takes {', '.join(TRACED)}.")
    if wanted.conclusion is not None and wanted.conclusion not in CONCLUSIONS:
        raise UsageError(f"There is no conclusion {wanted.conclusion!r}: --conclusion takes {', '.join(CONCLUSIONS)}.")
    with db.reading() as connection:
        images = images_shown(connection, session_id)
        names, shown = _all_names(connection, session_id)
    nodes: list[int] = []
    undoing: frozenset[int] = frozenset()
    if wanted.item is not None:
        name = _require(wanted.item, shown)
        nodes = [node for node, called in names.items() if called == name]
        if wanted.story is not None:
            undoing = _undoing(db, session_id, nodes)

    def as_shown(given: Collection[str] | None) -> frozenset[str] | None:
        return None if given is None else frozenset(shown.get(name, name) for name in given)

    fits = _Fits(
        None if wanted.item is None else shown[wanted.item],
        as_shown(wanted.cluster_items),
        as_shown(wanted.story),
        undoing,
        wanted.conclusion,
    )
    return _streamed(
        db, _query(session_id, wanted, nodes, undoing), lambda row: _call(row, names, images), fits, wanted.last
    )


def name_in_calls(db: Database, session_id: str, item: str) -> str:
    """The name that an item has in calls: that of the first one of the same content.

    Raises:
        UsageError: there is no such item in the session.
    """
    with db.reading() as connection:
        _, shown = _all_names(connection, session_id)
    return _require(item, shown)


def _undoing(db: Database, session_id: str, nodes: Collection[int]) -> frozenset[int]:
    """Ids of what undoes a correction in which any of these takes part, or brings it back."""
    about: set[int] = set()
    undoing: set[int] = set()
    for one in said(db, session_id):
        if one.subject["did"] == "undo":
            if one.subject["of"] in about | undoing:
                undoing.add(one.id)
        elif not set(nodes).isdisjoint((*one.subject["items"], *one.subject["others"])):
            about.add(one.id)
    return frozenset(undoing)


def _all_names(connection: Connection, session_id: str) -> tuple[dict[int, str], dict[str, str]]:
    """The name of each node, and for each item's name the one that it has in calls."""
    listed = connection.execute(
        select(items.c.node, items.c.name).where(items.c.session_id == session_id).order_by(items.c.position)
    )
    names: dict[int, str] = {}
    shown: dict[str, str] = {}
    for node, name in listed:
        shown.setdefault(name, name if node is None else names.setdefault(node, name))
    return names, shown


def _require(item: str, shown: Mapping[str, str]) -> str:
    if item in shown:
        return shown[item]
    alike = [name for name in shown if name.endswith(f"/{item}")][:3]
    meant = f"did you mean {' or '.join(map(repr, alike))}?" if alike else "`partita show --json` lists them."
    raise UsageError(f"There is no item {item!r} in this session: {meant}")


@dataclass(frozen=True, slots=True)
class _Fits:
    """What of a wish the database is not asked for, or not exactly: it would have to look into JSON."""

    item: str | None
    cluster: frozenset[str] | None
    story: frozenset[str] | None
    undoing: frozenset[int]
    conclusion: str | None

    def __call__(self, call: Call) -> bool:
        taking_part = call.takes_part()
        if self.item is not None and self.item not in taking_part and not self._in_its_story(call, taking_part):
            return False
        if self.cluster is not None and not self.cluster & taking_part:
            return False
        candidates = call.about.get("candidates", [])
        if self.conclusion is not None and self.item in candidates:
            said = (call.conclusion or "").split()
            return said[candidates.index(self.item)] == self.conclusion if len(said) == len(candidates) else True
        return True

    def _in_its_story(self, call: Call, taking_part: set[str]) -> bool:
        if self.story is None:
            return False
        is_its_merge = call.kind == "merge" and bool(self.story & taking_part)
        return is_its_merge or call.id in self.undoing or _decided_about(call.decisions, self.item)


def _decided_about(made: list[dict[str, Any]], item: str | None) -> bool:
    """Whether any of these decisions is about the item."""
    return any(one.get("item") == item or item in one.get("items", ()) for one in made)


def _query(session_id: str, wanted: Wanted, nodes: Collection[int], undoing: Collection[int]) -> Select[Any]:
    """What the database can tell of a wish. Of its item, whose ``nodes`` are given, more than is wanted may come."""
    query = (
        select(
            *(column for column in answers.c if column.name != "vector"),
            prompts.c.text.label("prompt"),
            decisions.c.decided,
        )
        .select_from(answers)
        .outerjoin(prompts, prompts.c.hash == answers.c.prompt_hash)
        .outerjoin(decisions, decisions.c.answer == answers.c.id)
        .where(answers.c.session_id == session_id, answers.c.kind.in_(wanted.kinds))
        .limit(_PAGE)
    )
    if wanted.item is not None:
        about = (answers.c.subject, decisions.c.decided)
        anywhere = [_holds(column, node) for column in about for node in nodes]
        if wanted.story is not None:
            anywhere += [answers.c.kind == "merge", answers.c.id.in_(undoing)]
        query = query.where(or_(literal(False), *anywhere))
    if wanted.after is not None:
        query = query.where(answers.c.id > wanted.after)
    if wanted.only is not None:
        query = query.where(answers.c.id == wanted.only)
    if wanted.conclusion is not None:
        spaced = literal(" ").concat(answers.c.conclusion).concat(" ")
        query = query.where(spaced.contains(f" {wanted.conclusion} "))
    if wanted.since is not None:
        query = query.where(answers.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(answers.c.at <= wanted.until)
    if wanted.model is not None:
        query = query.where(answers.c.model == wanted.model)
    return query


def _holds(column: ColumnElement[Any], number: int) -> ColumnElement[bool]:
    """Whether a number stands somewhere in JSON: thousands of answers to be looked through for one item are many to
    read, and both databases compare texts in no time."""
    spaced: ColumnElement[str] = cast(column, Text)
    for sign in "[]:} ":
        spaced = func.replace(spaced, sign, ",")
    return spaced.contains(f",{number},")


def _streamed(
    db: Database,
    query: Select[Any],
    call_of: Callable[[RowMapping], Call],
    fits: Callable[[Call], bool],
    last: int | None,
) -> Iterator[Call]:
    """All that fit, or the last so many. These are looked for from the end, so that only their ids are held."""
    if last is not None:
        ids: list[int] = []
        for row in _rows(db, query, backwards=True):
            if len(ids) == last:
                break
            if fits(call_of(row)):
                ids.append(row["id"])
        if not ids:
            return
        query = query.where(answers.c.id >= ids[-1], answers.c.id <= ids[0])
    for row in _rows(db, query):
        call = call_of(row)
        if fits(call):
            yield call


def _rows(db: Database, query: Select[Any], *, backwards: bool = False) -> Iterator[RowMapping]:
    """Page by page, each in a transaction of its own: whoever reads may be slow, or stop in the middle."""
    query = query.order_by(answers.c.id.desc() if backwards else answers.c.id)
    reached = None
    while True:
        if reached is None:
            page = query
        else:
            page = query.where(answers.c.id < reached if backwards else answers.c.id > reached)
        with db.reading() as connection:
            rows = connection.execute(page).mappings().all()
        yield from rows
        if len(rows) < _PAGE:
            return
        reached = rows[-1]["id"]


def _call(row: RowMapping, names: dict[int, str], images: Callable[[str, Subject], int]) -> Call:
    plain = (
        *("id", "key", "kind", "component", "step", "prompt", "prompt_hash", "reply", "conclusion", "reason", "model"),
        *("prompt_tokens", "cached_tokens", "completion_tokens", "seconds", "attempts", "origin", "at"),
    )
    return Call(
        **{name: row[name] for name in plain},
        about=_about(row["kind"], row["subject"], names),
        decisions=[_decision(one, names) for one in row["decided"] or []],
        images=images(row["kind"], row["subject"]),
    )


def _about(kind: str, subject: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    representatives = _named(subject.get("representatives", []), names)
    if kind == "merge":
        clusters = subject.get("clusters", [])
        # Bare numbers here are ids of clusters; only lists of numbers are nodes.
        named = [_named(cluster, names) if isinstance(cluster, list) else cluster for cluster in clusters]
        return {"representatives": representatives, "clusters": named}
    if kind == CORRECTION:
        said = {what: subject.get(what) for what in ("did", "name", "of")}
        items, others = (_named(subject.get(what, []), names) for what in ("items", "others"))
        return {"representatives": others, "candidates": items, "correction": said}
    candidates = [subject["item"]] if "item" in subject else subject.get("candidates", [])
    return {"representatives": representatives, "candidates": _named(candidates, names)}


def _decision(decision: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    return {
        what: _named(value, names) if what in ("item", "items", "clusters") else value
        for what, value in decision.items()
    }


def _named(value: Any, names: dict[int, str]) -> Any:
    if isinstance(value, list):
        return [_named(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, int) else value


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _flat(inner)
    elif isinstance(value, str):
        yield value


@dataclass(frozen=True, slots=True)
class Held:
    """So many calls of one kind, conclusion and model are in the ledger, and when they were answered."""

    kind: str
    conclusion: str | None
    model: str
    calls: int
    first: datetime
    last: datetime


def held(db: Database, session_id: str) -> list[Held]:
    """What the ledger has of a session, by kind, conclusion and model."""
    by = (answers.c.kind, answers.c.conclusion, answers.c.model)
    query = (
        select(*by, func.count(), func.min(answers.c.at), func.max(answers.c.at))
        .where(answers.c.session_id == session_id)
        .group_by(*by)
        .order_by(*by)
    )
    with db.reading() as connection:
        return [Held(*row) for row in connection.execute(query)]


def extents(db: Database, session_id: str) -> dict[tuple[str, int | None], tuple[datetime, datetime]]:
    """When the calls of each kind and component were made: from the first one's asking to the last one's answer."""
    found: dict[tuple[str, int | None], tuple[datetime, datetime]] = {}
    query = select(answers.c.kind, answers.c.component, answers.c.at, answers.c.seconds)
    with db.reading() as connection:
        query = query.where(answers.c.session_id == session_id, answers.c.origin != HUMAN)
        rows = connection.execution_options(yield_per=_PAGE).execute(query)
        for kind, component, at, seconds in rows:
            begun, ended = found.get((kind, component), (at, at))
            found[kind, component] = min(begun, at - timedelta(seconds=seconds)), max(ended, at)
    return found
