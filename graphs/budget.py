"""What a session may spend: calls and money. A call is reserved before it is made, so that neither is passed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from storage.errors import Paused
from storage.ledger import Answer
from storage.shown import items_shown

USED_UP = "the budget of "
"""How every `Paused` of a budget begins."""
Cost = Callable[[str, int, int, int], float]
"""What a call costs in USD, from its kind and its prompt, completion and cached prompt tokens."""


def nothing(kind: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> float:
    """The cost of what is free."""
    return 0.0


class Budget:
    """Counts what a session has spent, and refuses what would pass its bounds.

    Nobody knows what a call will cost before it is answered. With a bound on the cost each call in flight is therefore
    counted as so many items as it shows, each as dear as the dearest of its kind so far; and of a kind that is new no
    more calls are in flight than twice those answered, so that there is something to go by.
    """

    def __init__(
        self,
        max_calls: int | None = None,
        max_cost: float | None = None,
        cost: Cost = nothing,
        session: str = "SESSION",
        *,
        go_on: str | None = None,
    ) -> None:
        """``session`` is its name, for what the user is told; ``go_on`` is the command where it is not ``resume``."""
        self._go_on = go_on or f"`partita resume {session}`"
        self.max_calls = max_calls
        self.max_cost = max_cost
        self._cost = cost
        self.calls = 0
        """Chat calls made, those in flight too."""
        self.cost = 0.0
        """Of all calls that were answered."""
        self._held = 0.0
        self._dearest: dict[str, float] = {}
        self._answered: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    def count(self, answer: Answer) -> None:
        """Count a call of an earlier process."""
        if answer.origin == "model":
            self.calls += answer.kind != "embed"
            self._spend(answer)

    @asynccontextmanager
    async def reserved(self, kind: str, subject: Mapping[str, Any]) -> AsyncIterator[Callable[[Answer], None]]:
        """Room for one call about ``subject``; what it gives is called with the answer.

        Raises:
            Paused: there is no room.
        """
        if self.max_cost is not None:
            async with self._changed:
                await self._changed.wait_for(lambda: self._in_flight[kind] < max(1, 2 * self._answered[kind]))
                self._in_flight[kind] += 1
        try:
            dearest = self._dearest.get(kind)
            held = self._cost(kind, 0, 0, 0) if dearest is None else dearest * max(1, items_shown(subject))
            self._check(kind, held)
            self.calls += kind != "embed"
            self._held += held
            answers: list[Answer] = []
            try:
                yield answers.append
            finally:
                self._held -= held
                self.calls -= kind != "embed" and not answers
                for answer in answers:
                    self._spend(answer)
        finally:
            if self.max_cost is not None:
                async with self._changed:
                    self._in_flight[kind] -= 1
                    self._changed.notify_all()

    def _check(self, kind: str, held: float) -> None:
        if self.max_calls is not None and kind != "embed" and self.calls >= self.max_calls:
            raise Paused(
                f"{USED_UP}{self.max_calls} calls is used up; {self._go_on} with a larger --max-calls goes on from here"
            )
        if self.max_cost is not None and self.cost + self._held + held > self.max_cost:
            raise Paused(
                f"{USED_UP}{self.max_cost:g} USD would be passed by another call; "
                f"{self._go_on} with a larger --max-cost goes on from here"
            )

    def _spend(self, answer: Answer) -> None:
        self._answered[answer.kind] += 1
        if not answer.seconds:
            return  # the endpoint rejected the question
        tokens = answer.prompt_tokens or 0, answer.completion_tokens or 0, answer.cached_tokens or 0
        cost = self._cost(answer.kind, *tokens)
        self.cost += cost
        each = cost / max(1, items_shown(answer.subject))
        self._dearest[answer.kind] = max(each, self._dearest.get(answer.kind, 0.0))
