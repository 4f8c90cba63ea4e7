"""The built-in model on images it has never seen: fresh renders, renamed, re-encoded as JPEG, labels elsewhere.

    python benchmarks/fresh_renders.py --seed 31337 --count 200

Prints for each criterion NMI (number of clusters found, not given), clusters, questions per item and seconds.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from pathlib import Path

from PIL import Image

from partita import Session, cluster
from training.world import CRITERIA_OF, write_examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=31337)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--policy", default="evidence", choices=["evidence", "paper"])
    asked = parser.parse_args()
    print("images  criterion  NMI     clusters  classes  questions/item  seconds")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("cards", "fruit"):
            collection, labels = disguised(Path(folder), kind, asked.count, asked.seed)
            for criterion in CRITERIA_OF[kind]:
                db = f"sqlite:///{folder}/partita.db"
                result = cluster(collection, criterion, session=criterion, db=db, policy=asked.policy)
                score = Session(criterion, db).score(labels, criterion)
                print(
                    f"{kind:7} {criterion:10} {score.nmi:.4f}  {score.clusters:8}  {score.classes:7}  "
                    f"{result.calls_per_item:14.2f}  {sum(result.seconds.values()):7.1f}"
                )


def disguised(folder: Path, kind: str, count: int, seed: int) -> tuple[Path, Path]:
    """Fresh renders under other names and in another format; their labels lie in another folder."""
    write_examples(folder / f"{kind}-rendered", kind, count, seed, lambda done, total: None)
    with (folder / f"{kind}-rendered" / "labels.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    random.Random(seed).shuffle(rows)
    collection, labels = folder / kind, folder / f"{kind}-labels" / "labels.csv"
    collection.mkdir()
    labels.parent.mkdir()
    criteria = CRITERIA_OF[kind]
    with labels.open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["file", *criteria])
        for number, row in enumerate(rows):
            with Image.open(folder / f"{kind}-rendered" / row["file"]) as image:
                image.save(collection / f"x{number:03d}.jpg", quality=85)
            writer.writerow([f"../{kind}/x{number:03d}.jpg", *(row[c] for c in criteria)])
    return collection, labels


if __name__ == "__main__":
    main()
