"""A teacher that reads labels: it answers questions as an endpoint does, where there is no API (supervised).

Items are handed to it by their content hashes, so no picture is read or sent. Its answers go through the asker and the
ledger as those of any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.questions import ContentPart
from serving.client import Reply
from training.replies import clean_value, describe_reply, memberships_reply, merge_reply

SUPERVISED = "labels (supervised)"
"""The model's name under which such answers are in the ledger."""
_NOT_KNOWN = "There is no label for one of the items."


class HashGallery:
    """Gives an item's content hash in place of the item (`graphs.asking.Gallery`)."""

    async def part(self, content_hash: str) -> ContentPart:
        """A text part that names the item."""
        return {"type": "text", "text": content_hash}


class LabelsTeacher:
    """The chat endpoint (`graphs.asking.Chat`) that knows each item's value.

    What it says of an item without a value has no conclusion, and there is no description of one.
    """

    def __init__(self, values: Mapping[str, str], criterion: str) -> None:
        """`values` is what each item's label says, by content hash; `criterion` is what `replies.words_of` gives."""
        cleaned = {item: clean_value(value) for item, value in values.items()}
        self._values = {item: value for item, value in cleaned.items() if value}
        self._criterion = criterion

    async def chat(
        self,
        messages: list[dict[str, Any]],
        *,
        key: str,
        max_tokens: int,
        temperature: float,
        seed: int | None,
        pattern: str | None = None,
    ) -> Reply:
        """The reply to a question in the form of CONTRACT 4, its items from a HashGallery; no tokens, in no time."""
        content = messages[0]["content"]
        labels = [part["text"] for part in content[1::2]]
        values = [self._values.get(part["text"], "") for part in content[2::2]]
        return Reply(self._said(labels, values), SUPERVISED, 0, 0, 0.0, 1)

    def _said(self, labels: Sequence[str], values: Sequence[str]) -> str:
        if labels == ["Item:"]:
            return describe_reply(self._criterion, values[0]) if values[0] else ""
        if not all(values):
            return _NOT_KNOWN

        def side(beginning: str) -> list[str]:
            return [value for label, value in zip(labels, values, strict=True) if label.startswith(beginning)]

        if candidates := side("Candidate"):
            return memberships_reply(side("Representative"), candidates)
        return merge_reply(side("Cluster A"), side("Cluster B"))[0]
