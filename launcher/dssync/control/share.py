"""Which batches a member trains on while nobody leads and its leases have run out. Pure.

Launchers hold copies of the ledger that may differ by a moment, so they agree on nothing but how
many members there can be: each member has every so-manieth batch, by its number. Two members never
take the same batch this way. One that was leased or committed just before the coordinator was
lost may be taken again; a new coordinator counts it as repeated.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice

from dssync.control.states import LedgerState


@dataclass(frozen=True)
class Share:
    """A member's part of the batches."""

    index: int
    """Its place among all members that the job may have; the same under any view."""
    members: int
    """How many there may be."""

    def batches(
        self, ledger: LedgerState, track: int, count: int, taken: AbstractSet[int]
    ) -> tuple[int, ...]:
        """Return up to ``count`` batches of a track that were never leased, as far as is known."""
        if not 0 <= track < len(ledger.tracks):
            return ()
        sizes = [each.batches_per_epoch * ledger.epochs for each in ledger.tracks]
        first = ledger.tracks[track].cursor
        first += (self.index - first) % self.members
        mine = range(first, sum(sizes[: track + 1]), self.members)
        return tuple(islice((batch for batch in mine if batch not in taken), count))
