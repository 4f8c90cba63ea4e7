"""Questions per item and NMI against the agent's error rate, over HTTP, all rivals beside each other.

    python -m benchmarks.search                              # 1,000 items, 0 to 10 % wrong answers, two seeds
    python -m benchmarks.search --items 200 --errors 0.03 --seeds 1 --json search.json

For each error rate and seed one endpoint (`benchmarks.endpoint`) answers sessions of policy ``evidence`` and ``paper``,
begun at the front door as a user begins them, and the published listing in lock step (`benchmarks.lockstep`). K-means,
which is told the number of clusters, and HDBSCAN, which finds it, see the same embeddings. Nobody sees a label. Answers
take no time, and two worlds run side by side: for time see `benchmarks.utilisation`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from agents.prompt_sets import choose_prompt_set
from benchmarks import lockstep
from benchmarks.endpoint import MODEL, number_of, serving, write_texts
from benchmarks.evidence import BAR, World, density, k_means, labels
from partita import Session, cluster
from storage.errors import Paused

BY = "kind"
"""The criterion."""
IN_FLIGHT = 32
MOST = 30
"""Questions per item after which a search is given up."""


def session(collection: Path, items: int, policy: str, url: str, folder: Path, **parameters: Any) -> dict[str, Any]:
    """Run a session at the front door, and say what it came to."""
    name, db = f"{policy}-{collection.stem}", f"sqlite:///{folder}/{policy}.db"
    began = time.perf_counter()
    try:
        result = cluster(
            collection, BY, session=name, db=db, endpoint=url, model=MODEL, embed_mode="native", policy=policy,
            concurrency=IN_FLIGHT, max_calls=(MOST + 1) * items, **parameters,
        )  # fmt: skip
    except Paused:
        result = Session(name, db).result()
    whole = time.perf_counter() - began
    found = labels([[number_of(name) for name in c.items] for c in result.clusters], items)
    calls = result.calls
    return {
        "label": found, "questions": calls["membership"] + calls["merge"], "status": result.status,
        "seconds": result.seconds["traverse"] + result.seconds["merge"], "whole_seconds": whole,
    }  # fmt: skip


def listing(embeddings: np.ndarray, url: str) -> dict[str, Any]:
    """The published listing in lock step on the same items."""
    items = len(embeddings)
    texts = [f"item {n}" for n in range(items)]
    prompts = choose_prompt_set(BY, None)
    work = lockstep.cluster(embeddings, texts, prompts, url, in_flight=IN_FLIGHT, most=MOST * items)
    listed = asyncio.run(work)
    return {
        "label": labels(listed.clusters, items), "questions": listed.questions, "seconds": listed.seconds,
        "rounds": listed.rounds,
    }  # fmt: skip


def measure(world: World, seed: int) -> list[dict[str, Any]]:
    """All rivals on one world; a row for each."""
    kinds, embeddings = world.collection(seed)
    with tempfile.TemporaryDirectory() as scratch, serving(world, seed) as endpoint:
        folder = Path(scratch)
        texts = write_texts(folder, world.items)
        outcomes: dict[str, dict[str, Any]] = {
            policy: session(texts, world.items, policy, endpoint.url, folder) for policy in ("evidence", "paper")
        }
        outcomes["lock-step listing"] = listing(embeddings, endpoint.url)
    outcomes["K-means"] = {"label": k_means(embeddings, world.classes)}
    outcomes["HDBSCAN"] = {"label": density(embeddings)}
    return [
        {
            "error": world.error, "seed": seed, "method": method, "items": world.items,
            "nmi": round(float(normalized_mutual_info_score(kinds, outcome["label"])), 4),
            "ari": round(float(adjusted_rand_score(kinds, outcome["label"])), 4),
            "questions_per_item": round(outcome.get("questions", 0) / world.items, 3),
            "clusters": len(set(outcome["label"].tolist())), "classes": len(set(kinds.tolist())),
        }
        for method, outcome in outcomes.items()
    ]  # fmt: skip


def measure_all(worlds: Sequence[World], seeds: Sequence[int], jobs: int) -> list[dict[str, Any]]:
    """All rivals on all worlds, `jobs` worlds at a time."""
    todo = [(world, seed) for world in worlds for seed in seeds]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = pool.map(measure, *zip(*todo, strict=True))
        return [row for part in rows for row in part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--errors", default="0,0.01,0.03,0.05,0.1", help="shares of wrong answers")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="worlds at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    a = parser.parse_args()
    worlds = [replace(BAR, items=a.items, error=float(e)) for e in a.errors.split(",")]
    rows = measure_all(worlds, [int(s) for s in a.seeds.split(",")], a.jobs)
    print("| error | seed | method | NMI | ARI | questions per item | clusters |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['error']:.0%} | {row['seed']} | {row['method']} | {row['nmi']:.4f} | {row['ari']:.4f} | "
            f"{row['questions_per_item']:.2f} | {row['clusters']}/{row['classes']} |"
        )
    if a.json:
        a.json.write_text(json.dumps({"world": vars(worlds[0]), "most": MOST, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
