"""What a life of a job did and what its end may cost, from its view log. Pure.

Each life counts its rounds from 0. What is counted is outside the coordinator: rounds that a member
has applied and no whole checkpoint holds are lost.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dssync.control.viewlog import CHECKPOINT, Applied, Attempt, Entered, Saved, Told

INTERVAL: Final = 10
"""Optimizer steps, and so rounds, between two saves."""
ROUNDS_AHEAD: Final = 4
"""A flush is asked for when a save is due, and appointed behind the rounds that are frozen: that
in which a mate may be by then, and two more."""


@dataclass(frozen=True)
class Life:
    """One life of the job."""

    last: int
    """Last round that a member applied; -1 for none."""
    resumed: bool
    flushes: tuple[int, ...]
    """Flushes that a member applied, lowest first: each is saved."""
    published: Mapping[int, int]
    """By flush: the last round that a member had applied when its checkpoint was published."""

    def rounds_of_save(self, flush: int) -> int:
        """Return how many rounds were applied while a flush was written, or until the end."""
        return self.published.get(flush, self.last) - flush

    @property
    def slowest_save(self) -> int:
        """Rounds that were applied while a checkpoint was written that was published, at most."""
        return max((self.rounds_of_save(flush) for flush in self.published), default=0)


def life_of(records: Iterable[Told]) -> Life:
    """Return what a life did."""
    last, resumed = -1, False
    flushes, applied, published = set[int](), set[int](), dict[int, int]()
    for record in records:
        match record:
            case Entered(source=source):
                resumed = resumed or source.startswith(CHECKPOINT)
            case Attempt(assign=assign) if assign.kind != "train":
                flushes.add(assign.round)
            case Applied(round=number):
                last = max(last, number)
                applied.add(number)
            case Saved(round=number):
                published[number] = last
            case _:
                pass
    return Life(last, resumed, tuple(sorted(flushes & applied)), published)


def lost_by(life: Life, kept: int) -> int:
    """Return how many rounds the end of a life has cost.

    Args:
        life: what it did.
        kept: the round that the newest checkpoint of this very life holds; -1 if it left none.
    """
    return life.last - kept


def may_lose(life: Life, kept: int) -> int:
    """Return how many rounds the end of a life may cost: one interval and one save.

    The save is the one that the end has torn: rounds since its flush. The flush was asked for an
    interval after the one before or, where that kept the writer for longer, in the next round. No
    record tells when the writer is free again: it removes an older checkpoint first, for which
    half as many rounds as for the save are allowed.
    """
    before = life.rounds_of_save(kept) * 3 // 2 + 2 if kept >= 0 else 0
    torn = [flush for flush in life.flushes if flush > kept and flush not in life.published]
    return max(INTERVAL, before) + ROUNDS_AHEAD + (life.last - torn[-1] if torn else 0)
