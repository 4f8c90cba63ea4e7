"""Reading the one column of a table that names its items: `.csv`, `.jsonl`, `.parquet` (CONTRACT 3)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from storage.errors import CollectionError

TABLE_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})
Column = Literal["file", "text"]

LONGEST_FIELD = 16 * 1024 * 1024
"""Characters in one field of a CSV."""


def read_rows(table: Path, shown: Path) -> tuple[Column, list[object]]:
    """The `file` column of `table`, otherwise its `text` column, one value per row; `shown` is its name in errors.

    Raises:
        CollectionError: the table can't be read (with the line, where there is one) or has neither column.
    """
    suffix = shown.suffix.lower() if shown.suffix.lower() in TABLE_SUFFIXES else table.suffix.lower()
    try:
        if suffix == ".csv":
            return _csv(table, shown)
        if suffix == ".jsonl":
            return _jsonl(table, shown)
        return _parquet(table, shown)
    except OSError as error:
        raise CollectionError(f"{shown} can't be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise CollectionError(f"{shown} is not UTF-8 text ({error.reason}): save it as UTF-8.") from error


def _column(names: Iterable[object], shown: Path) -> Column:
    present = [str(name) for name in names]
    if "file" in present:
        return "file"
    if "text" in present:
        return "text"
    there = f"its columns are {', '.join(present[:20])}" if any(present) else "it has no columns"
    raise CollectionError(
        f"{shown} has neither a `file` nor a `text` column ({there}): rename the one to be clustered."
    )


def _csv(table: Path, shown: Path) -> tuple[Column, list[object]]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    with table.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        try:
            header = [name.strip() for name in next(rows, [])]
            column = _column(header, shown)
            index = header.index(column)
            # A line without any field is no row, as in csv.DictReader.
            return column, [row[index] if index < len(row) else None for row in rows if row]
        except csv.Error as error:
            raise CollectionError(f"{shown}, line {rows.line_num}: not valid CSV ({error}).") from error


def _jsonl(table: Path, shown: Path) -> tuple[Column, list[object]]:
    rows: list[dict[str, object]] = []
    with table.open(encoding="utf-8-sig", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise CollectionError(f"{shown}, line {number}: not valid JSON ({why}).") from error
            if not isinstance(row, dict):
                raise CollectionError(f'{shown}, line {number}: not a JSON object like {{"text": "..."}}.')
            rows.append(row)
    column = _column(dict.fromkeys(key for row in rows for key in row), shown) if rows else "text"
    return column, [row.get(column) for row in rows]


def _parquet(table: Path, shown: Path) -> tuple[Column, list[object]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise CollectionError(
            f"{shown} is a Parquet file and needs pyarrow: `pip install 'partita[parquet]'`, or save it as .csv."
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(table) as file:
            column = _column(file.schema_arrow.names, shown)
            values: list[object] = []
            for batch in file.iter_batches(columns=[column]):
                values.extend(batch.column(0).to_pylist())
            return column, values
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise CollectionError(f"{shown} is not a readable Parquet file ({str(error).splitlines()[0]}).") from error
