from __future__ import annotations

import pytest

from agents.prompt_sets import (
    SHIPPED,
    choose_prompt_set,
    parse_prompts,
    read_prompt_file,
    set_for_criterion,
    shipped_names,
    shipped_set,
)
from storage.errors import PromptError


def test_every_shipped_set_is_valid_and_has_its_own_wording():
    assert set(shipped_names()) == {
        "default", "suit", "rank", "color", "species",
        "pose", "identity", "emotion", "sunglasses", "type", "environment",
    }  # fmt: skip
    assert len({shipped_set(n).hash for n in shipped_names()}) == len(shipped_names())
    aliases = [a for n in shipped_names() for a in (n, *shipped_set(n).aliases)]
    assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("criterion", "name"),
    [("suit", "suit"), ("Suits", "suit"), ("by the suits", "suit"), ("order", "rank"), ("number", "rank"),
     ("colour", "color"), ("head pose", "pose"), ("how sad the sky looks", "default")],
)  # fmt: skip
def test_the_criterion_chooses_the_set(criterion, name):
    assert set_for_criterion(criterion).name == name


def test_the_default_set_asks_in_the_users_words():
    asked = set_for_criterion("how $ad the sky looks")
    assert "how $ad the sky looks" in asked.membership and "$criterion" not in asked.merge


def test_a_users_own_file(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text((SHIPPED / "default.yaml").read_text().replace("name: default", "name: own"))
    chosen = choose_prompt_set("breed", str(own))
    assert chosen.name == "own" and '"breed"' in chosen.describe
    assert chosen.hash != set_for_criterion("breed").hash


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2", "line 1"),
        ("- a\n- b\n", "mapping"),
        ("name: x\ncriterion: c\ndescribe: d\nmerge: <CONCLUSION>\n", "membership: is missing"),
        ("name: x\ncriterion: c\ndescribe: d\nmembership: yes or no?\nmerge: <CONCLUSION>\n", "UNKNOWN"),
        ("name: x\ncriterion: c\ndescribe: $colour\n", "$colour"),
        ("name: x\ncriterion: c\ndescribe: costs $ 5\n", "'$$'"),
        ("name: X Y\ncriterion: c\ndescribe: d\nmembership: <CONCLUSION>\nmerge: <CONCLUSION>\n", "name"),
        (
            "name: x\nhue: 1\ncriterion: c\ndescribe: d\nmembership: <CONCLUSION>\nmerge: <CONCLUSION>\n",
            "hue: is no field",
        ),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, says):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(PromptError) as error:
        read_prompt_file(file, "c")
    assert says in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value)


def test_conclusions_that_no_reply_is_read_by_are_doubted():
    fine = shipped_set("suit")
    assert fine.doubts() == ()
    broken = fine.model_copy(update={"merge": fine.merge.replace("<CONCLUSION> YES", "<CONC> YES")})
    [said] = broken.doubts()
    assert said.startswith("merge doesn't name both <CONCLUSION> YES </CONCLUSION> and") and "UNKNOWN" in said
    lower = fine.model_copy(update={"membership": fine.membership.replace("YES", "yes")})
    assert lower.doubts() == ()  # replies are read so, too
    assert len(fine.model_copy(update={"membership": "<CONCLUSION>", "merge": "<CONCLUSION>"}).doubts()) == 2


def test_unknown_names_get_a_hint():
    with pytest.raises(PromptError, match="species"):
        shipped_set("specis")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 3000, "YAML"),
        ("name: x\ncriterion: 2026-99-99\n", "YAML"),
        ("name: x\ncriterion: c\ndescribe: 'd $criterion'\n", "--by"),
        ('name: x\ncriterion: c\ndescribe: "a\\0b"\n', "NUL"),
        ('name: x\ncriterion: c\ndescribe: d\nmembership: <CONCLUSION>\nmerge: <CONCLUSION>\nvalues: ["a\\0b"]', "NUL"),
        ("values: [&a " + "x" * 100_000 + ", *a" * 30_000 + "]", "line 1: .* alias"),
        ("a: " + "x" * 300_000, "256 KiB"),
    ],
    ids=str.__len__,
)
def test_a_text_that_is_no_set_is_said_to_be_none(text, says):
    with pytest.raises(PromptError, match=says):
        parse_prompts(text, None, "the text")
