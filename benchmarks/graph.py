"""Time and memory of the relational graph beside the bare matrix product.

    python -m benchmarks.graph                                 # 10,000 and 60,000 items x 768
    python -m benchmarks.graph --sizes 5000 --json graph.json
    python -m benchmarks.graph --approximate                   # and 200,000 x 64 by the approximate index

Every figure comes from a process of its own, so peak memory is its own. The bare product multiplies the unit rows by
all others, tile by tile of the same size as the graph's, and keeps nothing; what a process needs before it begins
(Python, NumPy, the embeddings) is in its peak memory too. Embeddings are 100 centres and noise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np

from graphs import alike, approximate, relational
from graphs.relational import build_graph

CLASSES = 100
NOISE = 1.2
GIVEN = 0.9984
"""The given τ, with β 1/0.07: a cosine of 0.45, which has a few dozen neighbours for each of 60,000 items."""
SAMPLE = 500
NEAREST = 15


def collection(items: int, width: int) -> np.ndarray:
    """(items, width) float32, made in parts so that making them needs no memory to speak of."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, width)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    out = np.empty((items, width), dtype=np.float32)
    for start in range(0, items, 1024):
        part = out[start : start + 1024]
        rng.standard_normal(dtype=np.float32, out=part)
        part *= NOISE / np.sqrt(width)
        part += centres[rng.integers(CLASSES, size=len(part))]
    return out


def product(embeddings: np.ndarray) -> None:
    """The bare product of unit rows."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    room = np.empty(alike.BLOCK * alike.WIDTH, dtype=np.float32)
    for i in range(0, len(unit), alike.BLOCK):
        rows = unit[i : i + alike.BLOCK]
        for j in range(0, len(unit), alike.WIDTH):
            columns = unit[j : j + alike.WIDTH]
            np.matmul(rows, columns.T, out=room[: len(rows) * len(columns)].reshape(len(rows), len(columns)))


def recall(embeddings: np.ndarray) -> float:
    """Share of the nearest of some items that are within the index's lists."""
    _, unit = relational._unit_rows(embeddings)
    some = np.linspace(0, len(unit) - 1, SAMPLE).astype(np.int64)
    true = alike.nearest(unit, some, NEAREST).items
    found = approximate.Index(unit).nearest(some, NEAREST).items
    return float(np.mean([len(np.intersect1d(a, b)) / NEAREST for a, b in zip(true, found, strict=True)]))


def measure(what: str, items: int, width: int) -> dict[str, object]:
    """One figure; runs in a process of its own."""
    embeddings = collection(items, width)
    if what != "approximate":
        relational.EXACT = items
    began = time.perf_counter()
    graph = None
    if what == "product":
        product(embeddings)
    else:
        graph = build_graph(embeddings, beta=None, threshold=GIVEN if what == "given" else None)
    figures: dict[str, object] = {"what": what, "items": items, "width": width}
    figures["seconds"] = round(time.perf_counter() - began, 2)
    kilo = 1 if sys.platform == "darwin" else 1024
    figures["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo
    if graph is not None:
        began = time.perf_counter()
        graph.degrees()
        figures["degrees_seconds"] = round(time.perf_counter() - began, 4)
        figures["edges"] = graph.edges
        figures["components"] = len(graph.components())
    if what == "approximate":
        figures["recall_at_15"] = round(recall(embeddings), 4)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,60000")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--approximate", action="store_true", help="200,000 x 64 by the approximate index too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    a = parser.parse_args()
    runs = [(w, int(n), a.width) for n in a.sizes.split(",") if n for w in ("product", "auto", "given")]
    if a.approximate:
        runs.append(("approximate", 200_000, 64))
    report: list[dict[str, object]] = []
    print("| items | what | seconds | × product | peak GB | edges | components | degrees(), s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for what, items, width in runs:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            figures = pool.apply(measure, (what, items, width))
        bare = [f["seconds"] for f in report if (f["what"], f["items"], f["width"]) == ("product", items, width)]
        if bare:
            figures["ratio"] = round(float(figures["seconds"]) / float(bare[0]), 2)
        report.append(figures)
        print(
            f"| {items:,} x {width} | {what} | {figures['seconds']} | {figures.get('ratio', '')} | "
            f"{figures['peak_bytes'] / 1e9:.2f} | {figures.get('edges', '')} | {figures.get('components', '')} | "
            f"{figures.get('degrees_seconds', '')} |",
            flush=True,
        )
        if "recall_at_15" in figures:
            print(f"recall of the {NEAREST} nearest on {SAMPLE} items: {figures['recall_at_15']}", flush=True)
    if a.json:
        a.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
