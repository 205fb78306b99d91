"""A worker's measurements, collected between rounds and pushed to its launcher now and then.

A delta per round would cost more than it tells; the launcher's registry only sums up anyway.
"""

import time
from collections.abc import Callable

from dssync.control.measurements import Amount, Delta, Observed

PUSH_SECONDS = 0.5

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Measure:
    """Observations since the last push.

    Args:
        push: hands a delta to the launcher.
        local_rank: label of this worker's gauges.
    """

    def __init__(self, push: Callable[[Delta], None], local_rank: int) -> None:
        self._push = push
        self._labels = {"local_rank": str(local_rank)}
        self._pushed_seconds = time.monotonic()
        self._observed: dict[_Key, list[float]] = {}
        self._counted: dict[_Key, float] = {}
        self._totals: dict[_Key, float] = {}
        self._gauges: dict[str, float] = {}

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add one value to a histogram."""
        self._observed.setdefault((name, tuple(labels.items())), []).append(seconds)

    def increment(self, name: str, amount: float = 1, **labels: str) -> None:
        """Raise a counter."""
        key = (name, tuple(labels.items()))
        self._counted[key] = self._counted.get(key, 0) + amount

    def total(self, name: str, total: float, **labels: str) -> None:
        """Raise a counter by what ``total`` grew since it was last told."""
        key = (name, tuple(labels.items()))
        grown = total - self._totals.get(key, 0)
        self._totals[key] = total
        if grown:
            self.increment(name, grown, **labels)

    def set(self, name: str, value: float) -> None:
        """Set a gauge of this worker."""
        self._gauges[name] = value

    @property
    def due(self) -> bool:
        """Whether enough time went by since the last push."""
        return time.monotonic() - self._pushed_seconds >= PUSH_SECONDS

    def push(self) -> None:
        """Push what was collected."""
        self._pushed_seconds = time.monotonic()
        self._push(
            Delta(
                tuple(
                    Observed(name, dict(at), tuple(v)) for (name, at), v in self._observed.items()
                ),
                tuple(Amount(name, dict(at), v) for (name, at), v in self._counted.items()),
                tuple(Amount(name, self._labels, v) for name, v in self._gauges.items()),
            )
        )
        self._observed, self._counted = {}, {}
