"""What is shown of a text where an image would be shown."""

from __future__ import annotations

from collections.abc import Mapping

from partita.plain import plain


def excerpt(text: str, longest: int = 60) -> str:
    """The beginning of a text on one line, at most `longest` characters, cut between words where that is near."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * longest]).split())
    if len(line) <= longest and len(text) <= 8 * longest:
        return line
    kept = line[: longest - 1]
    head, _, tail = kept.rpartition(" ")
    return f"{(head if head and len(tail) < longest // 3 else kept).rstrip()}…"


def named(item: str, texts: Mapping[str, str], longest: int = 60) -> str:
    """An item's name as a terminal may show it, and what it says if it is a text: row 3 “To be or not…”."""
    return f"{plain(item)} “{excerpt(texts[item], longest)}”" if item in texts else plain(item)
