"""From loaders to the training loop: what was handed out, and what counts as consumed.

One loader gives its batches as they are. Several, by name, give one batch of each at a time, as
long as they have any; a name is left out when its data is used up for now.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from dssync.control.messages import Track
from dssync.errors import UsageError
from dssync.worker.data import Batches, Data, ahead_of, batches_of
from dssync.worker.link import Link

Loaders = Iterable[Any] | Mapping[str, Iterable[Any]]


@dataclass(frozen=True)
class _Source:
    name: str
    loader: Iterable[Any]
    batches: Batches


class Feed:
    """The loaders of one ``run``.

    Args:
        link: the member's state.
        loaders: one, or several by name.
        epochs: passes over each.

    Raises:
        UsageError: a loader does not draw from this ``GroupSync``, or there is none.
    """

    def __init__(self, link: Link, loaders: Loaders, epochs: int) -> None:
        named = dict(loaders) if isinstance(loaders, Mapping) else {"": loaders}
        if not named or epochs < 1:
            raise UsageError(f"run() got {len(named)} loaders and epochs={epochs}: at least 1")
        self.epochs = epochs
        self.handed_out: list[tuple[int, int]] = []
        """Batches that no step has followed yet, with the generation of their leases."""
        self._link = link
        self._alone = not isinstance(loaders, Mapping)
        self._sources = [_Source(name, each, batches_of(each)) for name, each in named.items()]
        if len({id(source.batches) for source in self._sources}) < len(self._sources):
            raise UsageError("run() got one sync.batches() under two names: make one for each")
        totals = [len(source.batches) * epochs for source in self._sources]
        for track, (source, base) in enumerate(
            zip(self._sources, [0, *accumulate(totals)], strict=False)
        ):
            source.batches.place(source.name, track, base, ahead_of(source.loader))
        self._passes = 0

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The size of the data, for the coordinator."""
        return tuple(Track(s.name, len(s.batches)) for s in self._sources)

    @property
    def data(self) -> Data:
        """What the run is over, for checkpoints."""
        return Data(tuple(s.batches.told for s in self._sources), self.tracks, self.epochs)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches until no loader has any for now."""
        iterators = {source.name: self._open(source) for source in self._sources}
        while iterators:
            found = {}
            for name, iterator in list(iterators.items()):
                try:
                    found[name] = next(iterator)
                except StopIteration:
                    del iterators[name]
            if found:
                yield found[""] if self._alone else found

    def _open(self, source: _Source) -> Iterator[Any]:
        """Yield the batches of a loader, but none whose lease is void by now."""
        source.batches.drawn.clear()
        for batch in self._iterator(source.loader):
            drawn = source.batches.drawn.popleft()
            if drawn[0] == self._link.state.generation:
                self.handed_out.append(drawn)
                yield batch

    def _iterator(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Return an iterator; the training's random numbers do not depend on how many there were.

        A loader draws a seed for its workers whenever it begins, and how often it does depends on
        when data was short.
        """
        self._passes += 1
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(torch.initial_seed() + self._passes)
            return iter(loader)
