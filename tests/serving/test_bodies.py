"""Bodies joined from parts that know their JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving.bodies import EncodedPart, encode
from serving.images import image_part, text_part

parts = st.one_of(st.binary(max_size=40).map(image_part), st.text(max_size=20).map(text_part))
messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"])}).flatmap(
    lambda m: st.one_of(st.text(max_size=20), st.lists(parts, max_size=5)).map(lambda content: m | {"content": content})
)
bodies = st.fixed_dictionaries(
    {"model": st.text(max_size=9), "messages": st.lists(messages, max_size=3), "temperature": st.floats(0, 2)}
)


@given(bodies)
def test_the_bytes_are_those_of_json_dumps(body: dict[str, Any]) -> None:
    assert encode(body) == json.dumps(body, separators=(",", ":")).encode()


def test_a_part_is_the_dict_it_stands_for() -> None:
    part = image_part(b"jpeg")
    assert isinstance(part, EncodedPart)
    assert part == {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,anBlZw=="}}
    assert json.loads(part.json) == part


@given(bodies)
def test_with_identities_the_bytes_are_those_of_json_dumps_too(body: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(body))
    for message, sent in zip(body["messages"], plain["messages"], strict=True):
        for part, shown in zip(message["content"], sent["content"], strict=True):
            if isinstance(part, EncodedPart):
                shown["uuid"] = part.identity
    assert encode(body, identities=True) == json.dumps(plain, separators=(",", ":")).encode()


def test_other_bodies() -> None:
    for body in ({}, {"model": "m", "input": "é\ud800\0"}, {"messages": []}, {"messages": [{}], "continue": True}):
        assert encode(body) == json.dumps(body, separators=(",", ":")).encode()
