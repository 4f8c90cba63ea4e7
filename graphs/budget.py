"""What a session may spend: calls and money. A call is reserved before it is made, so that neither is passed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from storage.errors import Paused
from storage.ledger import Answer

Cost = Callable[[str, int, int], float]
"""What a call costs in USD, from its kind and its prompt and completion tokens."""


def nothing(kind: str, prompt_tokens: int, completion_tokens: int) -> float:
    """The cost of what is free."""
    return 0.0


class Budget:
    """Counts what a session has spent, and refuses what would pass its bounds.

    Nobody knows what a call will cost before it is answered. With a bound on the cost each call in flight is therefore
    counted as the dearest of its kind so far, and the first of each kind is made alone.
    """

    def __init__(self, max_calls: int | None = None, max_cost: float | None = None, cost: Cost = nothing) -> None:
        self.max_calls = max_calls
        self.max_cost = max_cost
        self._cost = cost
        self.calls = 0
        """Chat calls made, those in flight too."""
        self.cost = 0.0
        """Of all calls that were answered."""
        self._held = 0.0
        self._dearest: dict[str, float] = {}
        self._first: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def count(self, answer: Answer) -> None:
        """Count a call of an earlier process."""
        if answer.origin == "model":
            self.calls += answer.kind != "embed"
            self._spend(answer)

    @asynccontextmanager
    async def reserved(self, kind: str) -> AsyncIterator[Callable[[Answer], None]]:
        """Room for one call; what it gives is called with the answer.

        Raises:
            Paused: there is no room.
        """
        async with AsyncExitStack() as alone:
            if self.max_cost is not None and kind not in self._dearest:
                await alone.enter_async_context(self._first[kind])
                if kind in self._dearest:
                    await alone.aclose()  # another was the first
            held = self._dearest.get(kind, 0.0)
            self._check(kind, held)
            self.calls += kind != "embed"
            self._held += held
            spent: list[Answer] = []
            try:
                yield spent.append
            finally:
                self._held -= held
                for answer in spent:
                    self._spend(answer)
                if not spent:
                    self.calls -= kind != "embed"

    def _check(self, kind: str, held: float) -> None:
        if self.max_calls is not None and kind != "embed" and self.calls >= self.max_calls:
            raise Paused(
                f"the budget of {self.max_calls} calls is used up; "
                f"`partita resume` with a larger --max-calls goes on from here"
            )
        if self.max_cost is not None and self.cost + self._held + held > self.max_cost:
            raise Paused(
                f"the budget of {self.max_cost:g} USD does not do for another call beside those in flight; "
                f"`partita resume` with a larger --max-cost goes on from here"
            )

    def _spend(self, answer: Answer) -> None:
        cost = self._cost(answer.kind, answer.prompt_tokens or 0, answer.completion_tokens or 0)
        self.cost += cost
        self._dearest[answer.kind] = max(cost, self._dearest.get(answer.kind, 0.0))
