"""What a model's reply to a describe question says of the item (METHOD 2)."""

from __future__ import annotations

import re

_NOT_SAID = re.compile(r"\A.*</think>|\s*<embedding>", re.IGNORECASE | re.DOTALL)


def read_description(reply: str) -> str:
    """The description without the thinking before it and without `<embedding>`, which is put behind it when it is
    embedded."""
    # Otherwise to the letter: it is part of what an embedding is known by.
    return _NOT_SAID.sub("", reply).strip() if _NOT_SAID.search(reply) else reply
