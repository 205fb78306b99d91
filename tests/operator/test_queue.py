"""The keyed queue under a clock that the test moves."""

import asyncio
import heapq
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from dssync_operator.queue import KeyedQueue

STEPS = ["add", "after", "get", "done", "retry"]
A, B = ("ns", "a"), ("ns", "b")


class Clock:
    """Time that stands still until it is moved; timers fire on the way."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._count = 0

    def __call__(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> "Timer":
        self._count += 1
        heapq.heappush(self._timers, (self.now + seconds, self._count, call))
        return Timer(self._cancelled, self._count)

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, number, call = heapq.heappop(self._timers)
            if number not in self._cancelled:
                call()
        self.now = until


class Timer:
    def __init__(self, cancelled: set[int], number: int) -> None:
        self._cancelled, self._number = cancelled, number

    def cancel(self) -> None:
        self._cancelled.add(self._number)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, spacing: float = 0.0) -> KeyedQueue:
    return KeyedQueue(clock, clock.call_later, lambda: 1.0, spacing)


async def test_key_added_twice_is_given_once(clock: Clock) -> None:
    queue = make(clock)
    queue.add(A)
    queue.add(A)

    assert (await queue.get())[0] == A
    assert len(queue) == 0


async def test_key_in_work_is_given_again_only_after_it_is_done(clock: Clock) -> None:
    queue = make(clock)
    queue.add(A)
    await queue.get()
    queue.add(A)
    assert len(queue) == 0

    queue.done(A)

    assert (await queue.get())[0] == A


async def test_storm_on_a_key_in_work_costs_one_more_look_after_the_spacing(clock: Clock) -> None:
    queue = make(clock, spacing=0.5)
    queue.add(A)
    await queue.get()
    for _ in range(100):
        queue.add(A)
    queue.done(A)
    assert len(queue) == 0

    clock.advance(0.5)

    await queue.get()
    queue.done(A)
    clock.advance(10)
    assert len(queue) == 0


async def test_failures_wait_exponentially_longer_until_a_success(clock: Clock) -> None:
    queue = make(clock)
    queue.add(A)
    delays = []
    for _ in range(12):
        await queue.get()
        delays.append(queue.retry(A))
        clock.advance(delays[-1])

    await queue.get()
    queue.done(A)
    queue.add(A)
    await queue.get()

    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert queue.retry(A) == 0.1


async def test_retry_after_is_a_floor(clock: Clock) -> None:
    queue = make(clock)
    queue.add(A)
    await queue.get()

    assert queue.retry(A, 7.0) == 7.0


async def test_earliest_of_several_alarms_holds(clock: Clock) -> None:
    queue = make(clock)
    queue.add_after(A, 60)
    queue.add_after(A, 5)
    queue.add_after(A, 30)

    clock.advance(5)

    assert len(queue) == 1
    await queue.get()
    queue.done(A)
    clock.advance(100)
    assert len(queue) == 0


async def test_waiting_worker_is_woken_and_told_how_long_the_key_waited(clock: Clock) -> None:
    queue = make(clock)
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(B)
    clock.advance(3)

    assert await worker == (B, 3.0)


async def test_cancelled_worker_does_not_swallow_the_wake_up(clock: Clock) -> None:
    queue = make(clock)
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)

    queue.add(A)

    assert (await second)[0] == A


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "after", "get", "done", "retry"]), st.booleans()))
)
def test_no_key_is_ever_in_two_hands_and_none_is_lost(steps: list[tuple[str, bool]]) -> None:
    clock = Clock()
    queue, busy, owed = make(clock, 0.1), set(), set()
    for step, which in steps:
        key = A if which else B
        if step == "add":
            queue.add(key)
            owed.add(key)
        elif step == "after":
            queue.add_after(key, 1.0)
            owed.add(key)
        elif step == "get" and len(queue):
            taken, _ = asyncio.run(queue.get())
            assert taken not in busy
            busy.add(taken)
            owed.discard(taken)
        elif step in ("done", "retry") and key in busy:
            busy.discard(key)
            if step == "retry":
                queue.retry(key)
                owed.add(key)
            else:
                queue.done(key)
    for key in list(busy):
        queue.done(key)
    clock.advance(100)
    left = {asyncio.run(queue.get())[0] for _ in range(len(queue))}
    assert owed <= left


async def test_what_was_added_during_a_failed_look_is_served_by_the_next_one(clock: Clock) -> None:
    queue = make(clock)
    queue.add(A)
    await queue.get()
    queue.add(A)
    clock.advance(queue.retry(A))
    await queue.get()

    queue.done(A)

    assert len(queue) == 0
