"""When a question is asked again after a transport fault, and when it is given up.

What the endpoint can take at a time is `serving.limit`'s; here is how long one question waits, what counts against it,
what the user hears of it, and when an endpoint is given up for everybody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from serving.answers import Fault
from serving.limit import Limit, Ticket
from serving.redaction import Redaction
from storage.errors import EndpointError

RETRY_AFTER_CAP = 60.0
"""Seconds that a `Retry-After` can make us wait, whatever it says."""

BACK_OFF, BACK_OFF_CAP = 0.5, 20.0
QUICK_BACK_OFF = 0.1
"""First back-off, in seconds, doubled each time and fully jittered. Nobody listening at the address is no overload:
with the quick one, six refused connections take three seconds at most."""

EXCUSED = 60
"""So often a question may be turned away, while others are answered, without prejudice."""
TURNED_AWAY_FOR = 60.0
"""Seconds after which an endpoint that has turned everything away, in as many rounds as a question has tries, is given
up."""
LONGEST_WAIT = 180.0
"""Seconds of which every call is turned away, pauses that the endpoint asks for included, before it is given up."""

RETRY_LINES = 30.0
"""Seconds before a kind of fault is told of again."""


@dataclass(slots=True)
class Tries:
    """What one question has met with so far."""

    made: int = 0
    faults: int = 0
    """Those that count towards giving up."""
    excused: int = 0
    others: int = 0
    """What the endpoint had answered when this question was last turned away, or first asked."""


class Retries:
    """The retries of all questions to one endpoint.

    Args:
        limit: what the endpoint takes at a time.
        most: faults in a row on one question before it is given up.
        on_retry: told in one line about each fault that is retried; of calls that are turned away, only when the
            endpoint is asked less for it.
    """

    def __init__(
        self, limit: Limit, url: str, most: int, redaction: Redaction, on_retry: Callable[[str], None] | None
    ) -> None:
        self._limit, self._url, self._max_attempts = limit, url, most
        self._redaction, self._on_retry = redaction, on_retry
        self.given_up: EndpointError | None = None
        """Why a question was given up, if nothing has been answered since."""
        self._over = asyncio.Event()
        self._refused_since: float | None = None
        self._told_limit = limit.most
        self._told: dict[str, tuple[float, int]] = {}

    def check(self) -> None:
        """Raise what the endpoint was given up for, if it was."""
        if self.given_up is not None:
            raise type(self.given_up)(str(self.given_up))

    async def rest(self, pause: float) -> None:
        """Wait so many seconds, or until the endpoint is given up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._over.wait()

    def answered(self, ticket: Ticket) -> None:
        """A try was answered."""
        limit = self._limit
        limit.answer(ticket)
        self._refused_since = self.given_up = None
        self._over.clear()
        if limit.allowed == limit.most:
            self._told_limit = limit.most

    def after(self, fault: Fault, ticket: Ticket, tries: Tries) -> float:
        """Seconds until the question may be asked again.

        Raises:
            EndpointError: it may not.
        """
        limit, now = self._limit, asyncio.get_running_loop().time()
        excused = fault.turned_away and limit.answered > tries.others and tries.excused < EXCUSED
        tries.excused += excused
        tries.faults += not excused
        tries.others = limit.answered
        lowered = fault.silent and limit.time_out(ticket)
        if fault.turned_away:
            self._refused_since = self._refused_since or now
            rest = _pause(limit.refusals + 1, fault)
            lowered = limit.refuse(ticket, now, rest)
            pause = min(fault.retry_after or 0.0, RETRY_AFTER_CAP)  # the gate sees to the rest
        else:
            rest = pause = _pause(tries.faults, fault)
        seen = self._redaction.of(fault.seen)
        self.check()
        turned_away = self._only_turns_away(now, max(pause, limit.paused_until - now))
        for_good = turned_away or limit.silences >= self._max_attempts
        if tries.faults >= self._max_attempts or for_good:
            times = f" ({tries.made} tries)" if tries.made > 1 else ""
            if turned_away and self._refused_since is not None:
                times = f" to everything for {now - self._refused_since:.0f} s"
            error = fault.kind(f"{self._url} {seen}{times}: {self._redaction.of(fault.advice)}")
            if fault.turned_away or fault.silent or fault.refused:
                # What is waiting needs not find it out for itself; an answer to any question takes it back.
                self.given_up = error
                self._over.set()
                limit.paused_until = 0.0
            raise error
        news = lowered and self._is_news(excused)
        if self._on_retry is not None and (not fault.turned_away or news):
            slower = f"at most {limit.allowed} at a time from now, " if lowered else ""
            again = "" if excused else f" (try {tries.faults + 1} of {self._max_attempts})"
            when = f"in {rest:.1f} s" if rest >= 0.05 else "at once"
            if (more := self._heard(seen.partition(" (")[0], now)) is not None:
                self._on_retry(f"{self._url} {seen}{more}: {slower}asking again {when}{again}")
        return pause

    def _heard(self, seen: str, now: float) -> str | None:
        """What to say of a kind of fault besides the fault itself; None if it was told of a moment ago."""
        told, since = self._told.get(seen, (-RETRY_LINES, 0))
        if now - told < RETRY_LINES:
            self._told[seen] = (told, since + 1)
            return None
        self._told[seen] = (now, 0)
        return f" ({since} more times since it was last told)" if since else ""

    def _only_turns_away(self, now: float, pause: float) -> bool:
        """Whether the endpoint answers nothing for so long, the pause to come included, that it is given up."""
        since, rounds = self._refused_since, self._limit.refusals
        if since is None:
            return False
        return (rounds >= self._max_attempts and now - since >= TURNED_AWAY_FOR) or now + pause - since > LONGEST_WAIT

    def _is_news(self, excused: bool) -> bool:
        """Whether it is worth a line that the limit was lowered: not when an endpoint's capacity is felt for."""
        allowed, told = self._limit.allowed, self._told_limit
        self._told_limit = min(allowed, told)
        return allowed < told or not excused


def _pause(attempt: int, fault: Fault) -> float:
    """Seconds before the next try: exponential with full jitter, never before `Retry-After`."""
    first = QUICK_BACK_OFF if fault.refused else BACK_OFF
    jitter = random.uniform(0, min(BACK_OFF_CAP, first * 2 ** (attempt - 1)))
    if fault.retry_after is None:
        return jitter
    return min(fault.retry_after, RETRY_AFTER_CAP) + min(jitter, 1.0)
