"""Words of others on a terminal: names of files, replies of models, whatever somebody may have put in them."""

from __future__ import annotations

_JOINERS = "\u200c\u200d"
"""They hold scripts and emoji together, and do nothing else."""


def plain(words: str) -> str:
    """On one line and without effect: what would move the cursor, colour, ring or turn the direction of writing is
    shown by its escape (``\\x1b``), line ends and other white space as spaces."""
    spaced = "".join(" " if c.isspace() and c not in "\x1c\x1d\x1e\x1f" else c for c in words)
    if spaced.isprintable():
        return spaced
    return "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in spaced)


def folded(words: str) -> str:
    """The same with each run of white space as one space: a reply of several lines in one."""
    return " ".join(plain(words).split())
