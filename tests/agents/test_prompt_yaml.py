"""Prompt sets as YAML: the same set comes back, and people can read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.prompt_sets import PromptSet, parse_prompts, shipped_names, shipped_set
from agents.prompt_yaml import differences, to_yaml

CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, min_size=1, max_size=60)
LISTED = st.lists(st.text(CHARACTERS, max_size=20), max_size=3).map(tuple)


@given(TEXT, TEXT, TEXT, LISTED, LISTED)
def test_whatever_a_set_says_comes_back(criterion, text, asked, values, aliases):
    one = PromptSet(
        name="x-1", criterion=criterion, describe=text, membership=f"{asked}<CONCLUSION>", merge=f"<CONCLUSION>{asked}",
        values=values, aliases=aliases,
    )  # fmt: skip
    again = parse_prompts(to_yaml(one, "a comment\nof two lines"), None, "x")
    assert again == one and again.hash == one.hash


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_sets_are_readable_with_a_line_for_a_sentence(name):
    one = shipped_set(name, "how $ad it looks")
    written = to_yaml(one)
    assert parse_prompts(written, None, name).hash == one.hash
    assert "describe: >-\n  Describe" in written and "\\n" not in written
    assert "\n  Then end with <CONCLUSION> YES </CONCLUSION> or <CONCLUSION> NO </CONCLUSION>.\n" in written


def test_lines_of_a_text_stay_lines():
    one = shipped_set("pose").model_copy(update={"describe": "First.\n  - a\n\n  - b costs $5"})
    assert "describe: |-\n  First.\n    - a\n\n    - b costs $$5\n" in to_yaml(one)


def test_a_sentence_that_was_changed_differs_alone():
    one = shipped_set("pose")
    other = one.model_copy(update={"describe": one.describe.replace("in one sentence", "in two sentences")})
    changed = [line for line in differences(one, other, ("a", "b")) if line[0] in "+-"]
    assert changed == [
        "--- a", "+++ b",
        "-  Describe the pose of the head of the person in one sentence.",
        "+  Describe the pose of the head of the person in two sentences.",
    ]  # fmt: skip
    assert differences(one, one) == []
