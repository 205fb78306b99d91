"""A clock that stands still while this process does.

A coordinator that was stopped (SIGSTOP, a suspended machine, a starved event loop) would find
every lease and deadline over at its first tick, before it has read one of the heartbeats that
wait in its sockets. Time in which it could hear nobody is therefore not counted.
"""

from collections.abc import Callable

PAUSE_SECONDS = 0.5
"""A longer gap between two readings is a pause, for whom reads at each heartbeat."""
HOST_PAUSE_SECONDS = 0.15
"""The same for a coordinator, which reads every 20 ms: shorter than the time that a launcher has to
come back in, or one that waits at a coordinator's door would be given up."""


class AwakeClock:
    """Seconds of ``read`` without the pauses."""

    def __init__(self, read: Callable[[], float], pause_seconds: float = PAUSE_SECONDS) -> None:
        self._read = read
        self._pause_seconds = pause_seconds
        self._last = read()
        self._paused_seconds = 0.0
        self.last_pause_seconds = 0.0
        """The pause that the latest reading has ended; 0 without one."""

    def now(self) -> float:
        """Return the time; to be called more often than once a pause."""
        moment = self._read()
        gap = moment - self._last
        self.last_pause_seconds = gap if gap > self._pause_seconds else 0.0
        self._paused_seconds += self.last_pause_seconds
        self._last = moment
        return moment - self._paused_seconds
