"""How long the pages of a large session take (`partita web`), without a model.

    python -m benchmarks.pages /tmp/large --items 5000            # makes the session, draws its map, asks for pages
    partita web --db sqlite:////tmp/large/large.db                # to look at it

The session is one that policy ``evidence`` would leave: the search is run against a simulated agent, its answers and
decisions are written as a run writes them, and the pictures are small JPEGs.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from sqlalchemy import insert
from starlette.testclient import TestClient

from benchmarks.evidence import Agent, World, answer
from graphs.asks import EvidenceSettings, MembershipAsk
from graphs.evidence import EvidenceSearch
from graphs.likeness import VECTORS, bytes_of, whole_vectors
from graphs.partition import PARTITION, NamedCluster, Partition
from graphs.relational import GRAPH, build_graph
from graphs.scheduling import window_for
from partita.prices import find_prices
from partita.web.app import build_app
from partita.web.desk import Desk
from storage import artefacts
from storage.database import Database, open_database
from storage.items import scan
from storage.sessions import SessionRecord, create_session
from storage.tables import answers, decisions

NAME = "large"
_BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def draw(folder: Path, kinds: np.ndarray) -> None:
    """A JPEG for each item, in its kind's colour and with its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for item, kind in enumerate(kinds.tolist()):
        colour = tuple(int(40 + 170 * ((kind * step) % 17) / 16) for step in (3, 7, 11))
        image = Image.new("RGB", (160, 120), colour)
        ImageDraw.Draw(image).text((50, 50), str(item), fill="white")
        image.save(folder / f"{item:06}.jpg", quality=80)


def make(db: Database, collection: Path, world: World, width: int, seed: int = 0) -> SessionRecord:
    """A finished session over pictures that are drawn into `collection`."""
    kinds, embeddings = world.collection(seed)
    draw(collection, kinds)
    record = SessionRecord(NAME, "kind", "evidence", str(collection), status="done")
    create_session(db, record, scan(collection))
    wide = np.random.default_rng(seed).normal(size=(embeddings.shape[1], width)) / width**0.5
    vectors = whole_vectors(embeddings @ wide)
    graph = build_graph(vectors.astype(np.float32), beta=None, threshold=None)
    search = EvidenceSearch(vectors, graph.degrees(), EvidenceSettings(window=window_for(world.items, 32)))
    rows, made = [_described(record.id, node, kind) for node, kind in enumerate(kinds.tolist())], []
    for row, decided in _judged(search, Agent(world, kinds, seed), record.id):
        rows.append(row)
        made.append({"answer": len(rows), "decided": decided})
    for number, row in enumerate(rows, 1):
        row |= {"id": number, "at": _BEGUN + timedelta(seconds=number / 10)}
    with db.writing() as connection:
        connection.execute(insert(answers), rows)
        connection.execute(insert(decisions), made)
    sure = dict(enumerate(search.confidence.round(4).tolist()))
    named = tuple(NamedCluster(f"kind {kinds[c[0]]} ({at})", tuple(c)) for at, c in enumerate(search.clusters, 1))
    artefacts.put(db, record.id, VECTORS, bytes_of(vectors))
    artefacts.put(db, record.id, GRAPH, graph.to_bytes())
    artefacts.put(db, record.id, PARTITION, Partition(named, sure).to_bytes())
    return record


def _judged(search: EvidenceSearch, agent: Agent, session: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    nodes = range(len(search.confidence))
    waiting = deque(search.questions())
    while waiting:
        ask = waiting.popleft()
        said = answer(agent, ask)
        made = [decision.to_json(nodes) for decision in search.apply(ask, said)]
        waiting.extend(search.questions())
        if isinstance(ask, MembershipAsk):
            subject = {"representatives": list(ask.representatives), "candidates": list(ask.candidates)}
        else:
            sides = [list(side) for side in ask.representatives]
            subject = {"representatives": sides, "clusters": sides}
        kind = "membership" if isinstance(ask, MembershipAsk) else "merge"
        yield _row(session, f"{kind} {ask.number}", kind, subject, ask.number, " ".join(said)), made


def _described(session: str, node: int, kind: int) -> dict[str, Any]:
    return _row(session, f"describe {node}", "describe", {"item": node}, None, None) | {"reply": f"kind {kind}"}


def _row(
    session: str, key: str, kind: str, subject: dict[str, Any], step: int | None, said: str | None
) -> dict[str, Any]:
    return {
        "session_id": session, "key": key, "kind": kind, "component": None, "step": step, "attempt": 0,
        "subject": subject, "prompt_hash": "", "reply": f"They look it. <CONCLUSION> {said} </CONCLUSION>",
        "conclusion": said, "reason": None if said is None else "They look it.", "model": "simulated",
        "prompt_tokens": 900, "completion_tokens": 20, "seconds": 0.5, "attempts": 1, "origin": "model",
    }  # fmt: skip


def main() -> None:
    """Make the session unless it is there, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--width", type=int, default=768, help="of an embedding")
    parser.add_argument("--error", type=float, default=0.03)
    asked = parser.parse_args()
    file = asked.folder / "large.db"
    fresh = not file.exists()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with open_database(f"sqlite:///{file}") as db:
        if fresh:
            world = World(items=asked.items, classes=asked.classes, shape="zipf", error=asked.error)
            make(db, asked.folder / "images", world, asked.width)
        desk = Desk(db, find_prices(None, None))
        with TestClient(build_app(desk)) as client:
            took("first page", client, f"/s/{NAME}")
            took("map page, not drawn", client, f"/s/{NAME}/map")
            took("clusters while drawing", client, f"/s/{NAME}")
            begun = time.perf_counter()
            desk.maps.settle()
            print(f"{'drawing, rest of':28} {time.perf_counter() - begun:8.2f} s")
            for path in ("map", "map/points", "map/clusters", "map/legend", "map/card/17", "map/drawn.svg"):
                took(path, client, f"/s/{NAME}/{path}")
            for path in ("tree", "i/17"):
                took(f"{path}, first time", client, f"/s/{NAME}/{path}")
                took(f"{path}, again", client, f"/s/{NAME}/{path}")


def took(what: str, client: TestClient, path: str) -> None:
    """Ask for a page and print how long it took and how large it is."""
    begun = time.perf_counter()
    answered = client.get(path)
    seconds = time.perf_counter() - begun
    print(f"{what:28} {seconds:8.3f} s {len(answered.content) / 1000:8.0f} kB  {answered.status_code}", flush=True)


if __name__ == "__main__":
    main()
