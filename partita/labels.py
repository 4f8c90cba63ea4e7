"""Labels in a CSV, and the items whose they are (CONTRACT 3). They are read here and nowhere else.

`partita score` compares a partition with them; as a teacher (`partita.teaching`) they answer in place of a model.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.prompt_sets import PromptSet, spelling
from partita.excerpts import named
from storage.errors import UsageError
from storage.items import Collection
from storage.rows import LONGEST_FIELD
from training.replies import clean_value


def read_labels(
    labels: Path, column: str, collection: Path, names: Sequence[str], texts: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Label by item name.

    A ``file`` is matched to an item relative to the CSV's folder, then relative to the collection (CONTRACT 3). Texts
    are matched by what they say where the CSV has a ``text`` column, so that it may be another one than the
    collection, in another order; otherwise by row.

    Args:
        texts: what the items say, by name, if they are texts.

    Raises:
        UsageError: no such file or column, or no label fits an item.
    """
    table = _open(labels, "--labels")
    table.check(column)
    return _matched(table, column, collection, names, texts or {})


@dataclass(frozen=True, slots=True)
class Labelled:
    """The items of a collection that a CSV has labels for."""

    column: str
    values: dict[str, str]
    """What each item's label says, by content hash, as `training.replies.clean_value` leaves it."""
    found: Collection
    """The collection without the items that have no label."""
    without: int
    """Items that have none."""
    contradictory: int
    """Items whose copies have another label; they are left out too."""

    def notes(self) -> list[str]:
        """What the user has to know of them."""
        notes = [f"supervised: column {self.column!r} answers in place of a model"]
        if self.without:
            notes.append(f"items without a label, left out: {self.without:,}")
        if self.contradictory:
            notes.append(f"items whose copies have another label, left out: {self.contradictory:,}")
        return notes


def labelled(
    labels: Path, column: str | None, collection: Path, found: Collection, prompts: PromptSet, criterion: str
) -> Labelled:
    """The labels of a collection under a criterion.

    Args:
        column: None for the one that is called as the criterion is: in the user's words, or by the name of its prompt
            set or one of its aliases.

    Raises:
        UsageError: no such file or column, no label fits an item, or all items have the same.
    """
    table = _open(labels, "--teacher")
    if column is None:
        column = _column_for(table, prompts, criterion)
    table.check(column)
    names = [item.name for item in found.items]
    texts = {item.name: item.text for item in found.items if item.text is not None}
    by_name = _matched(table, column, collection, names, texts)
    said: dict[str, set[str]] = {}
    for item in found.items:
        if value := clean_value(by_name.get(item.name, "")):
            said.setdefault(item.content_hash, set()).add(value)
    values = {item: next(iter(told)) for item, told in said.items() if len(told) == 1}
    kept = tuple(item for item in found.items if item.content_hash in values)
    if len(set(values.values())) < 2:
        there = f"all {len(values):,} labels are {next(iter(values.values()))!r}" if values else "no item has a label"
        raise UsageError(f"{labels}: column {column!r}: {there}: nothing to tell apart; name another one")
    contradictory = sum(len(said.get(item.content_hash, ())) > 1 for item in found.items)
    without = len(found.items) - len(kept) - contradictory
    return Labelled(column, values, Collection(found.root, kept, found.failed), without, contradictory)


@dataclass(frozen=True, slots=True)
class _Table:
    path: Path
    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]

    @property
    def there(self) -> str:
        return f"there are {', '.join(self.columns)}" if self.columns else "there are none"

    def check(self, column: str) -> None:
        if column not in self.columns:
            raise UsageError(f"{self.path}: no column {column!r}; {self.there}")


def _open(labels: Path, option: str) -> _Table:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    try:
        with labels.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            return _Table(labels, columns, list(reader))
    except OSError as e:
        raise UsageError(f"{labels}: {e.strerror or e}; give a CSV with {option}") from None
    except (UnicodeDecodeError, csv.Error) as e:
        raise UsageError(f"{labels}: no UTF-8 CSV ({e})") from None


def _column_for(table: _Table, prompts: PromptSet, criterion: str) -> str:
    named_so = [prompts.name, *prompts.aliases] if prompts.name != "default" else []
    wanted = list(dict.fromkeys(_spelt([criterion, *named_so, prompts.criterion])))
    by_spelling = dict(zip(_spelt(table.columns), table.columns, strict=True))
    for words in wanted:
        if words in by_spelling:
            return by_spelling[words]
    raise UsageError(
        f"{table.path}: no column is called {' or '.join(map(repr, wanted[:3]))}; {table.there}: name the one that has "
        "the labels with --column"
    )


def _spelt(names: Iterable[str]) -> list[str]:
    return [spelling(name.replace("_", " ")) for name in names]


def _matched(
    table: _Table, column: str, collection: Path, names: Sequence[str], texts: Mapping[str, str]
) -> dict[str, str]:
    labels, rows = table.path, table.rows
    root = collection if collection.is_dir() else collection.parent
    if texts:
        found = _by_text(rows, column, texts) if "text" in table.columns else _by_row(rows, column, texts)
        how = "the `text` column is taken word for word" if "text" in table.columns else "they are taken by their place"
    elif "file" in table.columns:
        found = _by_file(rows, column, labels.parent, root, names)
        how = f"the `file` column is taken relative to {labels.parent} and then to {root}"
    else:
        raise UsageError(
            f"{labels}: no `file` column, which says whose label a row is; {table.there}, and the first item is "
            f"{names[0]!r}"
        )
    if not found:
        raise UsageError(
            f"{labels}: none of its {len(rows)} rows has a label for an item of the session; {how}, and the first item "
            f"is {named(names[0], texts)!r}"
        )
    return {name: found[name] for name in names if name in found}


def _by_row(rows: Sequence[Mapping[str, str]], column: str, texts: Mapping[str, str]) -> dict[str, str]:
    labelled = ((f"row {i}", row[column]) for i, row in enumerate(rows, 1))
    return {name: label for name, label in labelled if label and name in texts}


def _by_text(rows: Sequence[Mapping[str, str]], column: str, texts: Mapping[str, str]) -> dict[str, str]:
    """By row where the same text stands there, otherwise by the first row that says the same."""
    by_text: dict[str, str] = {}
    for row in rows:
        if row[column]:
            by_text.setdefault(row["text"], row[column])
    found = {name: by_text[text] for name, text in texts.items() if text in by_text}
    for i, row in enumerate(rows, 1):
        if row[column] and texts.get(f"row {i}") == row["text"]:
            found[f"row {i}"] = row[column]
    return found


def _by_file(
    rows: Sequence[Mapping[str, str]], column: str, beside: Path, root: Path, names: Sequence[str]
) -> dict[str, str]:
    by_path: dict[str, list[str]] = {}
    for name in names:
        by_path.setdefault(os.path.realpath(root / name), []).append(name)
    found: dict[str, str] = {}
    for row in rows:
        file, label = (row.get("file") or "").replace("\0", ""), row.get(column) or ""
        meant = by_path.get(os.path.realpath(beside / file)) or by_path.get(os.path.realpath(root / file)) or []
        if label:
            found.update(dict.fromkeys(meant, label))
    return found
