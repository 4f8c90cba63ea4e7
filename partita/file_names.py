"""Names of files and folders that every file system takes, whatever an item or a cluster is called."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

LONGEST = 120
"""Bytes in UTF-8, and so at most as many UTF-16 units; decomposed, as some file systems keep names, under 255."""
_LONGEST_SUFFIX = 16
_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))]
)
"""Devices of Windows, whatever follows the first dot."""


def safe_name(name: str) -> str:
    """A cluster's name as a folder's, of at most 80 bytes."""
    kept = _plain(name).strip(" ._").encode()[:80].decode(errors="ignore").strip(" ._")
    return _unreserved(kept or "_")


def safe_item(item: str) -> str:
    """An item's name as one file name of at most 120 bytes, its folders folded into it; the end of it is kept."""
    path = PurePosixPath(item)
    suffix = _plain(path.suffix).encode()[:_LONGEST_SUFFIX].decode(errors="ignore")
    stem = _plain("__".join((*path.parent.parts, path.stem))).encode()
    kept = stem[len(suffix.encode()) - LONGEST + 1 :].decode(errors="ignore").lstrip(" .")
    return _unreserved(f"{kept or '_'}{suffix}".rstrip(" ."))


class FolderNames:
    """The names in one folder, of which no two are one name to any file system.

    Upper and lower case are one, and so is a letter in one code point or in several.

    Args:
        taken: names that are there already.
        by_stem: also tell names apart that differ in their suffixes only.
    """

    def __init__(self, taken: Iterable[str] = (), *, by_stem: bool = False) -> None:
        self._by_stem = by_stem
        self._taken = {self._key(name) for name in taken}
        self._numbers: dict[str, int] = {}

    def free(self, name: str) -> str:
        """The name, or the first of `name 2`, `name 3`, … that is free; it is taken from then on."""
        path, first = PurePosixPath(name), self._key(name)
        number = self._numbers.get(first, 1)
        free = name if number == 1 else f"{path.stem} {number}{path.suffix}"
        while self._key(free) in self._taken:
            number += 1
            free = f"{path.stem} {number}{path.suffix}"
        self._numbers[first] = number
        self._taken.add(self._key(free))
        return free

    def _key(self, name: str) -> str:
        alike = PurePosixPath(name).stem if self._by_stem else name
        return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", alike).casefold())


def _plain(text: str) -> str:
    """Letters with their marks, digits, blanks, hyphens and dots, composed; a run of others is one underscore."""
    kept = ""
    for c in unicodedata.normalize("NFC", text):
        if c in " -_." or unicodedata.category(c)[0] in "LMN":
            kept += c
        elif not kept.endswith("_"):
            kept += "_"
    return kept


def _unreserved(name: str) -> str:
    device = unicodedata.normalize("NFKC", name.partition(".")[0]).rstrip(" ").upper()
    return f"_{name}" if device in _RESERVED else name
