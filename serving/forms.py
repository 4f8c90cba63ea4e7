"""How an endpoint wants a message of texts alone: in content parts, as CONTRACT 4 has it, or as one text.

Some servers of text models can't take content parts at all: they answer 400, or 500 where the model's template fails
on them. So the tries of a question take turns until one of them is answered, and then all questions go in that form.
Pictures have no other form. What is asked is the same, so a question's key does not tell of it.
"""

from __future__ import annotations

from typing import Any


class TextForm:
    """What is known of one endpoint: `joined` is None until it has answered a message of texts alone."""

    def __init__(self) -> None:
        self.joined: bool | None = None

    def is_open(self, body: dict[str, Any] | None) -> bool:
        """Whether the body could go in either form, and which of them is taken is not known yet."""
        return self.joined is None and body is not None and _is_texts(body)

    def put(self, body: dict[str, Any], tries: int) -> dict[str, Any] | None:
        """The body as one text, if that is the form for this try, the first or a later one; None if it goes as is."""
        joined = self.joined if self.joined is not None else tries % 2 == 0
        return _joined(body) if joined and _is_texts(body) else None

    def learn(self, tries: int) -> None:
        """A body that could go in either form was answered at this try."""
        self.joined = tries % 2 == 0


def _is_texts(body: dict[str, Any]) -> bool:
    contents = [message.get("content") for message in body.get("messages", ())]
    lists = [content for content in contents if isinstance(content, list)]
    return bool(lists) and all(part.get("type") == "text" for content in lists for part in content)


def _joined(body: dict[str, Any]) -> dict[str, Any]:
    def one(message: dict[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        if not isinstance(content, list):
            return message
        return {**message, "content": "\n\n".join(part["text"] for part in content)}

    return {**body, "messages": [one(message) for message in body["messages"]]}
