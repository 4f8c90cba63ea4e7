"""Running sessions: begin one, or go on with one, on one database and under one lock."""

from __future__ import annotations

import asyncio
import math
import shlex
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from agents.prompt_sets import PromptSet
from graphs.asking import Asker
from graphs.budget import Budget
from graphs.relational import GRAPH
from partita.endpoints import Connection, check_built_in, check_kind, connect
from partita.expected import expected, measured
from partita.forking import taken_over
from partita.gallery import Gallery
from partita.keys import Keys
from partita.live import Live
from partita.prices import Prices, call_cost, load_prices
from partita.prompts import choose
from partita.result import TEACHER
from partita.session_names import check_name, free_name
from partita.settings import LOCAL, Parameters, make_parameters
from partita.watch import Watch
from storage import artefacts
from storage.checkpoints import open_checkpointer
from storage.database import Database
from storage.errors import ModelUnknown, Paused, SessionExists, UsageError
from storage.items import Collection, collection_from_rows, scan
from storage.ledger import Ledger, tally
from storage.locks import session_lock
from storage.sessions import SessionRecord, create_session, list_sessions, load_items, load_session, update_session

T = TypeVar("T")
STAGES = ("embed", "graph", "traverse", "merge")
"""What a session's time is told apart by (CONTRACT 3)."""
GRACE = 5.0
"""Seconds that calls in flight get to finish after the first Ctrl-C, or when a pause is asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may spend in all, and what things cost."""

    max_calls: int | None = None
    max_cost: float | None = None
    """In USD."""
    prices: Prices = field(default_factory=load_prices)

    def __post_init__(self) -> None:
        if self.max_cost is not None and not (math.isfinite(self.max_cost) and self.max_cost >= 0):
            raise UsageError(f"--max-cost {self.max_cost}: give an amount in USD, or leave it out")


async def begin(
    db: Database,
    collection: Path,
    criterion: str,
    parameters: Parameters,
    *,
    name: str | None = None,
    prompts: str | None = None,
    keys: Keys | None = None,
    limits: Limits | None = None,
    watch: Watch | None = None,
) -> str:
    """Begin a session and run it to its end; returns its name.

    Raises:
        UsageError: bad input; nothing was begun.
        EndpointError: the endpoint can't be used; what was begun is kept.
        Paused: the session is kept and can be resumed.
    """
    watch = watch or Watch()
    criterion = criterion.strip()
    if not criterion:
        raise UsageError("--by: the criterion is empty; say in words what to cluster by, e.g. --by suit")
    chosen = choose(db, criterion, prompts)
    prompt_set = chosen.prompts
    check_built_in(parameters, criterion)
    taken = {session.name for session in list_sessions(db)}
    named = free_name(criterion, taken) if name is None else check_name(name)
    if named in taken:
        raise SessionExists(
            f"there is a session {named!r} already: `partita resume {named}` goes on with it; or name another"
        )
    found = await scanned(collection, watch)
    check_kind(parameters, found)
    parameters = parameters.model_copy(update={"window": _window(parameters, found)})
    async with connect(parameters, keys, watch.on_note) as connection:
        record = SessionRecord(
            name=named,
            criterion=criterion,
            policy=parameters.policy,
            parameters=connection.parameters.model_dump(mode="json"),
            prompt_set=prompt_set.model_dump(mode="json"),
            prompt_set_hash=prompt_set.hash,
            collection=str(await asyncio.to_thread(collection.resolve)),
        )
        with session_lock(db, record.id, named):
            await asyncio.to_thread(create_session, db, record, found)
            await asyncio.to_thread(chosen.kept_in, db)
            if watch.on_named:
                watch.on_named(named)
            await _work(db, record, found, prompt_set, connection, limits or Limits(), watch)
    return named


def _window(p: Parameters, found: Collection) -> int:
    """W of CONTRACT 6, which stays with the session."""
    from graphs.scheduling import window_for

    if p.policy == "paper":
        return 1
    calls = math.ceil(len({item.content_hash for item in found.items}) / p.candidates)
    return p.window or window_for(calls, p.concurrency)


async def scanned(collection: Path, watch: Watch) -> Collection:
    """Read the collection in a thread that ends when we are cancelled."""
    cancelled = False

    def tick(done: int, total: int) -> None:
        if cancelled:
            raise Paused("stopped while the collection was read; nothing was begun")
        if watch.on_scan:
            watch.on_scan(done, total)

    try:
        return await asyncio.to_thread(scan, collection, tick)
    except asyncio.CancelledError:
        cancelled = True
        raise


async def go_on(
    db: Database,
    name: str,
    *,
    changes: Mapping[str, Any] | None = None,
    keys: Keys | None = None,
    limits: Limits | None = None,
    watch: Watch | None = None,
) -> None:
    """Go on with a session where its ledger ends; one that is done is left as it is.

    ``changes`` are parameters that may differ from the stored ones: those that change no question.

    Raises:
        UnknownSession, SessionBusy, and what ``begin`` raises.
    """
    watch = watch or Watch()
    record = load_session(db, name)
    if record.policy == TEACHER:
        again = f"`partita train ... {shlex.quote(record.collection)} --by {shlex.quote(record.criterion)}`"
        raise UsageError(f"session {name!r} holds a teacher's answers: {again} with the same teacher goes on from here")
    with session_lock(db, record.id, name):
        if watch.on_named:
            watch.on_named(name)
        record = load_session(db, name)
        if record.status == "done":
            if watch.on_note:
                watch.on_note(f"session {name!r} was done already: nobody was asked anything")
            return
        update_session(db, record.id, wish=None, progress=None)  # of a process that is gone
        stored = Parameters.model_validate({"constrain": False} | record.parameters)  # keys of older sessions stay
        changes = dict(changes or {})
        embedded = bool(tally(db, record.id).get("embed"))
        if not embedded:
            stored = _open_to_others(stored, changes.get("embed_endpoint"))
        if changes.get("endpoint") and not changes.get("embed_endpoint") and stored.embed_endpoint == stored.endpoint:
            changes["embed_endpoint"] = changes["endpoint"]
        parameters = make_parameters(changes, base=stored)
        if embedded and parameters.embed_model != stored.embed_model:
            raise UsageError(
                f"--embed-model {changes['embed_model']}: the session's embeddings are those of "
                f"{stored.embed_model!r}; give a folder of that name, or begin a new session"
            )
        if parameters.model != stored.model:
            raise UsageError(
                f"--model {changes['model']}: the session's answers are those of {stored.model!r}, and this is "
                f"{parameters.model!r}: name the same model's folder, or begin a new session"
            )
        prompt_set = PromptSet.model_validate(record.prompt_set)
        found = collection_from_rows(record.collection, load_items(db, record.id))
        try:
            async with connect(parameters, keys, watch.on_note) as connection:
                await _work(db, record, found, prompt_set, connection, limits or Limits(), watch)
        except ModelUnknown as e:
            said = str(e).partition(": ")[0] if "has no model" in str(e) else str(e)
            raise ModelUnknown(
                f"{said}: the session's questions were for {stored.model!r} and {stored.embed_model!r}; "
                "name an endpoint that serves them, or begin a new session"
            ) from e


def _open_to_others(stored: Parameters, embed_endpoint: str | None) -> Parameters:
    """A session that has embedded nothing yet, for embeddings from an endpoint that is named now: whose model it was is
    forgotten where nobody chose it, and where it can't be meant."""
    if embed_endpoint == LOCAL:
        return stored.model_copy(update={"embed_model": None, "embed_folder": None, "embed_mode": "caption"})
    if embed_endpoint and stored.embed_model == stored.model:
        return stored.model_copy(update={"embed_model": None})
    return stored


async def _work(
    db: Database,
    record: SessionRecord,
    found: Collection,
    prompt_set: PromptSet,
    connection: Connection,
    limits: Limits,
    watch: Watch,
) -> None:
    # With them comes LangGraph, which takes a second: who only has a question, or makes a slip, does not wait for it.
    from graphs.context import SessionContext
    from graphs.session import run_session

    p = connection.parameters
    assert p.model and p.embed_model and p.embed_mode

    def store_seconds(spent: Mapping[str, float]) -> None:
        seconds = {k: round(record.seconds.get(k, 0.0) + spent.get(k, 0.0), 3) for k in STAGES}
        update_session(db, record.id, seconds=seconds)

    if watch.on_note:
        for doubt in prompt_set.doubts():
            watch.on_note(f"prompts: {doubt}")
    update_session(db, record.id, status="running", why=None, parameters=p.model_dump(mode="json"))
    store_seconds({})
    with Ledger(db, record.id) as ledger:
        graph_is_there = artefacts.get(db, record.id, GRAPH) is not None
        known = await asyncio.to_thread(ledger.load_decided)

        def decided(key: str, decisions: list[dict[str, Any]]) -> None:
            if key not in known:
                ledger.decided(key, decisions)

        asker = Asker(
            chat=connection.chat,
            embedder=connection.embedder,
            ledger=ledger,
            answers=await asyncio.to_thread(lambda: ledger.load(vectors=not graph_is_there)),
            sampling=p.sampling,
            gallery=Gallery(found.items, p.longest_side),
            concurrency=p.concurrency,
            budget=Budget(limits.max_calls, limits.max_cost, call_cost(limits.prices, p), record.name),
            progress=watch.progress,
        )
        live = Live(db, record.id, watch.progress)
        if watch.on_expected:
            took = await asyncio.to_thread(measured, db, p)
            taken = await asyncio.to_thread(taken_over, db, record.id)
            would = partial(expected, max_calls=limits.max_calls, max_cost=limits.max_cost, taken=taken)
            estimate = await asyncio.to_thread(would, found, prompt_set, p, limits.prices, took)
            live.expected = estimate.calls.likely
            watch.on_expected(estimate)
        why: BaseException | None = None
        try:
            async with open_checkpointer(db, thin=True) as checkpointer:
                context = SessionContext(
                    session=uuid.UUID(record.id),
                    prompts=prompt_set,
                    hashes=list(dict.fromkeys(item.content_hash for item in found.items)),
                    asker=asker,
                    load_artefact=partial(artefacts.get, db, record.id),
                    store_artefact=partial(artefacts.put, db, record.id),
                    store_seconds=store_seconds,
                    store_decisions=decided,
                    embed_mode=p.embed_mode,
                    embed_model=p.embed_model,
                    beta=connection.beta,
                    threshold=p.threshold if p.threshold or p.calibrate else connection.threshold,
                    policy=p.policy,
                    representatives=p.representatives,
                    window=p.window,
                    candidates=p.candidates,
                    checkpointer=checkpointer,
                )
                again = f"`partita resume {record.name}` goes on from here"
                await until_stopped(run_session(context), asker, again, live)
                if context.isolated and watch.on_note:
                    why_one = next(iter(context.isolated.values()))
                    watch.on_note(f"{len(context.isolated)} items could not be described and stand alone: {why_one}")
        except BaseException as e:
            why = e
            raise
        finally:
            said = None if why is None else str(why) or type(why).__name__
            update_session(db, record.id, status=status_after(why), why=said, wish=None, progress=None)
    watch.progress.stage = "done"


def status_after(why: BaseException | None) -> Literal["done", "paused", "failed"]:
    """What a session is when work on it has ended so; None: in order."""
    if why is None:
        return "done"
    return "paused" if isinstance(why, Paused | KeyboardInterrupt | asyncio.CancelledError) else "failed"


async def until_stopped(
    work: Coroutine[Any, Any, T],
    asker: Asker,
    go_on: str,
    live: Live | None = None,
    on_stop: Callable[[Paused], None] | None = None,
) -> T:
    """What ``work`` comes to; on Ctrl-C or SIGTERM, or when another process asks for a pause, calls in flight get a few
    seconds to end and be recorded.

    Args:
        go_on: how the user goes on after that.
        live: the session that it is work on, to be heard and told of.
        on_stop: told when it is to stop.

    Raises:
        Paused: it was stopped.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    paused: Paused | None = None
    signalled = False

    def stop(why: str) -> None:
        nonlocal paused
        if paused is not None:
            return
        paused = Paused(f"{why}; {go_on}")
        asker.stop(paused)
        if on_stop is not None:
            on_stop(paused)
        loop.call_later(GRACE, task.cancel)

    def interrupt() -> None:
        nonlocal signalled
        if signalled:
            task.cancel()
        signalled = True
        stop("stopped")

    def pause() -> None:
        loop.call_soon_threadsafe(stop, "asked to pause")

    with _on_signals(loop, interrupt), live.heeded(pause) if live else nullcontext():
        try:
            return await task
        except asyncio.CancelledError:
            if paused is not None:
                raise paused from None
            raise


@contextmanager
def _on_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM where that is possible: in the main thread, on POSIX."""
    caught = []
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous = signal.getsignal(number)
            loop.add_signal_handler(number, stop)
            caught.append((number, previous))
        except (NotImplementedError, RuntimeError, ValueError):
            continue  # not POSIX, or not the main thread (a notebook): Ctrl-C then is Python's own
    try:
        yield
    finally:
        for number, previous in caught:
            loop.remove_signal_handler(number)
            signal.signal(number, previous)
