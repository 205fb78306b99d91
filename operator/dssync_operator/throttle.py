"""A token bucket: so many at once, so many a second in the long run."""

import asyncio
from collections.abc import Awaitable, Callable


class TokenBucket:
    """Hands out tokens in the order in which they were asked for."""

    def __init__(
        self,
        per_second: float,
        burst: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._sleep = sleep
        self._full_at = clock()
        """When the bucket will be full again if nobody takes from it."""

    async def take(self) -> float:
        """Wait for a token and return how many seconds that took.

        The bucket is a moment in time: each token moves it by 1/rate, and who finds it further
        ahead than the burst allows waits for the difference. No queue is needed to be fair.
        """
        now = self._clock()
        self._full_at = max(self._full_at, now) + 1.0 / self._per_second
        wait = self._full_at - now - self._burst / self._per_second
        if wait <= 0:
            return 0.0
        await self._sleep(wait)
        return wait
