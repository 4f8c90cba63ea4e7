"""How quick the page is with a large session: from the start of the server, page by page, and in a browser.

    python -m benchmarks.web                              # 5,000 pictures, one cluster of 1,000, 17,000 answers
    python -m benchmarks.web --items 500 --json web.json
    python -m benchmarks.web --keep build/web             # the session stays there, and is used again

The session is written straight into a SQLite file, as a run leaves one: real JPEG files, answers with what was made of
them, embeddings, a partition. The server is `partita web` in a process of its own. Every page is asked of a server that
has shown nothing yet (*first*), and then again, of which the median is told (*again*). The browser is Debian's
chromium, where there is one; it is started beforehand, and its times end when the first picture of the clusters is
decoded. The bar is 2 s from asking for the page to that picture.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import insert

from graphs.likeness import VECTORS, bytes_of, whole_vectors
from graphs.partition import PARTITION, NamedCluster, Partition
from storage import artefacts
from storage.database import open_database
from storage.items import scan
from storage.sessions import SessionRecord, create_session
from storage.tables import answers, decisions, prompts

SESSION = "large"
WIDTH = 768
"""Of an embedding."""
ROOT = Path(__file__).resolve().parents[1]
_DECODED = """async () => {
  const first = document.querySelector(".tile img");
  await first.decode();
  return {pictures: document.images.length, page: performance.getEntriesByType("navigation")[0].responseStart,
          picture: performance.now(), wide: first.naturalWidth};
}"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the session is."""

    items: int
    largest: int
    """Items of the largest cluster; the others have about 100 each."""
    memberships: int

    @property
    def answers(self) -> int:
        """Answers in all."""
        return 2 * self.items + self.memberships + self.merges

    @property
    def merges(self) -> int:
        """Questions about two clusters."""
        return self.memberships // 20


def write(folder: Path, size: Size) -> str:
    """Pictures and a database with one finished session over them, if they are not there yet; the database's URL."""
    pictures, file = folder / "pictures", folder / "web.db"
    url = f"sqlite:///{file}"
    if file.exists():
        return url
    pictures.mkdir(parents=True)
    chance = np.random.default_rng(1)
    for number in range(size.items):
        _picture(chance, number).save(pictures / f"{number:05d}.jpg", quality=85)
    with open_database(url) as db:
        made = SessionRecord(SESSION, "kind", "evidence", str(pictures), status="done", seconds={"traverse": 600.0})
        made.parameters = {"model": "simulated", "embed_mode": "native", "longest_side": 768}
        create_session(db, made, scan(pictures))
        clusters = _clusters(size)
        sure = {v: round(0.5 + 0.5 * random.Random(v).random(), 4) for v in range(size.items)}
        artefacts.put(db, made.id, PARTITION, Partition(clusters, sure).to_bytes())
        vectors = chance.normal(size=(size.items, WIDTH)).astype(np.float32)
        artefacts.put(db, made.id, VECTORS, bytes_of(whole_vectors(vectors)))
        with db.writing() as connection:
            connection.execute(insert(prompts), {"hash": "asked", "text": "Do they agree in kind? " * 30})
            rows = list(_answers(made.id, size, clusters))
            connection.execute(insert(answers), [row for row, _ in rows])
            connection.execute(
                insert(decisions), [{"answer": row["id"], "decided": did} for row, did in rows if did is not None]
            )
    return url


def _picture(chance: np.random.Generator, number: int) -> Image.Image:
    """480 × 360 pixels, about 25 kB: soft colours and some grain."""
    soft = Image.fromarray(chance.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((480, 360))
    grain = np.asarray(soft, dtype=np.int16) + chance.integers(-12, 12, (360, 480, 1), dtype=np.int16)
    return Image.fromarray(grain.clip(0, 255).astype(np.uint8))


def _clusters(size: Size) -> tuple[NamedCluster, ...]:
    bounds = [0, size.largest, *range(size.largest + 100, size.items, 100), size.items]
    parts = [range(a, b) for a, b in pairwise(bounds) if b > a]
    return tuple(NamedCluster(f"kind {number}", tuple(nodes)) for number, nodes in enumerate(parts))


def _answers(
    session: str, size: Size, clusters: tuple[NamedCluster, ...]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]] | None]]:
    """Rows of the ledger, each with what was made of it."""
    chance, began = random.Random(1), datetime(2026, 1, 1, tzinfo=UTC)
    said = "They show the same kind of thing, in other colours and from another side. " * 3
    number = 0

    def row(kind: str, subject: dict[str, Any], reply: str, conclusion: str | None = None) -> dict[str, Any]:
        nonlocal number
        number += 1
        return {
            "id": number, "session_id": session, "key": f"{number:064x}", "kind": kind, "attempt": 0,
            "component": None if conclusion is None else 0, "step": None if conclusion is None else number,
            "subject": subject, "prompt_hash": "asked", "reply": reply, "conclusion": conclusion,
            "reason": None if conclusion is None else said, "model": "simulated", "prompt_tokens": 900,
            "completion_tokens": 60, "seconds": 0.4, "attempts": 1, "origin": "model",
            "at": began + timedelta(seconds=number / 20),
            "vector": np.zeros(WIDTH, dtype="<f4").tobytes() if kind == "embed" else None,
        }  # fmt: skip

    for node in range(size.items):
        yield row("describe", {"item": node}, "It is of a kind."), None
        yield row("embed", {"item": node}, ""), None
    for _ in range(size.memberships):
        cluster = chance.choice(clusters)
        candidate, shown = chance.choice(cluster.nodes), chance.sample(cluster.nodes, min(3, len(cluster.nodes)))
        did = [{"item": candidate, "odds": 5.2, "bound": 4.6, "did": "joined"}]
        yield row("membership", {"representatives": shown, "candidates": [candidate]}, said, "YES"), did
    for _ in range(size.merges if len(clusters) > 1 else 0):
        sides = [list(c.nodes[:3]) for c in chance.sample(clusters, 2)]
        did = [{"clusters": sides, "odds": -5.2, "bound": 4.6, "did": "apart"}]
        yield row("merge", {"representatives": sides, "clusters": sides}, said, "NO"), did


@dataclass(slots=True)
class Served:
    """`partita web` in a process of its own."""

    process: subprocess.Popen[str]
    base: str
    token: str
    ready: float
    """Seconds from starting the process to the line that it prints."""

    def memory(self, what: str) -> float | None:
        """`VmRSS` (now) or `VmHWM` (at most) in MB, where the system tells."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next((round(int(line.split()[1]) / 1000, 1) for line in lines if line.startswith(f"{what}:")), None)


@contextmanager
def served(url: str) -> Iterator[Served]:
    """A server that has shown nothing yet."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "partita", "web", "--db", url, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split(" at ")[-1].strip()
            base, _, token = address.partition("/?token=")
            yield Served(process, base, token, time.perf_counter() - began)
        finally:
            process.terminate()


def pages(size: Size) -> dict[str, str]:
    """What is asked for, by what it is called in the table."""
    shown = "side=192"
    return {
        "session": f"/s/{SESSION}",
        "the clusters alone, as a live page asks": f"/s/{SESSION}/sheet",
        "how far it is, as a live page asks": f"/s/{SESSION}/live",
        "largest cluster": f"/s/{SESSION}/c/1",
        "its next pictures": f"/s/{SESSION}/c/1/more?start={min(120, size.largest - 1)}",
        "least certain": f"/s/{SESSION}/doubts",
        "item": f"/s/{SESSION}/i/{size.items // 2}",
        "answer": f"/s/{SESSION}/a/{size.answers}",
        "picture": f"/s/{SESSION}/i/{size.items // 2}/picture?{shown}",
        "all sessions": "/",
    }


def measure(url: str, size: Size, rounds: int) -> dict[str, Any]:
    """Seconds of a start, milliseconds of pages, memory of the server after them."""
    rows = []
    with served(url) as server, httpx.Client(base_url=server.base, follow_redirects=True) as client:
        client.get(f"/?token={server.token}").raise_for_status()
        for what, path in pages(size).items():
            times = [_timed(lambda path=path: client.get(path)) for _ in range(1 + rounds)]
            first, again = times[0], times[1:]
            rows.append(
                {"page": what, "kB": first[1], "first_ms": first[0], "ms": statistics.median(ms for ms, _ in again)}
            )
        for number in range(min(720, size.items)):  # as many as the page of the session has
            client.get(f"/s/{SESSION}/i/{number}/picture?side=192").raise_for_status()
        memory, most = server.memory("VmRSS"), server.memory("VmHWM")
    return {"ready_s": round(server.ready, 3), "pages": rows, "memory_mb": memory, "most_mb": most}


def _timed(ask: Callable[[], httpx.Response]) -> tuple[float, float]:
    """Milliseconds, and kB."""
    began = time.perf_counter()
    answer = ask()
    took = time.perf_counter() - began
    answer.raise_for_status()
    return round(1000 * took, 2), round(len(answer.content) / 1000, 1)


def in_browser(url: str, executable: str, rounds: int) -> dict[str, Any]:
    """Milliseconds to the first byte and the first picture of the clusters, each time of a new server."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for _ in range(rounds):
            began = time.perf_counter()
            with served(url) as server:
                tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
                tab.goto(f"{server.base}/s/{SESSION}?token={server.token}", wait_until="commit")
                tab.wait_for_selector(".tile img", state="attached")
                told = tab.evaluate(_DECODED)
                assert told["wide"] > 0
                found.append(told | {"from_start": 1000 * (time.perf_counter() - began)})
                tab.context.close()
        browser.close()
    names = {"first_byte_ms": "page", "first_picture_ms": "picture", "start_to_picture_ms": "from_start"}
    return {name: round(statistics.median(one[key] for one in found)) for name, key in names.items()} | {
        "worst_picture_ms": round(max(one["picture"] for one in found))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--largest", type=int, default=1000, help="items of the largest cluster")
    parser.add_argument("--memberships", type=int, default=6600, help="questions whether an item belongs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the session, which is used again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args()
    size = Size(a.items, min(a.largest, a.items), a.memberships)
    with nullcontext(a.keep) if a.keep else tempfile.TemporaryDirectory(prefix="partita-bench-") as folder:
        url = write(Path(folder).absolute(), size)
        told: dict[str, Any] = vars_of(size) | measure(url, size, a.rounds)
        executable = shutil.which("chromium")
        told["browser"] = in_browser(url, executable, min(a.rounds, 3)) if executable else None
    print(f"{size.items:,} items, {size.answers:,} answers; ready {told['ready_s']:.2f} s after its start")
    print(f"{'page':42} {'kB':>8} {'first, ms':>10} {'again, ms':>10}")
    for row in told["pages"]:
        print(f"{row['page']:42} {row['kB']:8.1f} {row['first_ms']:10.1f} {row['ms']:10.1f}")
    print(f"memory {told['memory_mb']} MB, at most {told['most_mb']} MB")
    if told["browser"] is not None:
        print("in chromium: " + ", ".join(f"{name} {value:,}" for name, value in told["browser"].items()))
    if a.json:
        a.json.parent.mkdir(parents=True, exist_ok=True)
        a.json.write_text(json.dumps(told, indent=2) + "\n")


def vars_of(size: Size) -> dict[str, int]:
    """The sizes that a report names."""
    return {"items": size.items, "largest": size.largest, "answers": size.answers}


if __name__ == "__main__":
    main()
