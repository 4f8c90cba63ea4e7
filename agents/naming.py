"""Names for clusters, from what was said of their members. No call is made (METHOD 5a)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_STOP_WORDS = """
a an and are as at be by can for from has have image in into is it item its main no not of on one or picture photo
photograph shown shows showing see seen that the their there this to under very was which with whose appears object
value person
"""
_STOP = frozenset(_STOP_WORDS.split())


def _words(text: str, ignore: frozenset[str]) -> list[str]:
    return [w for w in (m.group(0).lower() for m in _WORD.finditer(text)) if w not in ignore and len(w) < 40]


_TELLING = 1.3
"""A telling word is said of this cluster's members so many times as often as of all items."""


def unnamed(number: int) -> str:
    """The name of a cluster that nothing else can be said of; numbers begin with 1."""
    return f"cluster {number}"


def name_clusters(
    descriptions: Sequence[Sequence[str]], *, criterion: str = "", values: Sequence[str] = ()
) -> list[str]:
    """A short name for every cluster, unique within the partition.

    Args:
        descriptions: for each cluster the descriptions of its members (empty ones are passed over).
        criterion: the criterion in words; its own words tell clusters apart from nothing and are left out.
        values: values the criterion is known to take; a value that most members mention is the name.

    Otherwise the words are taken that are said of this cluster's members and of few others (class-based TF-IDF).
    """
    ignore = _STOP | frozenset(_words(criterion, frozenset()))
    said = [[frozenset(_words(d, ignore)) for d in cluster if d] for cluster in descriptions]
    everywhere: Counter[str] = Counter(w for cluster in said for words in cluster for w in words)
    total = sum(map(len, said))
    names = [
        _by_value(cluster, values) or _by_words(words, everywhere, total) or unnamed(number)
        for number, (words, cluster) in enumerate(zip(said, descriptions, strict=True), 1)
    ]
    return _unique(names)


def _by_value(descriptions: Sequence[str], values: Sequence[str]) -> str | None:
    mentions = Counter(v for d in descriptions for v in values if re.search(rf"\b{re.escape(v)}\b", d, re.IGNORECASE))
    if mentions:
        value, count = max(mentions.items(), key=lambda vc: (vc[1], -values.index(vc[0])))
        if 2 * count > len(descriptions):
            return value
    return None


def _by_words(cluster: Sequence[frozenset[str]], everywhere: Counter[str], total: int) -> str | None:
    counted: Counter[str] = Counter(w for words in cluster for w in words)
    # A word that is said as often of everything else says nothing of this cluster.
    here = {
        w: n for w, n in counted.items() if n / len(cluster) > _TELLING * everywhere[w] / total or total == len(cluster)
    }
    if not here:
        return None
    score = {w: n / len(cluster) * math.log((1 + total) / everywhere[w]) for w, n in here.items()}
    ranked = sorted(score, key=lambda w: (-score[w], w))
    best = [w for w in ranked[:3] if score[w] >= 0.8 * score[ranked[0]]]
    return " ".join(best[:2])


def _unique(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    taken = set(names)
    out = []
    for name in names:
        seen[name] += 1
        if seen[name] == 1:
            out.append(name)
            continue
        n = seen[name]
        while f"{name} {n}" in taken:
            n += 1
        taken.add(f"{name} {n}")
        out.append(f"{name} {n}")
    return out
