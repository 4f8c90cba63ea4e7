"""How busy a session keeps the endpoint: wall time over (sum of answer times / calls in flight).

    python -m benchmarks.utilisation                          # 1,500 pictures in one component, answers of 200 ms
    python -m benchmarks.utilisation --items 300 --beside 100 --json utilisation.json

The endpoint (`benchmarks.endpoint`) is in a process of its own and answers after 100 to 300 ms; the answer times are
those that it drew, so whatever it needs besides counts against us. 1 is an endpoint that is never kept waiting. Policy
``evidence`` clusters pictures, three representatives and a candidate a call, in one component (τ is given). Beside it,
on a smaller world of texts, ``evidence``, ``paper`` and the published listing in lock step. The time is that of
traversal and merge.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from benchmarks.endpoint import Served, picture, serving, write_pictures, write_texts
from benchmarks.evidence import BAR, World
from benchmarks.search import IN_FLIGHT, listing, session
from graphs.relational import build_graph
from serving.images import encode_image

SEED = 1


def whole(embeddings: np.ndarray) -> float:
    """A τ that leaves all items in one component."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for threshold in np.arange(0.999, 0.5, -0.001):
        graph = build_graph(unit, beta=None, threshold=float(threshold))
        if len(graph.components()) == 1:
            return float(threshold)
    raise AssertionError("these embeddings fall apart")


def busy(world: World, endpoint: Served, what: str, shown: str, search: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a search and say how busy it kept the endpoint."""
    endpoint.spent()
    outcome = search()
    answers = endpoint.seconds()
    kinds, _ = world.collection(SEED)
    return {
        "what": what, "items": world.items, "shown": shown, "error": world.error, "seed": SEED,
        "questions": outcome["questions"],
        "answer_seconds": round(answers, 2), "wall_seconds": round(outcome["seconds"], 2),
        "ratio": round(outcome["seconds"] / (answers / IN_FLIGHT), 3),
        "nmi": round(float(normalized_mutual_info_score(kinds, outcome["label"])), 4),
        "clusters": len(set(outcome["label"].tolist())), "classes": len(set(kinds.tolist())),
    }  # fmt: skip


def one_component(world: World, latency: float) -> dict[str, Any]:
    """Policy ``evidence`` on pictures in one component."""
    threshold = whole(world.collection(SEED)[1])
    with tempfile.TemporaryDirectory() as scratch, serving(world, SEED, latency) as endpoint:
        folder = Path(scratch)
        pictures = write_pictures(folder, world.items)

        def search() -> dict[str, Any]:
            return session(pictures, world.items, "evidence", endpoint.url, folder, threshold=threshold)

        return busy(world, endpoint, "evidence, one component", "pictures", search)


def beside(world: World, latency: float) -> list[dict[str, Any]]:
    """The policies and the listing on texts."""
    _, embeddings = world.collection(SEED)
    with tempfile.TemporaryDirectory() as scratch, serving(world, SEED, latency) as endpoint:
        folder = Path(scratch)
        texts = write_texts(folder, world.items)
        searches: dict[str, Callable[[], dict[str, Any]]] = {
            "evidence": lambda: session(texts, world.items, "evidence", endpoint.url, folder),
            "paper": lambda: session(texts, world.items, "paper", endpoint.url, folder),
            "lock-step listing": lambda: listing(embeddings, endpoint.url),
        }
        return [busy(world, endpoint, what, "texts", search) for what, search in searches.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1500, help="pictures")
    parser.add_argument("--beside", type=int, default=300, help="texts; 0: leave them out")
    parser.add_argument("--errors", default="0,0.03", help="shares of wrong answers, for the pictures")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    a = parser.parse_args()
    worlds = [replace(BAR, items=a.items, error=float(e)) for e in a.errors.split(",")]
    rows = []
    print("| search | items | error | questions | answers, s | wall, s | wall / (answers / 32) | NMI | clusters |")
    print("|---|---|---|---|---|---|---|---|---|")
    for world in worlds:
        rows.append(one_component(world, a.latency))
        print(_line(rows[-1]), flush=True)
    if a.beside:
        for row in beside(replace(BAR, items=a.beside, error=0.03), a.latency):
            rows.append(row)
            print(_line(row), flush=True)
    if a.json:
        picture_kb = round(len(encode_image(picture(0))) / 1000)
        report = {"latency": a.latency, "in_flight": IN_FLIGHT, "picture_kb": picture_kb, "rows": rows}
        a.json.write_text(json.dumps(report, indent=1) + "\n")


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['what']} | {row['items']} {row['shown']} | {row['error']:.0%} | {row['questions']} | "
        f"{row['answer_seconds']} | {row['wall_seconds']} | {row['ratio']} | {row['nmi']} | "
        f"{row['clusters']}/{row['classes']} |"
    )


if __name__ == "__main__":
    main()
