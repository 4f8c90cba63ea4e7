from __future__ import annotations

import pytest

from agents.descriptions import read_description


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("The suit is hearts.", "The suit is hearts."),
        ("The suit is hearts. <embedding>", "The suit is hearts."),
        ("<think>Red, two lobes:\n hearts.</think>\n\nThe suit is hearts.<embedding>\n", "The suit is hearts."),
        ("Red, two lobes.\n</think>\n\nThe suit is hearts.", "The suit is hearts."),
        ("<embedding>", ""),
        ("Hearts.\n", "Hearts.\n"),
        ("<think>cut off", "<think>cut off"),
    ],
)
def test_a_description_is_what_was_said(reply: str, said: str) -> None:
    assert read_description(reply) == said
