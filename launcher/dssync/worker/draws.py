"""Where batches come from: leases of the coordinator, asked for ahead of need."""

from collections.abc import Callable

from dssync.control.messages import Take
from dssync.control.viewlog import PASS_ENDS
from dssync.worker.journal import Journal
from dssync.worker.link import Link

Wait = Callable[[Callable[[], bool]], None]
Draw = Callable[[int, int], int | None]
"""Takes a track and how many batches its loader keeps under way; returns the next batch, or None
when there is none for now."""
LEAST_AHEAD = 2
"""Batches leased ahead of a loader without workers."""


class Leased:
    """Draws from what the coordinator leases to this member.

    Args:
        link: the member's state and messages.
        wait: waits until a predicate holds.
        journal: notes what is drawn.
    """

    def __init__(self, link: Link, wait: Wait, journal: Journal) -> None:
        self._link = link
        self._wait = wait
        self._journal = journal

    def draw(self, track: int, ahead: int) -> int | None:
        """Return the next batch; None at the end, or when this member is to leave."""
        batch = self._next(track, max(LEAST_AHEAD, ahead))
        self._journal.drew(track, PASS_ENDS if batch is None else batch)
        return batch

    def _next(self, track: int, ahead: int) -> int | None:
        state = self._link.state

        def ready() -> bool:
            leases = state.leases(track)
            return bool(leases.batches) or leases.starved or state.over

        while True:
            self._top_up(track, ahead)
            self._wait(ready)
            with self._link.condition:
                leases = state.leases(track)
                if state.over:
                    return None
                if leases.batches:
                    return leases.batches.popleft()
                if leases.starved:
                    return None

    def _top_up(self, track: int, ahead: int) -> None:
        """Ask for leases early enough that drawing rarely waits."""
        state = self._link.state
        with self._link.condition:
            leases = state.leases(track)
            enough = len(leases.batches) >= LEAST_AHEAD
            if enough or leases.wanted or leases.starved or state.over:
                return
            leases.wanted = True
        self._link.send(Take(ahead, track))
