"""What of the data is done: cursor, leases, holes and counts, in whole batches.

A batch is *leased* to a member ahead of its rounds, *consumed* by the step that follows it and
*committed* with the round of that step. What a member held and did not commit becomes a *hole*
when it leaves, and holes are leased again before new batches.

A job may draw from several loaders; each is a *track*. Batches are numbered through all epochs
and tracks: number ``n`` of a track that begins at ``base`` is batch ``(n - base) %
batches_per_epoch`` of epoch ``(n - base) // batches_per_epoch``. So one number says which batch
it is, everywhere, and the set of committed numbers can be joined from several sources.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import accumulate

from dssync.control.messages import LedgerState, Track, TrackState
from dssync.errors import ProtocolError


class _Cursor:
    """The batches of one track that were never leased, and those that came back."""

    def __init__(self, base: int, total: int) -> None:
        self.base = base
        self.end = base + total
        self.next = base
        self.holes: deque[int] = deque()

    @property
    def available(self) -> int:
        return len(self.holes) + self.end - self.next

    def take(self) -> int:
        if self.holes:
            return self.holes.popleft()
        self.next += 1
        return self.next - 1


class Ledger:
    """The data of one job, on the coordinator."""

    def __init__(self) -> None:
        self.tracks: tuple[Track, ...] = ()
        self.epochs = 0
        self.committed = 0
        self.repeated = 0
        """Commits of batches that had been leased again meanwhile."""
        self.fresh_holes = False
        """Holes have appeared since somebody last looked."""
        self.changes = 0
        """Grows with every commit."""
        self._cursors: list[_Cursor] = []
        self._leases: dict[str, set[int]] = {}

    @classmethod
    def restored(
        cls,
        state: LedgerState,
        committed: Iterable[int] = (),
        held: Mapping[str, Iterable[int]] | None = None,
    ) -> "Ledger":
        """Return the ledger of a run under way: a new coordinator's, or a resumed job's.

        Args:
            state: the newest one that anybody has; an older one only makes more holes.
            committed: batches of commit records that ``state`` may not cover.
            held: what members that live hold, by key; whatever else is open becomes a hole.
        """
        ledger = cls()
        if not state.tracks:
            return ledger  # The members bring data of their own.
        ledger.register(
            tuple(Track(t.name, t.batches_per_epoch) for t in state.tracks), state.epochs
        )
        ledger.repeated = state.repeated
        open_: set[int] = set()
        for cursor, track in zip(ledger._cursors, state.tracks, strict=True):
            cursor.next = track.cursor
            open_.update(track.open)
        for batch in committed:
            open_ |= ledger._pass_over(batch)
            open_.discard(batch)
        for key, batches in (held or {}).items():
            for batch in batches:
                open_ |= ledger._pass_over(batch)
            mine = open_.intersection(batches)
            ledger._leases[key] = mine
            open_ -= mine
        ledger._add_holes(open_)
        leased = sum(map(len, ledger._leases.values()))
        ledger.committed = ledger.total - ledger.available - leased
        return ledger

    def register(self, tracks: tuple[Track, ...], epochs: int) -> None:
        """State the size of the run; every member states the same.

        Raises:
            ProtocolError: there is no data, or another member stated another size.
        """
        if not tracks or any(t.batches_per_epoch < 1 for t in tracks) or epochs < 1:
            raise ProtocolError(f"run() has {_sizes(tracks, epochs)}: at least 1 of each")
        stated, known = (tracks, epochs), (self.tracks, self.epochs)
        if stated == known:
            return
        if self.tracks:
            raise ProtocolError(
                f"run() has {_sizes(tracks, epochs)} here but {_sizes(*known)} in the other "
                "members: use the same data set, batch size and epochs everywhere"
            )
        self.tracks, self.epochs = stated
        sizes = [track.batches_per_epoch * epochs for track in tracks]
        bases = [0, *accumulate(sizes)]
        self._cursors = [_Cursor(base, size) for base, size in zip(bases, sizes, strict=False)]

    def renewed(self) -> "Ledger":
        """Return the ledger of the same run with nothing done; its members state sizes once."""
        fresh = Ledger()
        if self.tracks:
            fresh.register(self.tracks, self.epochs)
        return fresh

    @property
    def state(self) -> LedgerState:
        """What is done, for those who keep it: launchers and checkpoints."""
        leased = set().union(*self._leases.values())
        tracks = []
        for track, cursor in zip(self.tracks, self._cursors, strict=True):
            open_ = [*cursor.holes, *(b for b in leased if cursor.base <= b < cursor.end)]
            tracks.append(
                TrackState(track.name, track.batches_per_epoch, cursor.next, tuple(sorted(open_)))
            )
        return LedgerState(self.epochs, tuple(tracks), self.repeated)

    @property
    def total(self) -> int:
        """Batches in all epochs of all tracks; 0 before the first ``register``."""
        return self._cursors[-1].end if self._cursors else 0

    @property
    def complete(self) -> bool:
        """Whether every batch of every epoch is committed."""
        return self.total > 0 and self.committed == self.total

    @property
    def progress(self) -> float:
        """Committed fraction of the run."""
        return self.committed / self.total if self.total else 0.0

    @property
    def available(self) -> int:
        """Batches that nobody holds or has committed."""
        return sum(cursor.available for cursor in self._cursors)

    def available_of(self, track: int) -> int:
        """Return how many batches of one track nobody holds or has committed."""
        known = 0 <= track < len(self._cursors)
        return self._cursors[track].available if known else 0

    def take(self, member: str, count: int, track: int = 0) -> tuple[int, ...]:
        """Lease up to ``count`` batches to ``member``, holes first; empty when all are leased."""
        number = min(count, self.available_of(track))
        taken = [self._cursors[track].take() for _ in range(number)]
        self._leases.setdefault(member, set()).update(taken)
        return tuple(taken)

    def commit(self, member: str, batches: Iterable[int]) -> None:
        """Count batches as done. One that the member no longer holds counts as repeated."""
        held = self._leases.get(member, set())
        for batch in batches:
            self.changes += 1
            if batch in held:
                held.discard(batch)
                self.committed += 1
            else:
                self.repeated += 1

    def release(self, member: str) -> int:
        """Turn what ``member`` still holds into holes; return how many."""
        held = self._leases.pop(member, set())
        self._add_holes(held)
        self.fresh_holes = self.fresh_holes or bool(held)
        return len(held)

    def _add_holes(self, batches: Iterable[int]) -> None:
        for batch in sorted(batches):
            cursor = self._cursor_of(batch)
            if cursor is not None:
                cursor.holes.append(batch)

    def _pass_over(self, batch: int) -> set[int]:
        """Move a cursor beyond ``batch``; return what was not leased until now."""
        cursor = self._cursor_of(batch)
        if cursor is None or batch < cursor.next:
            return set()
        passed = set(range(cursor.next, batch + 1))
        cursor.next = batch + 1
        return passed

    def _cursor_of(self, batch: int) -> _Cursor | None:
        return next((c for c in self._cursors if c.base <= batch < c.end), None)


def committed_in(state: LedgerState, batch: int) -> bool:
    """Tell whether a ledger counts a batch as done."""
    base = 0
    for track in state.tracks:
        if batch < base + track.batches_per_epoch * state.epochs:
            return batch < track.cursor and batch not in track.open
        base += track.batches_per_epoch * state.epochs
    return False


def _sizes(tracks: tuple[Track, ...], epochs: int) -> str:
    batches = ", ".join(
        f"{track.batches_per_epoch} batches" + (f" of {track.name!r}" if track.name else "")
        for track in tracks
    )
    return f"{batches or '0 batches'} and {epochs} epochs"
