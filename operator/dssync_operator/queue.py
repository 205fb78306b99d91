"""Which job to look at next: a queue of keys.

A key that is queued already is not queued twice, and one that is worked on is never given to a
second worker: what is added meanwhile is remembered as one more look. So a storm of events about
a job costs one look, and two looks never race. Failures wait exponentially longer, with jitter.

Time enters through ``loop``-like arguments only, so that tests can drive the clock.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

Key = tuple[str, str]
"""Namespace and name of a job."""
BASE_DELAY_SECONDS: Final = 0.1
MAX_DELAY_SECONDS: Final = 60.0


class Timer(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None:
        """Call nothing."""
        ...


class KeyedQueue:
    """A queue of keys for several workers: ``get``, then ``done`` or ``retry``."""

    def __init__(
        self,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Timer],
        jitter: Callable[[], float] = random.random,
        spacing_seconds: float = 0.0,
    ) -> None:
        """Make an empty queue.

        Args:
            clock: Monotonic seconds.
            call_later: Calls a function after so many seconds.
            jitter: Numbers from 0 to 1.
            spacing_seconds: Shortest time between the end of a look and the next one at the same
                key that was asked for by ``add``.
        """
        self._clock = clock
        self._call_later = call_later
        self._jitter = jitter
        self._spacing_seconds = spacing_seconds
        self._ready: deque[Key] = deque()
        self._since: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._dirty: set[Key] = set()
        self._timers: dict[Key, tuple[float, Timer]] = {}
        self._failures: dict[Key, int] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that are ready and have no worker."""
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Ask for a look at ``key``, as soon as there is a worker."""
        if key in self._busy:
            self._dirty.add(key)
        elif key not in self._since:
            self._since[key] = self._clock()
            self._ready.append(key)
            self._wake()

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for a look in so many seconds; of several such wishes the earliest holds."""
        at = self._clock() + seconds
        pending = self._timers.get(key)
        if pending is not None:
            if pending[0] <= at:
                return
            pending[1].cancel()
        self._timers[key] = (at, self._call_later(seconds, lambda: self._due(key)))

    async def get(self) -> tuple[Key, float]:
        """Wait for a key and take it.

        Returns:
            The key, and how many seconds it has waited.
        """
        while not self._ready:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        key = self._ready.popleft()
        self._busy.add(key)
        return key, self._clock() - self._since.pop(key)

    def done(self, key: Key) -> None:
        """Give a key back after a good look."""
        self._failures.pop(key, None)
        self._release(key)

    def retry(self, key: Key, at_least_seconds: float = 0.0) -> float:
        """Give a key back after a failed look; the next one comes after a growing delay.

        Returns:
            The delay in seconds.
        """
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(BASE_DELAY_SECONDS * 2.0 ** min(count, 20), MAX_DELAY_SECONDS)
        delay = max(delay * (0.5 + 0.5 * self._jitter()), at_least_seconds)
        # What made the key dirty is looked at then as well: the delay protects the server.
        self._dirty.discard(key)
        self._busy.discard(key)
        self.add_after(key, delay)
        return delay

    def _release(self, key: Key) -> None:
        self._busy.discard(key)
        if key not in self._dirty:
            return
        self._dirty.discard(key)
        if self._spacing_seconds > 0:
            self.add_after(key, self._spacing_seconds)
        else:
            self.add(key)

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
