"""Which samples this member trains on: batches leased by the coordinator, drawn in order.

A batch goes through three hands: *drawn* by the loader (which may prefetch), *handed out* to the
training loop, *consumed* by the ``sync.step()`` that follows it. Loaders keep the order in which
batches were drawn, so a queue is enough to know which is which.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sized
from functools import lru_cache

from dssync.control.messages import Take
from dssync.errors import UsageError
from dssync.schedule.permutation import permutation
from dssync.worker.link import Link

Wait = Callable[[Callable[[], bool]], None]
LEASE_AHEAD = 2


class Batches:
    """A batch sampler over the leases of this member; made by ``GroupSync.batches``.

    Pass it to ``DataLoader(dataset, batch_sampler=…)``. Every sample of an epoch is in exactly
    one batch; the last one may be smaller.
    """

    def __init__(self, link: Link, wait: Wait, size: int, batch_size: int, shuffle: bool) -> None:
        if size < 1 or batch_size < 1:
            raise UsageError(
                f"batches() got a data set of {size} samples and batch_size {batch_size}: "
                "both must be at least 1"
            )
        self.batch_size = batch_size
        self.track = 0
        """Index of this data among those that ``run`` was given."""
        self.drawn: deque[tuple[int, int]] = deque()
        """Batches given to the loader, with the generation of their leases."""
        self._link = link
        self._wait = wait
        self._size = size
        self._shuffle = shuffle

    def __len__(self) -> int:
        """Return the number of batches of an epoch, over all members."""
        return -(-self._size // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Draw batches until none is left to lease."""
        while (number := self._next()) is not None:
            self.drawn.append((self._link.state.generation, number))
            yield self.samples(number)

    def samples(self, number: int) -> list[int]:
        """Return the indices of a batch, numbered through all epochs."""
        epoch, batch = divmod(number, len(self))
        start = batch * self.batch_size
        indices = range(start, min(start + self.batch_size, self._size))
        if not self._shuffle:
            return list(indices)
        order = _order(self._size, self._link.setup.seed, epoch)
        return [order[i] for i in indices]

    def _next(self) -> int | None:
        """Return the next leased batch; None at the end, or when this member is to leave."""
        state = self._link.state

        def ready() -> bool:
            leases = state.leases(self.track)
            return bool(leases.batches) or leases.starved or state.over

        while True:
            self._top_up()
            self._wait(ready)
            with self._link.condition:
                leases = state.leases(self.track)
                if state.over:
                    return None
                if leases.batches:
                    return leases.batches.popleft()
                if leases.starved:
                    return None

    def _top_up(self) -> None:
        """Ask for leases early enough that drawing rarely waits."""
        state = self._link.state
        with self._link.condition:
            leases = state.leases(self.track)
            enough = len(leases.batches) >= LEASE_AHEAD
            if enough or leases.wanted or leases.starved or state.over:
                return
            leases.wanted = True
        self._link.send(Take(LEASE_AHEAD, self.track))


def check_loader(loader: object) -> Batches:
    """Return the batch sampler of a loader that ``run`` can drive.

    Raises:
        UsageError: the loader does not draw from ``GroupSync.batches`` in order.
    """
    sampler = getattr(loader, "batch_sampler", None)
    if not isinstance(sampler, Batches):
        raise UsageError(
            f"run() got a loader with batch_sampler {type(sampler).__name__}: "
            "use DataLoader(dataset, batch_sampler=sync.batches(dataset, batch_size=…))"
        )
    if not getattr(loader, "in_order", True):
        raise UsageError(
            "run() got a loader with in_order=False: batches must come in the order drawn"
        )
    return sampler


def size_of(dataset: Sized) -> int:
    """Return the number of samples.

    Raises:
        UsageError: the data set has no length.
    """
    try:
        return len(dataset)
    except TypeError:
        raise UsageError(
            f"batches() needs a data set with a length, got {type(dataset).__name__}"
        ) from None


@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> list[int]:
    return permutation(size, "data", seed, epoch)
