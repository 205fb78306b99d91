"""What of the data is done: cursor, leases, holes and counts, in whole batches.

A batch is *leased* to a member ahead of its rounds, *consumed* by the step that follows it and
*committed* with the round of that step. What a member held and did not commit becomes a *hole*
when it leaves, and holes are leased again before new batches. Batches are numbered through all
epochs: number ``n`` is batch ``n % batches_per_epoch`` of epoch ``n // batches_per_epoch``.
"""

from collections import deque
from collections.abc import Iterable

from dssync.errors import ProtocolError


class Ledger:
    """The data of one job, on the coordinator."""

    def __init__(self) -> None:
        self.batches_per_epoch = 0
        self.epochs = 0
        self.committed = 0
        self.repeated = 0
        """Commits of batches that had been leased again meanwhile."""
        self.fresh_holes = False
        """Holes have appeared since somebody last looked."""
        self._cursor = 0
        self._holes: deque[int] = deque()
        self._leases: dict[str, set[int]] = {}

    def register(self, batches_per_epoch: int, epochs: int) -> None:
        """State the size of the run; every member states the same.

        Raises:
            ProtocolError: there is no data, or another member stated another size.
        """
        if batches_per_epoch < 1 or epochs < 1:
            raise ProtocolError(
                f"run() has {batches_per_epoch} batches and {epochs} epochs: at least 1 of each"
            )
        stated = (batches_per_epoch, epochs)
        known = (self.batches_per_epoch, self.epochs)
        if self.total and stated != known:
            raise ProtocolError(
                f"run() has {batches_per_epoch} batches and {epochs} epochs here but {known[0]} "
                f"batches and {known[1]} epochs in the other members: use the same data set, "
                "batch size and epochs everywhere"
            )
        self.batches_per_epoch, self.epochs = stated

    def renewed(self) -> "Ledger":
        """Return the ledger of the same run with nothing done; its members state sizes once."""
        fresh = Ledger()
        fresh.batches_per_epoch, fresh.epochs = self.batches_per_epoch, self.epochs
        return fresh

    @property
    def total(self) -> int:
        """Batches in all epochs; 0 before the first ``register``."""
        return self.batches_per_epoch * self.epochs

    @property
    def complete(self) -> bool:
        """Whether every batch of every epoch is committed."""
        return self.total > 0 and self.committed == self.total

    @property
    def progress(self) -> float:
        """Committed fraction of the run."""
        return self.committed / self.total if self.total else 0.0

    def take(self, member: str, count: int) -> tuple[int, ...]:
        """Lease up to ``count`` batches to ``member``, holes first; empty when all are leased."""
        taken = [self._next() for _ in range(min(count, self.available))]
        self._leases.setdefault(member, set()).update(taken)
        return tuple(taken)

    @property
    def available(self) -> int:
        """Batches that nobody holds or has committed."""
        return len(self._holes) + self.total - self._cursor

    def commit(self, member: str, batches: Iterable[int]) -> None:
        """Count batches as done. One that the member no longer holds counts as repeated."""
        held = self._leases.get(member, set())
        for batch in batches:
            if batch in held:
                held.discard(batch)
                self.committed += 1
            else:
                self.repeated += 1

    def release(self, member: str) -> int:
        """Turn what ``member`` still holds into holes; return how many."""
        held = self._leases.pop(member, set())
        self._holes.extend(sorted(held))
        self.fresh_holes = self.fresh_holes or bool(held)
        return len(held)

    def _next(self) -> int:
        if self._holes:
            return self._holes.popleft()
        self._cursor += 1
        return self._cursor - 1
