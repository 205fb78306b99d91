"""How long a round may take before its stragglers are skipped.

The limit follows the rounds themselves (median + 8 times the median absolute deviation, at
least three medians and at least one second); the first rounds, in which compilers and caches
warm up, get a flat allowance.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class DeadlineSettings:
    """Numbers of the round deadline."""

    warmup_rounds: int = 10
    """Rounds with the flat allowance."""
    warmup_seconds: float = 20.0
    """The limit in those rounds, and until eight groups were measured."""
    floor_seconds: float = 1.0
    """The limit is never below this."""
    build_seconds: float = 10.0
    """Time to build a communicator once its first member waits for it."""
    reply_seconds: float = 1.0
    """Time to answer an ``Abandon``."""
    window: int = 64
    """Rounds that the limit looks back on."""


class RoundDeadline:
    """The adaptive limit, fed with the seconds from first arrival to commit."""

    def __init__(self, settings: DeadlineSettings) -> None:
        self.settings = settings
        self._seen = 0
        self._seconds: deque[float] = deque(maxlen=settings.window)
        self._limit = settings.warmup_seconds

    def observe(self, seconds: float) -> None:
        """Take one undisturbed round into account."""
        self._seen += 1
        self._seconds.append(seconds)
        # The median moves slowly; recomputing it for every round of a large job would not pay.
        if self._seen % 8 == 0:
            self._limit = self._follow()

    def limit_seconds(self, round_number: int) -> float:
        """Return the seconds that a round may take from its first arrival."""
        warming_up = round_number < self.settings.warmup_rounds
        return self.settings.warmup_seconds if warming_up else self._limit

    def _follow(self) -> float:
        middle = median(self._seconds)
        deviation = median(abs(each - middle) for each in self._seconds)
        return max(self.settings.floor_seconds, middle + 8 * deviation, 3 * middle)
