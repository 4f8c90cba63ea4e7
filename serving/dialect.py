"""How an endpoint wants our parameters, learned from what it rejects.

Reasoning models of the large providers take `max_completion_tokens` for `max_tokens`, and no temperature but their own;
some servers know no `seed`. Such a rejection is no fault of the question: it is asked again in the form that is taken.
"""

from __future__ import annotations

from typing import Any


class Dialect:
    """Parameters of a chat question as one endpoint takes them."""

    def __init__(self) -> None:
        self._refused: set[str] = set()

    @property
    def refused(self) -> tuple[str, ...]:
        """Parameters that the endpoint does not take, sorted."""
        return tuple(sorted(self._refused))

    def put(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body in the form that the endpoint takes."""
        put = {}
        for name, value in body.items():
            if name not in self._refused:
                put[name] = value
            elif name == "max_tokens":
                put["max_completion_tokens"] = value
        return put

    def learn(self, parameter: str, sent: dict[str, Any]) -> bool:
        """Learn that a parameter is not taken; whether `sent` would be put in another way now.

        Many questions may be on their way in the old form when the first is rejected: each is to be asked once more.
        """
        if parameter in ("max_tokens", "temperature", "seed"):
            self._refused.add(parameter)
        return self.put(sent).keys() != sent.keys()
