"""A prompt set that a model drafts for a criterion: it says what to look at, and the sentences are ours.

The reply is untrusted. Only short phrases are taken from it, and put into the sentences that agents are asked with; how
an agent ends its reply, and what that means, is never the model's to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agents.prompt_sets import PromptSet, shipped_names

LONGEST_CRITERION = 500
"""Characters of a criterion that something can be drafted for."""
LONGEST_PHRASE, LONGEST_VALUE, LONGEST_MEANING = 100, 60, 160
MOST_PHRASES, MOST_VALUES = 8, 24
_LONGEST_REPLY = 20_000
_MOST_TRIES = 50
"""Places in a reply at which an object may begin."""

_FORM = (
    '{"name": "one-short-word", "meaning": "the criterion as a short noun phrase", "values": ["...", "..."], '
    '"look_at": ["...", "..."], "ignore": ["...", "..."]}'
)
_THINKING = re.compile(r"\A.*</think>", re.IGNORECASE | re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?;:]\s|[\r\n]")
_ORDERS = re.compile(
    r"conclu|[<>]|\b(always|never|must|you|your|instructions?|prompt)\b"
    r"|\b(answer|reply|respond|say|end|output|write|return)\s+(with|by|yes|no|that|only|in)\b",
    re.IGNORECASE,
)
"""What no name of a thing to look at has in it."""
_JOINERS = "\u200c\u200d"
"""They hold scripts and emoji together."""
_VERDICTS = re.compile(r"\b(YES|NO|UNKNOWN)\b")


class NoDraft(ValueError):
    """A reply that nothing can be made of; says why, in words for the model and for the user."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What was drafted: phrases without effect, bounded."""

    criterion: str
    """In the user's words."""
    name: str
    meaning: str
    """The criterion as a noun phrase; "" where the model gave none that can be used."""
    values: tuple[str, ...]
    look_at: tuple[str, ...]
    ignore: tuple[str, ...]


def draft_instruction(criterion: str, shown: int = 0, complaint: str = "") -> str:
    """What the model is asked.

    Args:
        shown: items that are shown with it.
        complaint: what was wrong with its last reply, where it is asked again.
    """
    lines = [
        f'A collection of items is to be clustered by "{criterion}": items are together if they have the same value '
        "under that criterion. Agents will look at a few items at a time and judge by that criterion alone.",
        "Say what they have to know: what to look at in an item to tell its value, which values there are "
        "(from coarse to fine as fits the criterion; at most "
        f"{MOST_VALUES}, and none where they can't be listed, as with names of persons), and which other differences "
        "between items are likely to mislead and have to be ignored.",
    ]
    if shown:
        lines.append("Some items of the collection are shown below: let what you say fit items like these.")
    lines.append(
        f"Reply with one JSON object and nothing else: {_FORM}. Phrases of a few words each, in the language of the "
        "criterion, no sentences."
    )
    if complaint:
        lines.append(f"Your last reply could not be used: {complaint}.")
    return "\n".join(lines)


def read_draft(reply: str, criterion: str) -> Draft:
    """What a reply drafts for a criterion.

    Raises:
        NoDraft: there is no such object in it, or nothing to look at.
    """
    said = _object(_THINKING.sub("", reply)[:_LONGEST_REPLY])
    look_at = _phrases(said.get("look_at"), MOST_PHRASES, LONGEST_PHRASE)
    if not look_at:
        raise NoDraft('"look_at" lists no short phrase that says what to look at')
    meaning = _phrase(said.get("meaning"), LONGEST_MEANING)
    return Draft(
        criterion=criterion,
        name=_name(said.get("name"), criterion),
        meaning="" if meaning.casefold() == criterion.casefold() else meaning,
        values=_phrases(said.get("values"), MOST_VALUES, LONGEST_VALUE),
        look_at=look_at,
        ignore=_phrases(said.get("ignore"), MOST_PHRASES, LONGEST_PHRASE),
    )


def drafted_set(draft: Draft) -> PromptSet:
    """The draft in the sentences of the shipped sets."""
    words = draft.criterion
    meant = f", {draft.meaning}" if draft.meaning else ""
    judged = [f"Look at {_and(draft.look_at)}."]
    if draft.ignore:
        judged.append(f"Ignore {_and(draft.ignore)}.")
    if draft.values:
        judged.append(f"Values are, for example, {_and(draft.values)}.")
    sight = " ".join(judged)
    end = "Then end with <CONCLUSION> YES </CONCLUSION> or <CONCLUSION> NO </CONCLUSION>."
    return PromptSet(
        name=draft.name,
        criterion=draft.meaning or words,
        values=draft.values,
        describe=f'Describe this item by "{words}"{meant}, in one sentence: name the value it has. {sight}',
        membership=(
            f'Does the candidate belong with the representatives by "{words}"{meant}? {sight} '
            "Say what value the representatives share, what value the candidate has, and whether they agree. " + end
        ),
        merge=(
            f'Are cluster A and cluster B the same by "{words}"{meant}? {sight} '
            "Say what value each cluster shares, and whether they agree; a single odd representative does not count. "
            + end
        ),
    )


def _object(text: str) -> dict[str, Any]:
    """The first JSON object in a text that has a field of ours."""
    for place in _places(text):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and "look_at" in found:
            return found
    raise NoDraft('there is no JSON object with "look_at" in it')


def _places(text: str) -> Iterator[int]:
    place = -1
    for _ in range(_MOST_TRIES):
        place = text.find("{", place + 1)
        if place < 0:
            return
        yield place


def _phrases(said: object, most: int, longest: int) -> tuple[str, ...]:
    """Distinct phrases of a list, or of one text with commas."""
    listed: Sequence[object] = said.split(",") if isinstance(said, str) else said if isinstance(said, list) else ()
    found: dict[str, str] = {}
    for one in listed[: 4 * most]:
        phrase = _phrase(one, longest)
        if phrase:
            found.setdefault(phrase.casefold(), phrase)
    return tuple(found.values())[:most]


def _phrase(said: object, longest: int) -> str:
    """A phrase without effect, or "": one line of printable characters, up to the end of its first sentence, and none
    that is too long or gives orders."""
    if not isinstance(said, str):
        return ""
    first = _SENTENCE_END.split(said.strip() + " ")[0]
    kept = "".join(c if c.isprintable() or c in _JOINERS else " " for c in first)
    phrase = " ".join(kept.split()).strip(" \"'.,;:!?*-–—")
    if phrase in ("YES", "NO"):  # values of a criterion that is a question
        return phrase.lower()
    if len(phrase) > longest or _ORDERS.search(phrase) or _VERDICTS.search(phrase):
        return ""
    return phrase


def _name(said: object, criterion: str) -> str:
    """A set's name, not one that a shipped set has."""
    for words in (said if isinstance(said, str) else "", criterion):
        name = re.sub(r"[^a-z0-9]+", "-", words.casefold())[:40].strip("-")
        if name:
            break
    else:
        name = "drafted"
    return f"{name}-draft" if name in shipped_names() else name


def _and(phrases: Sequence[str]) -> str:
    *head, last = phrases
    return f"{', '.join(head)} and {last}" if head else last
