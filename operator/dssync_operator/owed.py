"""What the watch of jobs owes: jobs that a LIST has shown and no event has told of.

kopf keeps that watch, and one that has died looks like a quiet one from outside. The resync lists
all jobs anyway, so it shows what the watch should have told; a debt that stays is the proof.
"""

from collections.abc import Callable, Mapping

from dssync_operator.queue import Key


class Owed:
    """Compares what events told with what LISTs show."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nothing.

        Args:
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._told: dict[Key, int] = {}
        self._owed: dict[Key, tuple[int, float]] = {}

    def told(self, key: Key, generation: int) -> None:
        """An event has told of a job at this generation."""
        self._told[key] = generation
        if key in self._owed and self._owed[key][0] <= generation:
            del self._owed[key]

    def gone(self, key: Key) -> None:
        """An event has told of a job's end."""
        self._told.pop(key, None)
        self._owed.pop(key, None)

    def listed(self, generations: Mapping[Key, int]) -> None:
        """A LIST has shown these jobs, and no others."""
        now = self._clock()
        self._owed = {
            key: (generation, self._owed.get(key, (generation, now))[1])
            for key, generation in generations.items()
            if self._told.get(key, -1) < generation
        }

    def oldest(self) -> tuple[Key, float] | None:
        """The job that has been owed for longest, and for how many seconds; None without debts."""
        if not self._owed:
            return None
        key = min(self._owed, key=lambda key: self._owed[key][1])
        return key, self._clock() - self._owed[key][1]
