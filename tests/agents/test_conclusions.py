from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.conclusions import Conclusion, pattern, read_conclusions

YES, NO, UNKNOWN = Conclusion


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("They agree. <CONCLUSION> YES </CONCLUSION>", YES),
        ("They differ.\n<conclusion>no</conclusion>", NO),
        ("<CONCLUSION>\nYES\n</CONCLUSION>.  \n", YES),
        ("**<CONCLUSION> NO </CONCLUSION>**", NO),
        ("<think>maybe <CONCLUSION> YES </CONCLUSION></think> <CONCLUSION> NO </CONCLUSION>", NO),
        ("maybe <CONCLUSION> YES </CONCLUSION></think> <CONCLUSION> NO </CONCLUSION>", NO),
        ("", UNKNOWN),
        ("Yes, certainly.", UNKNOWN),
        ("<CONCLUSION> MAYBE </CONCLUSION>", UNKNOWN),
        ("<CONCLUSION> YES", UNKNOWN),
        ("<CONCLUSION> YES </CONCLUSION> but on the other hand", UNKNOWN),
        ("<CONCLUSION> YES </CONCLUSION> <CONCLUSION> NO </CONCLUSION>", UNKNOWN),
        ("End with <CONCLUSION> YES </CONCLUSION> or <CONCLUSION> NO </CONCLUSION>.", UNKNOWN),
    ],
)
def test_one_conclusion(reply, expected):
    assert read_conclusions(reply).conclusions == (expected,)


def test_several_candidates_in_order():
    reply = "a <CONCLUSION> YES </CONCLUSION>\nb <CONCLUSION> NO </CONCLUSION>"
    verdict = read_conclusions(reply, 2)
    assert verdict.conclusions == (YES, NO) and verdict.reason == "a b"
    assert read_conclusions(reply, 3).conclusions == (UNKNOWN,) * 3


@given(st.text(), st.integers(1, 4))
def test_no_text_without_conclusions_is_a_yes(text, expected):
    assert read_conclusions(text.replace("<", "("), expected).conclusions == (UNKNOWN,) * expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Both are red. So is the candidate.\n<CONCLUSION> YES </CONCLUSION>", 1),
        ("<CONCLUSION> NO </CONCLUSION>", 1),
        ("**Reasoning:** 都是红色。\n\n**Conclusion:** <CONCLUSION> NO </CONCLUSION>", 1),
        ("First: yes. <CONCLUSION> YES </CONCLUSION>\nSecond: no. <CONCLUSION> NO </CONCLUSION>", 2),
    ],
)
def test_what_a_reply_is_held_to_is_what_is_read(reply: str, expected: int) -> None:
    assert re.fullmatch(pattern(expected), reply)
    assert Conclusion.UNKNOWN not in read_conclusions(reply, expected).conclusions


@pytest.mark.parametrize(
    "reply",
    ["YES", "<CONCLUSION> YES </CONCLUSION>.", "<b> <CONCLUSION> NO </CONCLUSION>", "So. " * 20 + "<CONCLUSION>"],
)
def test_what_a_held_reply_can_never_be(reply: str) -> None:
    assert re.fullmatch(pattern(1), reply) is None
