"""Which samples this member trains on: batches leased by the coordinator, drawn in order.

A batch goes through three hands: *drawn* by the loader (which may prefetch), *handed out* to the
training loop, *consumed* by the ``sync.step()`` that follows it. Loaders keep the order in which
batches were drawn, so a queue is enough to know which is which. Drawing happens in the training
process whatever the number of loader workers, so those need no link.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from dssync.control.messages import Track
from dssync.errors import UsageError
from dssync.schedule.permutation import permutation
from dssync.worker.draws import LEAST_AHEAD, Draw
from dssync.worker.link import Link

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Data:
    """What a run is over."""

    loaders: tuple[str, ...]
    """What makes up the batches of each, in words."""
    tracks: tuple[Track, ...]
    epochs: int


class Batches:
    """A batch sampler over the leases of this member; made by ``GroupSync.batches``.

    Pass it to ``DataLoader(dataset, batch_sampler=…)``. Every sample of an epoch is in exactly
    one batch; the last one may be smaller.
    """

    def __init__(self, link: Link, draw: Draw, size: int, batch_size: int, shuffle: bool) -> None:
        if size < 1 or batch_size < 1:
            raise UsageError(
                f"batches() got a data set of {size} samples and batch_size {batch_size}: "
                "both must be at least 1"
            )
        self.batch_size = batch_size
        self.drawn: deque[tuple[int, int]] = deque()
        """Batches given to the loader, with the generation of their leases."""
        self._link = link
        self._draw = draw
        self._size = size
        self._shuffle = shuffle
        self._name = ""
        self._track = 0
        self._base = 0
        self._ahead = LEAST_AHEAD

    @property
    def told(self) -> str:
        """What makes up its batches, in words."""
        order = "shuffled" if self._shuffle else "in order"
        name = f"{self._name!r}: " if self._name else ""
        return f"{name}{self._size} samples in batches of {self.batch_size}, {order}"

    def place(self, name: str, track: int, base: int, ahead: int) -> None:
        """Say which of the loaders of a run draws from here.

        Args:
            name: of the loader; empty for the only one.
            track: its index.
            base: the number of its first batch.
            ahead: how many batches it keeps under way.
        """
        self._name, self._track, self._base = name, track, base
        self._ahead = ahead

    def __len__(self) -> int:
        """Return the number of batches of an epoch, over all members."""
        return -(-self._size // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Draw batches until none is left to lease."""
        while (number := self._draw(self._track, self._ahead)) is not None:
            self.drawn.append((self._link.state.generation, number))
            yield self.samples(number)

    def samples(self, number: int) -> list[int]:
        """Return the indices of a batch, numbered through all epochs and loaders."""
        epoch, batch = divmod(number - self._base, len(self))
        start = batch * self.batch_size
        indices = range(start, min(start + self.batch_size, self._size))
        if not self._shuffle:
            return list(indices)
        order = _order(self._size, self._name, self._link.setup.seed, epoch)
        return [order[i] for i in indices]


class Samples:
    """A sampler over the leases of this member; made by ``GroupSync.sampler``.

    Pass it to ``DataLoader(dataset, batch_size=…, sampler=…)``. Leases are whole batches here
    too, so the loader's batches must be those of the ledger. ``torch``'s ``BatchSampler`` takes
    up to ``batch_size`` indices from one iterator, again and again, until it gets none; ending
    the iterator once after a smaller last batch keeps the next epoch out of it.
    """

    def __init__(self, make: Callable[[int], Batches], size: int) -> None:
        self._make = make
        self._size = size
        self._batches: Batches | None = None

    def __len__(self) -> int:
        """Return the number of samples of an epoch, over all members."""
        return self._size

    def __iter__(self) -> Iterator[int]:
        """Draw indices, one batch after another."""
        if self._batches is None:
            raise UsageError("the loader of sync.sampler() is iterated by sync.run(loader) only")
        return _Indices(iter(self._batches), self._batches.batch_size)

    def batches(self, batch_size: int) -> Batches:
        """Return what is drawn from, in batches of the loader's size."""
        if self._batches is None:
            self._batches = self._make(batch_size)
        return self._batches


class _Indices(Iterator[int]):
    """The indices of one batch after another; ends after each smaller one, then goes on."""

    def __init__(self, batches: Iterator[list[int]], batch_size: int) -> None:
        self._batches = batches
        self._batch_size = batch_size
        self._rest: deque[int] = deque()
        self._ends = False

    def __next__(self) -> int:
        if not self._rest:
            if self._ends:
                self._ends = False
                raise StopIteration
            self._rest.extend(next(self._batches))
            self._ends = len(self._rest) < self._batch_size
        return self._rest.popleft()


class Shard:
    """The batches of an iterable that fall to this member; made by ``GroupSync.shard``.

    Pass it to ``run`` in place of a loader. Every member goes through the same iterable and
    passes over what others train on; a batch that comes back from a lost member may mean to
    begin again from the front.
    """

    def __init__(self, batches: Batches, data: Iterable[Any], collate: Collate) -> None:
        self.batches = batches
        self._data = data
        self._collate = collate
        self._position = 0
        self._iterator: Iterator[Any] = iter(())
        self._fresh = True

    def __iter__(self) -> Iterator[Any]:
        """Yield this member's batches, collated."""
        for indices in self.batches:
            yield self._collate(self._take(indices))

    def _take(self, indices: list[int]) -> list[Any]:
        start, count = indices[0], len(indices)
        if self._fresh or start < self._position:
            self._iterator, self._position, self._fresh = iter(self._data), 0, False
        items = list(islice(self._iterator, start - self._position, start - self._position + count))
        self._position = start + count
        if len(items) < count:
            raise UsageError(
                f"shard() found {start + len(items)} samples where {start + count} were expected: "
                "the iterable must give the same samples in every pass and every worker"
            )
        return items


def batches_of(loader: object) -> Batches:
    """Return what a loader draws from.

    Raises:
        UsageError: the loader does not draw from this ``GroupSync``, or not whole, in order.
    """
    if isinstance(loader, Shard):
        return loader.batches
    batch_sampler = getattr(loader, "batch_sampler", None)
    samples = getattr(loader, "sampler", None)
    if not getattr(loader, "in_order", True):
        raise UsageError(
            "run() got a loader with in_order=False: batches must come in the order drawn"
        )
    if isinstance(batch_sampler, Batches):
        return batch_sampler
    if not isinstance(samples, Samples):
        raise UsageError(
            f"run() got a loader with batch_sampler {type(batch_sampler).__name__}: "
            "use DataLoader(dataset, batch_sampler=sync.batches(dataset, batch_size=…))"
        )
    if getattr(loader, "drop_last", False):
        raise UsageError(
            "run() got a loader with drop_last=True: every sample counts once in an epoch, so "
            "the last batch is a smaller one; leave drop_last out"
        )
    size = getattr(loader, "batch_size", None)
    if size is None:
        raise UsageError("run() got a loader with batch_size=None: sync.sampler() needs batches")
    return samples.batches(size)


def ahead_of(loader: object) -> int:
    """Return how many batches a loader keeps under way: those it prefetches, and one."""
    workers = getattr(loader, "num_workers", 0)
    return workers * (getattr(loader, "prefetch_factor", None) or 0) + 1


def size_of(dataset: Sized) -> int:
    """Return the number of samples.

    Raises:
        UsageError: the data set has no length.
    """
    try:
        return len(dataset)
    except TypeError:
        raise UsageError(
            f"batches() needs a data set with a length, got {type(dataset).__name__}: "
            "use sync.shard() for iterable data"
        ) from None


@lru_cache(maxsize=8)
def _order(size: int, name: str, seed: int, epoch: int) -> list[int]:
    # The only loader has no name, and its order is that of a run without names.
    return permutation(size, "data", *((name,) if name else ()), seed, epoch)
