"""A finished partition as people want it: CSV, JSON, Parquet, or a folder with a sub-folder for each cluster.

In a folder an image is a link to its file or a copy of it, and a text is a .txt file.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from partita.result import Result
from storage.artefacts import write_file
from storage.errors import UsageError

_COLUMNS = ("item", "cluster", "name", "confidence")


def export(result: Result, collection: Path, to: Path, *, copy: bool = False) -> Path:
    """Write a partition; the form follows from the suffix of ``to``.

    Args:
        collection: where the items lie; used for folders of links or copies.
        copy: copy files into the folder instead of linking to them.

    Raises:
        UsageError: the session has no partition, the target can't be written, or is a folder that is not empty.
    """
    result.require_clusters()
    files = {".csv": _csv, ".json": _json, ".parquet": _parquet}
    is_folder = to.is_dir() or not to.suffix
    if not is_folder and to.suffix.lower() not in files:
        raise UsageError(f"--to {to}: no export as {to.suffix!r}; use .csv, .json, .parquet, or a folder's name")
    try:
        if is_folder:
            _folder(result, collection, to, copy)
        else:
            write_file(to, files[to.suffix.lower()](result))
    except OSError as e:
        raise UsageError(f"--to {to}: {e.strerror or e}; choose another place") from None
    return to


def _rows(result: Result) -> list[tuple[str, int, str, float | None]]:
    # Policy `paper` holds no odds, so there is no confidence to give: the column stays empty.
    rows: list[tuple[str, int, str, float | None]] = []
    for c in result.clusters:
        sure: Sequence[float | None] = c.confidence or [None] * c.size
        rows += [(item, c.id, c.name, p) for item, p in zip(c.items, sure, strict=True)]
    return rows


def _csv(result: Result) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    writer.writerows(_rows(result))
    return out.getvalue().encode()


def _json(result: Result) -> bytes:
    return (json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n").encode()


def _parquet(result: Result) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("Parquet needs pyarrow: pip install 'partita[parquet]', or export to .csv") from None
    types = (pa.string(), pa.int64(), pa.string(), pa.float64())
    columns = list(zip(*_rows(result), strict=True))
    table = pa.table({n: pa.array(c, type=t) for n, c, t in zip(_COLUMNS, columns, types, strict=True)})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def safe_name(name: str) -> str:
    """A name that every file system takes, and that stays inside its folder."""
    kept = re.sub(r"[^\w -]+", "_", name).strip(" ._").encode()[:80].decode(errors="ignore").strip(" ._")
    reserved = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)", kept, re.IGNORECASE)
    return f"_{kept}" if reserved or not kept else kept


def _folder(result: Result, collection: Path, to: Path, copy: bool) -> None:
    """All or nothing: the folder is made beside its place and put there when it is whole."""
    root = collection if collection.is_dir() else collection.parent
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to}: is there already and not empty; choose a new folder")
    to = to.absolute()
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".partita-") as made:
        for cluster in result.clusters:
            folder = Path(made) / f"{cluster.id:03d} {safe_name(cluster.name)}"
            folder.mkdir()
            for item in cluster.items:
                if item in result.texts:
                    (folder / f"{safe_item(item)}.txt").write_text(result.texts[item], encoding="utf-8", newline="")
                    continue
                source = (root / item).resolve()
                if not source.is_file():
                    raise UsageError(f"{source}: the file is gone; export to .csv instead")
                target = _free(folder / safe_item(item))
                if copy:
                    shutil.copyfile(source, target)
                else:
                    target.symlink_to(source)
        if to.exists():
            to.rmdir()
        whole = Path(made)
        whole.chmod(0o755)
        whole.rename(to)
        whole.mkdir()  # for TemporaryDirectory to remove


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.is_symlink() or free.exists():
        number += 1
        free = path.with_stem(f"{path.stem} {number}")
    return free


def safe_item(item: str) -> str:
    """An item's name as one file name of at most 200 bytes, its folders folded into it."""
    path = Path(item)
    stem = re.sub(r"[^\w. -]+", "_", "__".join((*path.parent.parts, path.stem)))
    suffix = re.sub(r"[^\w.]+", "_", path.suffix)
    kept = stem.encode()[-180:].decode(errors="ignore").lstrip(" .")
    return (kept or "_") + suffix
