"""How many calls an endpoint is asked at a time: additive increase, multiplicative decrease, and what it has learned.

`Limit` is the arithmetic, with the time handed in; `Gate` lets asyncio's tasks in by it.

- A call that is turned away (429, 503) or times out halves the limit; the others that were in flight with it don't
  halve it again.
- Answers let it grow, up to `most`. As far as calls are known not to be turned away it grows by one with each answer;
  beyond that by one with each round of answers. A step that is turned away is tried again after twice as many rounds,
  `PATIENCE` at the most: an endpoint that takes four calls at a time is not asked for a fifth all the time.
- A call turned away also makes the whole endpoint pause. An answer ends the pause: an endpoint that answers some while
  it turns others away has enough to do, but did not ask for silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

PATIENCE = 16
"""At the most so many rounds of answers go by before a step that failed is tried again."""
CALM = 4
"""So many answers with more calls in flight than were known to be taken, and that many are known to be taken. It is not
gone further than this beyond what is known."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call in flight: the how-manieth it was when it began, and how often the limit had been lowered by then."""

    level: int
    cuts: int


class Limit:
    """How many calls may be in flight: from 1 to `most`, where it begins. Times are in seconds, by any clock."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0
        self.answered = 0
        """Answers so far."""
        self.refusals = 0
        """Rounds in a row in which calls were turned away, with no answer since."""
        self.silences = 0
        """Rounds in a row in which calls got no answer in time, with no answer since."""
        self.paused_until = 0.0
        self._allowed = float(most)
        self._known = most
        self._held = 0
        self._patience = 1
        self._cuts = 0

    @property
    def allowed(self) -> int:
        """How many may be in flight now."""
        return int(self._allowed)

    def has_room(self, now: float) -> bool:
        """Whether another call may begin."""
        return self.in_flight < self.allowed and now >= self.paused_until

    def begin(self) -> Ticket:
        """A call begins."""
        self.in_flight += 1
        return Ticket(self.in_flight, self._cuts)

    def end(self) -> None:
        """A call is over; how it went has been told before, by `answer`, `refuse`, `time_out` or nothing."""
        self.in_flight -= 1

    def answer(self, ticket: Ticket) -> None:
        """The endpoint answered a call."""
        self.answered += 1
        self.refusals = self.silences = 0
        self.paused_until = 0.0
        if ticket.level > self._known:
            self._held += 1
            if self._held >= min(CALM, self._known + 1):
                self._known, self._held, self._patience = min(ticket.level, self.most), 0, 1
        if self.in_flight < self.allowed:
            return  # so few tell nothing about more
        if self._allowed < self._known:
            self._allowed = min(self._known, self._allowed + 1)
        elif self._allowed < self._known + CALM:
            self._allowed = min(self.most, self._allowed + 1 / (self._allowed * self._patience))

    def time_out(self, ticket: Ticket) -> bool:
        """A call got no answer in time. Whether this lowered the limit."""
        self.silences += ticket.cuts == self._cuts
        return self._lower(ticket)

    def refuse(self, ticket: Ticket, now: float, pause: float) -> bool:
        """The endpoint turned a call away: none begins for `pause` seconds. Whether this lowered the limit."""
        self.paused_until = max(self.paused_until, now + pause)
        self.refusals += ticket.cuts == self._cuts
        return self._lower(ticket)

    def _lower(self, ticket: Ticket) -> bool:
        fresh = ticket.cuts == self._cuts
        if fresh:
            self._cuts += 1
            self._held = max(0, self._held - CALM)
            self._allowed = max(1.0, self._allowed / 2)
            if ticket.level > self._known:
                self._patience = min(PATIENCE, 2 * self._patience)
        if ticket.level <= self._known:
            self._known, self._held = ticket.level - 1, 0
        return fresh


class Gate:
    """Lets tasks in as the limit has room; those that come again go before those that come first."""

    def __init__(self, most: int) -> None:
        self.limit = Limit(most)
        self._again: deque[asyncio.Future[Ticket]] = deque()
        self._new: deque[asyncio.Future[Ticket]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def enter(self, *, again: bool) -> Ticket:
        """Wait for room; whoever was let in has to `leave`."""
        loop = asyncio.get_running_loop()
        if not self._again and not self._new and self.limit.has_room(loop.time()):
            return self.limit.begin()
        let_in: asyncio.Future[Ticket] = loop.create_future()
        (self._again if again else self._new).append(let_in)
        self._let_in(loop)
        try:
            return await let_in
        except asyncio.CancelledError:
            if let_in.done() and not let_in.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """A task that was let in goes."""
        self.limit.end()
        if self._again or self._new:
            self._let_in(asyncio.get_running_loop())

    def close(self) -> None:
        """Leave nothing on the event loop."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _let_in(self, loop: asyncio.AbstractEventLoop) -> None:
        self.close()
        now = loop.time()
        for queue in (self._again, self._new):
            while queue and (queue[0].done() or self.limit.has_room(now)):
                let_in = queue.popleft()
                if not let_in.done():
                    let_in.set_result(self.limit.begin())
        if (self._again or self._new) and now < self.limit.paused_until:
            self._alarm = loop.call_at(self.limit.paused_until, self._let_in, loop)
