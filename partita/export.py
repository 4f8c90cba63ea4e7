"""A finished partition as people want it: CSV, JSON, Parquet, or a folder with a sub-folder for each cluster."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
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
    try:
        match to.suffix.lower():
            case ".csv":
                write_file(to, _csv(result))
            case ".json":
                write_file(to, (json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n").encode())
            case ".parquet":
                write_file(to, _parquet(result))
            case "":
                _folder(result, collection, to, copy)
            case other:
                raise UsageError(f"--to {to}: no export as {other!r}; use .csv, .json, .parquet, or a folder's name")
    except OSError as e:
        raise UsageError(f"--to {to}: {e.strerror or e}; choose another place") from None
    return to


def _rows(result: Result) -> list[tuple[str, int, str, float | None]]:
    # Policy `paper` holds no odds, so there is no confidence to give: the column stays empty.
    return [(item, c.id, c.name, None) for c in result.clusters for item in c.items]


def _csv(result: Result) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    writer.writerows(_rows(result))
    return out.getvalue().encode()


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
    kept = re.sub(r"[^\w -]+", "_", name).strip(" ._")[:80]
    reserved = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)", kept, re.IGNORECASE)
    return f"_{kept}" if reserved or not kept else kept


def _folder(result: Result, collection: Path, to: Path, copy: bool) -> None:
    root = collection if collection.is_dir() else collection.parent
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to}: is there already and not empty; choose a new folder")
    for cluster in result.clusters:
        folder = to / f"{cluster.id:03d} {safe_name(cluster.name)}"
        folder.mkdir(parents=True)
        for item in cluster.items:
            source = (root / item).resolve()
            if not source.is_file():
                raise UsageError(f"{source}: the file is gone, or items are texts; export to .csv instead")
            target = folder / safe_item(item)
            if copy:
                shutil.copyfile(source, target)
            else:
                target.symlink_to(source)


def safe_item(item: str) -> str:
    """An item's name as one file name: folders are folded into it, so that equal names do not collide."""
    path = Path(item)
    stem = "__".join((*path.parent.parts, path.stem))
    return re.sub(r"[^\w. -]+", "_", stem)[-150:] + re.sub(r"[^\w.]+", "_", path.suffix)
