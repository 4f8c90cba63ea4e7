"""A finished partition as people want it: a table, a report with pictures, or a folder in one of several forms."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from partita.fiftyone import write_fiftyone
from partita.folders import write_folders
from partita.imagefolder import write_imagefolder
from partita.members import COLUMNS, Member, members_of
from partita.prices import Prices
from partita.result import Result
from partita.stored import result_of
from storage.artefacts import write_file
from storage.database import Database
from storage.errors import UsageError
from storage.items import collection_from_rows
from storage.sessions import load_items, load_session

Form = Literal["folder", "imagefolder", "fiftyone"]
"""What a folder can be: one sub-folder for each cluster, or a dataset for Hugging Face's `datasets`, or FiftyOne's."""
FORMS: tuple[Form, ...] = get_args(Form)
REPORTS = (".html", ".htm")
FILES = (".csv", ".json", ".parquet", *REPORTS)
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""With what a spreadsheet lets a formula begin."""
THUMBNAILS = 24
"""Pictures that a report shows of each cluster."""
_WRITE = {"folder": write_folders, "imagefolder": write_imagefolder, "fiftyone": write_fiftyone}


def export(
    db: Database,
    name: str,
    to: Path,
    prices: Prices,
    *,
    form: Form | None = None,
    copy: bool = False,
    thumbnails: int = THUMBNAILS,
) -> Path:
    """Write a session's partition; what is written follows from the suffix of ``to``, or is a folder.

    Args:
        prices: what a report reckons the cost with.
        form: what a folder is to be; without it ``to`` is a folder if it is one already, or has no suffix.
        copy: copy images into the folder instead of linking to them.
        thumbnails: pictures that a report shows of each cluster.

    Raises:
        UsageError: the session has no partition, the target can't be written, or is a folder that is not empty.
    """
    result = result_of(db, name)
    result.require_clusters()
    if form is not None and form not in FORMS:
        raise UsageError(f"--form {form}: there is no such form; there are {', '.join(FORMS)}")
    if thumbnails < 0:
        raise UsageError(f"--thumbnails {thumbnails}: give a number from 0")
    suffix = to.suffix.lower()
    is_folder = to.is_dir() or form is not None or not suffix
    if form is not None and suffix in FILES:
        raise UsageError(f"--to {to}: --form {form} is a folder; give a name without {to.suffix}, or leave --form out")
    if not is_folder and suffix not in FILES:
        raise UsageError(
            f"--to {to}: no export as {to.suffix!r}; use {', '.join(FILES[:4])}, a folder's name, or --form folder"
        )
    if not is_folder and not to.absolute().parent.is_dir():
        raise UsageError(f"--to {to}: there is no folder {to.parent}; make it first, or choose another place")
    record = load_session(db, name)
    items = collection_from_rows(record.collection, load_items(db, record.id)).items
    members = members_of(result, items)
    try:
        if is_folder:
            _WRITE[form or "folder"](members, to, copy=copy)
        elif suffix in REPORTS:
            from partita.report import report_of
            from partita.report_page import page

            write_file(to, page(report_of(db, name, prices), thumbnails))
        else:
            write_file(to, {".csv": _csv, ".json": _json, ".parquet": _parquet}[suffix](result, members))
    except OSError as e:
        raise UsageError(f"--to {to}: {e.strerror or e}; choose another place") from None
    return to


def formulas_in(result: Result, written: Path, form: Form | None) -> int:
    """How many names of items and clusters a spreadsheet would run as formulas in what was written: they are kept
    exactly, as programs need them.

    Args:
        written: what ``export`` gave back, in this ``form``.
    """
    has_table = form in (None, "folder") if written.is_dir() else written.suffix.lower() == ".csv"
    names = [name for c in result.clusters for name in (c.name, *c.items)] if has_table else []
    return sum(name.startswith(_FORMULAS) for name in names)


def _csv(_: Result, members: Iterable[Member]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows(member.row for member in members)
    return out.getvalue().encode()


def _json(result: Result, _: Iterable[Member]) -> bytes:
    return (json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n").encode()


def _parquet(_: Result, members: Iterable[Member]) -> bytes:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("Parquet needs pyarrow: pip install 'partita[parquet]', or export to .csv") from None
    types = (pa.string(), pa.int64(), pa.string(), pa.float64())
    columns = list(zip(*(member.row for member in members), strict=True))
    table = pa.table({n: pa.array(c, type=t) for n, c, t in zip(COLUMNS, columns, types, strict=True)})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
