"""Prompt sets as YAML that people read and edit, and what differs between two of them.

`parse_prompts` gives the same set again, with the same hash. A sentence has a line of its own, so that a comparison
shows the sentence that was changed and no other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import yaml

from agents.prompt_sets import TEMPLATES, PromptSet

_BLOCKS = ("describe", "membership", "merge")
_SENTENCE = re.compile(r"(?<=[.!?]) (?=\S)")
_NEVER = 2**31
"""Characters after which a line is broken."""


def to_yaml(prompts: PromptSet, comment: str = "") -> str:
    """The set as YAML. Texts are rendered, so no ``$criterion`` is in it; a dollar sign is written ``$$``.

    Args:
        comment: stands at its beginning, one comment line for each of its lines.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines.append(f"name: {_inline(prompts.name)}")
    if prompts.aliases:
        lines.append(f"aliases: {_inline(list(prompts.aliases))}")
    lines.append(f"criterion: {_inline(_escaped(prompts, 'criterion'))}")
    if prompts.values:
        lines.append(f"values: {_inline(list(prompts.values))}")
    lines += [f"{field}: {_block(_escaped(prompts, field))}" for field in _BLOCKS]
    return "\n".join(lines) + "\n"


def differences(one: PromptSet, other: PromptSet, names: tuple[str, str] = ("old", "new")) -> list[str]:
    """What differs between two sets, as lines of a unified diff of their YAML; none where they are the same."""
    texts = (to_yaml(one).splitlines(), to_yaml(other).splitlines())
    return list(difflib.unified_diff(*texts, *names, lineterm="", n=2))


def _escaped(prompts: PromptSet, field: str) -> str:
    assert field in TEMPLATES
    return str(getattr(prompts, field)).replace("$", "$$")


def _inline(value: str | Sequence[str]) -> str:
    return _dumped(value, default_flow_style=True)


def _block(text: str) -> str:
    """A text in block style: folded, or literal where it has lines. What block style can't hold is quoted."""
    if "\n" in text:
        style, lines = "|-", text.split("\n")
    else:
        style, lines = ">-", _SENTENCE.split(text)
    block = "\n".join([style, *(f"  {line}" if line else "" for line in lines)])
    return block if _holds(block, text) else _dumped(text, default_style='"')


def _dumped(value: str | Sequence[str], **how: Any) -> str:
    """As PyYAML writes it; it puts some line breaks of Unicode where they don't come back, and escapes them if told."""
    dumped = ""
    for unicode in (True, False):
        dumped = yaml.safe_dump(value, allow_unicode=unicode, width=_NEVER, **how)
        dumped = dumped.removesuffix("\n").removesuffix("\n...")
        if _holds(dumped, value):
            break
    return dumped


def _holds(written: str, value: str | Sequence[str]) -> bool:
    try:
        return bool(yaml.safe_load(f"it: {written}\n") == {"it": value})
    except yaml.YAMLError:
        return False
