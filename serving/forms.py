"""How an endpoint wants a message of texts alone: in content parts, as CONTRACT 4 has it, or as one text.

Some servers of text models can't take content parts at all: they answer 400, or 500 where the model's template fails
on them. A question that is refused so is asked again as one text, and if that is answered, so are all that follow.
What an overloaded, silent or broken endpoint answers tells nothing of the form. Pictures have no other form. What is
asked is the same, so a question's key does not tell of it.
"""

from __future__ import annotations

from typing import Any

from storage.errors import QuestionTooLong, RequestRejected

FAILURES = 2
"""So often the parts form has to end in a 500 before the other one is tried: one may be an accident."""


class TextForm:
    """What is known of one endpoint: `joined` is None until it has answered a message of texts alone."""

    def __init__(self) -> None:
        self.joined: bool | None = None


class Asking:
    """One question from try to try: in which form the next one goes."""

    def __init__(self, form: TextForm, body: dict[str, Any] | None) -> None:
        self._form = form
        self._texts = body if body is not None and _is_texts(body) else None
        self._other = False
        self._failures = 0
        self.first: RequestRejected | None = None
        """The rejection of the parts form: what is wrong if the other one is no better."""

    @property
    def joined(self) -> dict[str, Any] | None:
        """The body as one text, where the next try goes so."""
        if self._texts is None or not (self._other if self._form.joined is None else self._form.joined):
            return None
        return _joined(self._texts)

    def rejected(self, rejected: RequestRejected, *, joined: bool) -> bool:
        """Whether a rejection may be for the form, so that the question is to be asked in the other one."""
        about_form = not isinstance(rejected, QuestionTooLong) and not rejected.parameter
        if self._texts is None or joined or self._form.joined is False or not about_form:
            return False
        self.first, self._other = rejected, True
        return True

    def failed(self, *, joined: bool) -> None:
        """The endpoint answered 500."""
        if joined:
            self._other, self._failures = False, 0
            return
        self._failures += 1
        self._other = self._failures >= FAILURES

    def answered(self, *, joined: bool) -> None:
        """The try was answered: if nothing was known of the endpoint's form, this is it."""
        if self._texts is not None and self._form.joined is None:
            self._form.joined = joined


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
