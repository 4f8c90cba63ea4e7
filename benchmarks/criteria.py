"""NMI on images kept apart, before and after `partita train` with labels standing in for a teacher.

    python -m benchmarks.criteria FOLDER --by suit --column suits --part 0.75 --out runs/suit

FOLDER holds images and labels.csv. A part of it, drawn by --seed, is trained on with its labels ("supervised"); all
figures are of the rest. Clusters are found, not given, but for K-means, which is given the true number of classes and
the embeddings of the session above it. --part 0 measures the base alone ("no real labels").
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

from graphs.likeness import VECTORS, vectors_from
from partita import Session, cluster
from partita.evaluation import score_labels
from serving.llava import MINI
from storage import artefacts
from storage.database import open_database
from storage.items import scan
from storage.sessions import load_session


def main() -> None:
    """Split, measure, train, measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--by", required=True)
    parser.add_argument("--column", required=True)
    parser.add_argument("--part", type=float, default=0.75)
    parser.add_argument("--limit", type=int, help="so many images in all")
    parser.add_argument("--apart", help="a column, such as `person`: images of one value of it stay in one part")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=MINI)
    parser.add_argument("--what", default="both", choices=["embedder", "agent", "both"])
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    train, test = split(asked)
    print(f"{asked.folder.name} by {asked.by}: {asked.part:.0%} trained on, seed {asked.seed}", flush=True)
    print(
        "model      supervised  method     NMI     ARI     accuracy  clusters  classes  items  questions/item  seconds"
    )
    measured = [measure("untrained", False, open_minded(asked.base, asked.out / "base"), test, asked)]
    if train is not None:
        began = time.monotonic()
        trained(train, asked)
        print(f"trained in {time.monotonic() - began:.0f} s", flush=True)
        measured.append(measure("trained", True, asked.out / "model", test, asked))
    (asked.out / "measured.json").write_text(json.dumps(measured, indent=1))


def split(asked: argparse.Namespace) -> tuple[Path | None, Path]:
    """Two collections: folders with a labels.csv of the one column."""
    with (asked.folder / "labels.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    rng = random.Random(asked.seed)
    rng.shuffle(rows)
    rows = rows[: asked.limit]
    cut = round(len(rows) * asked.part)
    if asked.apart:
        groups = sorted({row[asked.apart] for row in rows})
        rng.shuffle(groups)
        first = set(groups[: round(len(groups) * asked.part)])
        rows.sort(key=lambda row: row[asked.apart] not in first)
        cut = sum(row[asked.apart] in first for row in rows)
    folders = []
    for name, part in (("train", rows[:cut]), ("test", rows[cut:])):
        folder = asked.out / name
        folder.mkdir(exist_ok=True)
        for row in part:
            (folder / row["file"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(asked.folder / row["file"], folder / row["file"])
        with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", asked.column])
            writer.writerows([row["file"], row[asked.column]] for row in part)
        folders.append(folder)
    return (folders[0] if cut else None), folders[1]


def open_minded(base: Path, folder: Path) -> Path:
    """A copy of the base that does not refuse a criterion it was not trained by."""
    if not folder.exists():
        shutil.copytree(base, folder)
        about = json.loads((folder / "partita.json").read_text())
        (folder / "partita.json").write_text(json.dumps(about | {"criteria": []}))
    return folder


def trained(train: Path, asked: argparse.Namespace) -> None:
    """`partita train`, as a user gives it."""
    words = [
        sys.executable, "-m", "partita", "train", asked.what, train, "--by", asked.by,
        "--teacher", train / "labels.csv", "--column", asked.column, "--base", asked.base,
        "--out", asked.out / "model", "--seed", asked.seed, "--db", f"sqlite:///{asked.out}/partita.db",
    ]  # fmt: skip
    if asked.config:
        words += ["--config", asked.config]
    subprocess.run(list(map(str, words)), check=True)


def measure(name: str, supervised: bool, model: Path, test: Path, asked: argparse.Namespace) -> dict[str, object]:
    """A session on what was kept apart, and K-means on its embeddings."""
    db = f"sqlite:///{asked.out}/partita.db"
    session = f"{name}-{int(time.time())}"
    result = cluster(test, asked.by, session=session, db=db, model=str(model))
    score = Session(session, db).score(test / "labels.csv", asked.column)
    with open_database(db) as database:
        stored = artefacts.get(database, load_session(database, session).id, VECTORS)
    assert stored is not None
    vectors = vectors_from(stored)
    with (test / "labels.csv").open(encoding="utf-8") as file:
        label = {row["file"]: row[asked.column] for row in csv.DictReader(file)}
    items = {item.content_hash: label[item.name] for item in reversed(scan(test).items)}
    known = list(dict.fromkeys(item.content_hash for item in scan(test).items))
    true = [items[content_hash] for content_hash in known]
    rows = np.asarray(vectors, np.float32)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    means = KMeans(len(set(true)), n_init=10, random_state=0).fit_predict(rows)
    given = score_labels(means.tolist(), true)
    seconds = sum(result.seconds.values())
    for method, told, each in (("Partita", score, f"{result.calls_per_item:14.2f}"), ("K-means K", given, " " * 14)):
        print(
            f"{name:10} {'yes' if supervised else 'no':10}  {method:9}  {told.nmi:.4f}  {told.ari:.4f}  "
            f"{told.accuracy:8.4f}  {told.clusters:8}  {told.classes:7}  {told.items:5}  {each}  {seconds:7.0f}",
            flush=True,
        )
    return {"model": name, "supervised": supervised, "partita": score.to_json(), "kmeans": given.to_json()}


if __name__ == "__main__":
    main()
