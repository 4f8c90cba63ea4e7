from __future__ import annotations

from dataclasses import replace

from agents import questions
from agents.prompt_sets import shipped_set
from agents.questions import Question, Sampling

SUIT = shipped_set("suit")


def part(content_hash: str) -> dict:
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{content_hash}"}}


def layout(question):
    [message] = question.messages(part)
    assert message["role"] == "user"
    return [p.get("text") or p["image_url"]["url"].rpartition(",")[2] for p in message["content"]]


def test_layouts_are_those_of_the_contract():
    assert layout(questions.describe(SUIT, "a")) == [SUIT.describe, "Item:", "a"]
    assert layout(questions.membership(SUIT, ["a", "b"], ["c", "d"])) == [
        SUIT.membership, "Representative 1:", "a", "Representative 2:", "b", "Candidate 1:", "c", "Candidate 2:", "d",
    ]  # fmt: skip
    assert layout(questions.merge(SUIT, ["a"], ["b", "c"])) == [
        SUIT.merge, "Cluster A, representative 1:", "a", "Cluster B, representative 1:", "b",
        "Cluster B, representative 2:", "c",
    ]  # fmt: skip


def test_conclusions_expected():
    assert questions.describe(SUIT, "a").conclusions == 0
    assert questions.membership(SUIT, ["a"], ["b", "c", "d"]).conclusions == 3
    assert questions.merge(SUIT, ["a"], ["b"]).conclusions == 1


def test_the_key_changes_with_everything_that_determines_the_answer():
    sampling = Sampling("m")
    base = questions.membership(SUIT, ["a"], ["b"])
    others = [
        questions.membership(SUIT, ["b"], ["a"]).key(sampling),
        questions.membership(SUIT, ["a"], ["b"], attempt=1).key(sampling),
        questions.merge(SUIT, ["a"], ["b"]).key(sampling),
        questions.membership(shipped_set("rank"), ["a"], ["b"]).key(sampling),
        *(
            base.key(replace(sampling, **change))
            for change in ({"model": "n"}, {"temperature": 0.0}, {"max_tokens": 9}, {"seed": 1}, {"longest_side": 96})
        ),
    ]
    keys = {base.key(sampling), *others}
    assert len(keys) == len(others) + 1
    assert base.key(sampling) == questions.membership(SUIT, ["a"], ["b"]).key(Sampling("m"))


def test_keys_of_sessions_in_ledgers_stay_as_they_are() -> None:
    asked = Question("membership", "Same?", (("Representative 1:", "a"), ("Candidate 1:", "b")))
    assert asked.key(Sampling("m")) == "c96c8693aa60ed790a9f2f59b2a985ad34274650ffd2d0aa8b2ca7527b2430ba"
    assert asked.key(Sampling("m", constrain=True)) != asked.key(Sampling("m"))
    described = Question("describe", "What?", (("Item:", "a"),))
    assert described.key(Sampling("m", constrain=True)) == described.key(Sampling("m"))
