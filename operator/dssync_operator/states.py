"""How many jobs are in which state, and since when, as the metrics tell it without their names.

A count cannot tell one job that is stuck from many that pass through a state in turn; the moment at
which the job that is there for longest has come can.
"""

from dssync_operator.metrics import Metrics
from dssync_operator.queue import Key


class States:
    """The state of each job, as this process saw it last."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._held: dict[Key, tuple[str, float]] = {}

    def note(self, key: Key, state: str, now: float, since: float) -> str | None:
        """Take in a job's state.

        Args:
            key: The job.
            state: Its state.
            now: Seconds since 1970.
            since: Since when it may be in it, for a job that this process has not seen before.

        Returns:
            The state before; None for a job that was not known.
        """
        before, _ = self._held.get(key, (None, 0.0))
        if before == state:
            return before
        self._held[key] = (state, since if before is None else now)
        self._metrics.jobs.labels(state).inc()
        if before is not None:
            self._left(before)
        self._tell(state)
        return before

    def forget(self, key: Key) -> None:
        """A job is gone, or another controller's."""
        state, _ = self._held.pop(key, (None, 0.0))
        if state is not None:
            self._left(state)

    def _left(self, state: str) -> None:
        self._metrics.jobs.labels(state).dec()
        self._tell(state)

    def _tell(self, state: str) -> None:
        times = [since for held, since in self._held.values() if held == state]
        if times:
            self._metrics.state_since.labels(state).set(min(times))
        else:
            self._metrics.state_since.remove(state)
