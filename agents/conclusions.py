"""What a reply concludes. Replies are untrusted text: whatever is not clearly YES or NO is UNKNOWN (METHOD 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_CONCLUSION = re.compile(r"<CONCLUSION>\s*(YES|NO)\s*</CONCLUSION>", re.IGNORECASE)
_THINKING = re.compile(r"\A.*</think>", re.IGNORECASE | re.DOTALL)
"""Where it begins may stand in the model's template, and not in the reply."""
_TRAILING = " \t\r\n.*`_"


SENTENCES = 12
"""So many sentences or lines of reasoning a constrained reply may have before each conclusion."""


class Conclusion(StrEnum):
    """The verdict of one assessment."""

    YES = "YES"
    NO = "NO"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply says: one conclusion for each thing asked, and the reasoning before them."""

    conclusions: tuple[Conclusion, ...]
    reason: str


def pattern(expected: int) -> str:
    r"""The regular expression of a reply that concludes ``expected`` times, some reasoning before each conclusion.

    Sentences are counted, not characters: a counted repetition of characters (``[^<]{0,1000}``) takes a grammar backend
    ten seconds to compile and milliseconds for every token, this one hundredths of that. It is part of questions'
    keys, so a change of it asks the questions of unfinished sessions again.
    """
    one = rf"([^<.\n]*[.\n]){{0,{SENTENCES}}}[^<.\n]*<CONCLUSION> (YES|NO) </CONCLUSION>"
    return one if expected == 1 else f"({one}){{{expected}}}"


def ending(conclusion: Conclusion) -> str:
    """What a reply with this conclusion ends with."""
    return f"<CONCLUSION> {conclusion.value} </CONCLUSION>"


def named(text: str) -> set[Conclusion]:
    """The conclusions that a text, such as an instruction, writes as replies have to."""
    return {Conclusion(m.group(1).upper()) for m in _CONCLUSION.finditer(text)}


def read_conclusions(reply: str, expected: int = 1) -> Verdict:
    """The conclusions of a reply, in order.

    The reply has to hold exactly ``expected`` conclusions and to end with the last one; thinking
    before it, up to ``</think>``, is passed over. Anything else is UNKNOWN for every thing asked, never YES.
    """
    said = _THINKING.sub("", reply).rstrip(_TRAILING)
    found = list(_CONCLUSION.finditer(said))
    reason = " ".join(_CONCLUSION.sub(" ", said).split())
    if len(found) != expected or not found or found[-1].end() != len(said):
        return Verdict((Conclusion.UNKNOWN,) * expected, reason)
    return Verdict(tuple(Conclusion(m.group(1).upper()) for m in found), reason)
