"""Replies in words, from the values of items under a criterion (no torch).

A reply first says what is seen, then compares, then concludes, so that the verdict is a comparison of words. The
renderer's values and the cells of a labels CSV come out in the same form.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from agents.conclusions import Conclusion, ending
from agents.prompt_sets import PromptSet

NOTHING = "other"
"""The value that a reply gives to an item which the criterion does not apply to, such as the suit of a fruit."""
LONGEST_VALUE = 80
"""Characters of a value in a reply."""

_SENTENCE = {
    "suit": "The suit of the card is {}.",
    "rank": "The rank of the card is {}.",
    "species": "The species of the fruit is {}.",
    "color": "The color of the fruit is {}.",
}
_ABSENT = {
    c: f"The {c} is {NOTHING}: the item is not a {'card' if c in ('suit', 'rank') else 'fruit'}." for c in _SENTENCE
}
_BEFORE = re.compile(r"\A(?:by )?(?:the |its )?", re.IGNORECASE)
_QUESTION = re.compile(r"(?:whether|if|how|what|who|whose|which|where|when|why)\b", re.IGNORECASE)
_PLURAL = re.compile(r"[^isu]s\Z")


def words_of(prompts: PromptSet) -> str:
    """What replies call the criterion: the name of its set, or what the user wrote where there is none."""
    words = prompts.criterion if prompts.name == "default" else re.sub(r"[-_]", " ", prompts.name)
    return _BEFORE.sub("", clean_value(words).rstrip(".:;?!"))


def clean_value(cell: str) -> str:
    """A cell of a table as a value that can stand in a reply; empty for one that says nothing.

    What is in the cell stays words: no control character, no `<` or `>`, of which a conclusion could be made, and not
    longer than LONGEST_VALUE. Cells that differ in more than blanks and underscores stay different.
    """
    words = cell.replace("<", " less than ").replace(">", " more than ").replace("_", " ")
    value = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    if len(value) <= LONGEST_VALUE:
        return value
    digits = hashlib.sha256(value.encode(errors="replace")).hexdigest()[:8]
    return f"{value[: LONGEST_VALUE - 9].rstrip()} {digits}"


def describe_reply(criterion: str, value: str) -> str:
    """What is said of one item, in one sentence; `criterion` as `words_of` gives it."""
    if criterion in _SENTENCE:
        return _ABSENT[criterion] if value == NOTHING else _SENTENCE[criterion].format(value)
    if _QUESTION.match(criterion):
        return f'The answer to "{criterion}" is {value}.'
    return f"The {criterion} {'are' if _PLURAL.search(criterion) else 'is'} {value}."


def membership_reply(representatives: Sequence[str], candidate: str) -> tuple[str, bool]:
    """The reasoning and the verdict on a candidate, from the values seen."""
    agree = common_value(representatives) == candidate
    return f"{_cluster(representatives)} The candidate is {candidate}. {_verdict(agree)}", agree


def memberships_reply(representatives: Sequence[str], candidates: Sequence[str]) -> str:
    """The reasoning and the verdicts on any number of candidates, in order."""
    if len(candidates) == 1:
        return membership_reply(representatives, candidates[0])[0]
    common = common_value(representatives)
    told = (f"Candidate {j} is {value}. {_verdict(value == common)}" for j, value in enumerate(candidates, 1))
    return " ".join([_cluster(representatives), *told])


def merge_reply(a: Sequence[str], b: Sequence[str]) -> tuple[str, bool]:
    """The reasoning and the verdict on two clusters, from the values seen."""
    agree = common_value(a) == common_value(b)
    told = " ".join(f"Cluster {n} is {_listed(v)}, so {common_value(v)}." for n, v in (("A", a), ("B", b)))
    return f"{told} {_verdict(agree)}", agree


def common_value(values: Sequence[str]) -> str:
    """The most frequent value; of several, the one that stands first."""
    return Counter(values).most_common(1)[0][0]


def _cluster(representatives: Sequence[str]) -> str:
    what = "representatives are" if len(representatives) > 1 else "representative is"
    return f"The {what} {_listed(representatives)}, so the cluster is {common_value(representatives)}."


def _listed(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


def _verdict(agree: bool) -> str:
    return f"They {'agree' if agree else 'differ'}. {ending(Conclusion.YES if agree else Conclusion.NO)}"
