"""The limiter: its arithmetic against endpoints that are simulated, and the gate with real tasks."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.limit import Gate, Limit, Ticket


@dataclass
class Simulated:
    """An endpoint that works on `room` calls at a time, each for 0.1-0.3 s, and turns others away with `retry_after`.

    Whatever it has room for is turned away with the probability `moody`. There is always something to ask.
    """

    room: int
    moody: float = 0.0
    retry_after: float = 1.0
    turned_away: int = 0
    worked: float = 0.0
    now: float = 0.0
    most_lately: int = 0
    limit: Limit = field(default_factory=lambda: Limit(32))

    def run(self, answers: int) -> float:
        """Seconds until so many calls were answered."""
        chance, began, busy = random.Random(0), self.now, 0
        coming: list[tuple[float, int, bool, Ticket]] = []
        number = 0
        self.most_lately = 0
        while answers:
            while self.limit.has_room(self.now):
                ticket, number = self.limit.begin(), number + 1
                seconds, taken = chance.uniform(0.1, 0.3), busy < self.room and chance.random() >= self.moody
                busy += taken
                self.worked += seconds if taken else 0
                self.most_lately = max(self.most_lately, self.limit.in_flight)
                heapq.heappush(coming, (self.now + (seconds if taken else 0.001), number, taken, ticket))
            due = coming[0][0] if coming else self.limit.paused_until
            if self.now < self.limit.paused_until < due and self.limit.in_flight < self.limit.allowed:
                self.now = self.limit.paused_until
                continue
            self.now = max(self.now, due)
            if coming:
                _, _, taken, ticket = heapq.heappop(coming)
                busy -= taken
                answers -= taken
                self.turned_away += not taken
                if taken:
                    self.limit.answer(ticket)
                else:
                    self.limit.refuse(ticket, self.now, self.retry_after)
                self.limit.end()
        return self.now - began


def test_without_faults_nothing_is_held_back() -> None:
    endpoint = Simulated(room=32)
    seconds = endpoint.run(2000)
    assert endpoint.limit.allowed == 32 and endpoint.turned_away == 0
    assert endpoint.worked / seconds / 32 > 0.97


@pytest.mark.parametrize("room", [1, 2, 4, 7, 20, 31])
@pytest.mark.parametrize("retry_after", [0.05, 1.0, 5.0])
def test_an_endpoint_with_room_for_few_is_kept_busy_and_not_pestered(room: int, retry_after: float) -> None:
    endpoint = Simulated(room=room, retry_after=retry_after)
    seconds = endpoint.run(200 * room)
    assert endpoint.worked / seconds / room > 0.9
    begun = endpoint.turned_away
    endpoint.run(200 * room)
    assert endpoint.turned_away - begun < 200 * 0.12  # of 200 rounds of answers, some step beyond


def test_calls_turned_away_for_no_reason_of_number_do_not_stop_it() -> None:
    for moody, share in ((0.01, 0.8), (0.04, 0.45)):
        endpoint = Simulated(room=99, moody=moody, retry_after=0.2)
        seconds = endpoint.run(3000)
        assert endpoint.worked / seconds / 32 > share


def test_it_grows_back_when_there_is_more_room() -> None:
    endpoint = Simulated(room=4)
    endpoint.run(400)
    assert endpoint.limit.allowed <= 5
    endpoint.room = 99
    assert endpoint.run(2000) < 30
    assert endpoint.limit.allowed == 32 and endpoint.most_lately == 32


def test_a_round_of_refusals_halves_once_and_growth_is_one_a_round() -> None:
    limit = Limit(32)
    tickets = [limit.begin() for _ in range(32)]
    lowered = [limit.refuse(ticket, 0.0, 2.0) for ticket in tickets]
    for _ in tickets:
        limit.end()
    assert lowered == [True] + [False] * 31
    assert (limit.allowed, limit.in_flight, limit.refusals, limit.paused_until) == (16, 0, 1, 2.0)
    assert not limit.has_room(1.9) and limit.has_room(2.0)
    allowed = []
    for _ in range(30):
        tickets = [limit.begin() for _ in range(limit.allowed)]
        for ticket in tickets:
            limit.answer(ticket)
        for _ in tickets:
            limit.end()
        allowed.append(limit.allowed)
    assert allowed[0] in (16, 17) and allowed[10] >= 22 and allowed[-1] == 32
    assert all(0 <= b - a <= 1 for a, b in itertools.pairwise(allowed))


def test_a_lone_refusal_or_time_out_is_soon_made_good() -> None:
    for fault in ("refuse", "time_out"):
        limit = Limit(32)
        tickets = [limit.begin() for _ in range(32)]
        if fault == "refuse":
            assert limit.refuse(tickets[31], 0.0, 0.0)
        else:
            assert limit.time_out(tickets[31])
        assert limit.allowed == 16
        limit.end()
        for ticket in tickets[:31]:
            limit.answer(ticket)
            limit.end()
            while limit.has_room(0.0):
                limit.begin()
        assert limit.allowed >= 30


def test_an_answer_ends_the_pause() -> None:
    limit = Limit(4)
    first, second = limit.begin(), limit.begin()
    limit.refuse(second, 10.0, 60.0)
    limit.end()
    assert not limit.has_room(11.0)
    limit.answer(first)
    limit.end()
    assert limit.has_room(11.0) and limit.refusals == 0


@given(st.integers(1, 40), st.lists(st.sampled_from("bbbarrt"), max_size=200), st.randoms())
def test_it_stays_within_bounds(most: int, happenings: list[str], chance: random.Random) -> None:
    limit, out = Limit(most), list[Ticket]()
    for what in happenings:
        if what == "b":
            if limit.has_room(1.0):
                out.append(limit.begin())
        elif out:
            ticket = out.pop(chance.randrange(len(out)))
            before = limit.allowed
            if what == "a":
                limit.answer(ticket)
                assert before <= limit.allowed <= before + 1
            elif what == "r":
                limit.refuse(ticket, 0.0, 0.5)
                assert limit.allowed >= before // 2
            else:
                limit.time_out(ticket)
            limit.end()
        assert 1 <= limit.allowed <= most and limit.in_flight == len(out) <= most


async def test_who_comes_again_goes_first() -> None:
    gate, order = Gate(1), list[str]()

    async def come(name: str, again: bool) -> None:
        await gate.enter(again=again)
        order.append(name)
        await asyncio.sleep(0)
        gate.leave()

    await gate.enter(again=False)
    tasks = [asyncio.create_task(come(*who)) for who in [("a", False), ("b", False), ("c", True), ("d", True)]]
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.gather(*tasks)
    assert order == ["c", "d", "a", "b"] and gate.limit.in_flight == 0


async def test_who_gives_up_waiting_takes_no_room() -> None:
    gate = Gate(1)
    await gate.enter(again=False)
    waiting = [asyncio.create_task(gate.enter(again=False)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.leave()
    waiting[1].cancel()  # let in already, but not yet told
    await asyncio.wait_for(waiting[2], 1)
    gate.leave()
    assert gate.limit.in_flight == 0
    assert [task.cancelled() for task in waiting] == [True, True, False]


async def test_the_pause_ends_by_itself() -> None:
    gate = Gate(2)
    loop = asyncio.get_running_loop()
    ticket = await gate.enter(again=False)
    gate.limit.refuse(ticket, loop.time(), 0.05)
    began = loop.time()
    gate.leave()
    await asyncio.wait_for(gate.enter(again=True), 1)
    assert loop.time() - began >= 0.04
    gate.leave()
    gate.close()
