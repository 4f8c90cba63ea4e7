"""Writes rendered images with their labels: what `partita examples` calls."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from training.world.labels import CRITERIA_OF, Kind, Purpose, image_seed
from training.world.scene import render


def write_examples(
    out: Path,
    kind: Kind,
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    size: int = 208,
) -> None:
    """Write `out/images/00000.png` ... and `out/labels.csv` (`file,suit,rank` or `file,species,color`).

    The folder appears whole or not at all. `progress(done, count)` is called after every image. Names and order say
    nothing about the labels. Raises ValueError for a count below 1, an unknown kind, or an `out` that is not an
    empty folder.
    """
    if kind not in CRITERIA_OF:
        raise ValueError(f"no such kind of image: {kind!r}; choose 'cards' or 'fruit'")
    if count < 1:
        raise ValueError(f"cannot write {count} images; ask for at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder; choose another one or empty it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    columns = CRITERIA_OF[kind]
    digits = max(5, len(str(count - 1)))
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (draft / "images").mkdir()
        rows: list[list[str]] = []
        for index in range(count):
            image, labels = render(kind, image_seed(Purpose.EXAMPLES, seed, index), size)
            name = f"images/{index:0{digits}d}.png"
            image.save(draft / name)
            rows.append([name, *(labels[column] for column in columns)])
            if progress is not None:
                progress(index + 1, count)
        with (draft / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", *columns])
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o777 & ~_umask())
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
