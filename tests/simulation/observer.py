"""What is observed over all terms: who was hit, what members hold, who leads when.

Each coordinator has a `Monitor` of its own, because two may live at a time; what they share is
here. The batches in a member's values are a set of bits, one for each time that somebody trained
on a batch and had it committed; sums join the sets. So it shows in a member whether its history
holds a batch twice, whatever any coordinator believes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING

from dssync.control import ballots as b
from dssync.control.quorum import READ_SECONDS
from simulation.coverage import Coverage
from simulation.marks import Marks
from simulation.violation import require

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from dssync.control import messages as m
    from dssync.control.election import Election
    from simulation.arbiter import Cell
    from simulation.fabric import Numbers
    from simulation.monitor import Monitor

DEPOSED_SECONDS = READ_SECONDS * 1.2 + 0.1
"""So long a coordinator that was deposed may decide: a look's worth, on the slowest clock."""


class Observer:
    """The invariants that hold over terms, and what monitors have in common."""

    def __init__(
        self,
        coverage: Coverage,
        cell: Cell,
        follows: Callable[[int, int], bool],
        clock: Callable[[], float],
        trace: Callable[[str], None] | None,
    ) -> None:
        """Observe a run.

        Args:
            coverage: counts what is reached.
            cell: the arbiter.
            follows: tells whether a slot is linked to the coordinator of a term elsewhere.
            clock: tells the virtual time.
            trace: called with each line.
        """
        self.coverage = coverage
        self.cell = cell
        self.follows = follows
        self.monitors: dict[int, Monitor] = {}
        self.touched = Marks(clock)
        """Members that a fault has hit, and launchers with all their members."""
        self.hit = Marks(clock)
        """Launchers that a fault has hit, or whose arbiter."""
        self.leads_on: Callable[[str], bool] = lambda uid: False
        """Tells whether a launcher coordinates and has not wanted to stop."""
        self.is_healing: Callable[[str], bool] = lambda uid: False
        """Tells whether what was sent long ago may still reach a launcher."""
        self.events = 0
        """What state machines have taken in so far, but for ticks and heartbeats."""
        self.progressed = False
        self.told_term = 0
        """The first one whose coordinator has told somebody that the job is done."""
        self.applied_count = 0
        self.finalists: set[str] = set()
        """Members that applied the final flush and have not begun anew since."""
        self.summed: set[str] = set()
        """Members that have applied a sum."""
        self.counted: set[str] = set()
        """Members whose values have counted in any term."""
        self.joiners: set[str] = set()
        """Members that came when others were training."""
        self.decided: dict[tuple[str, int, int, int], tuple[int, ...]] = {}
        """Strict: what the decisions commit that a member was told: by key, term and attempt."""
        self.applied_batches: dict[int, set[int]] = defaultdict(set)
        """What members have committed by themselves, by the term that they were in."""
        self.final_seconds = math.inf
        """When somebody was first told of a final flush."""
        self.drained: set[str] = set()
        """Members that were told their last round."""
        self.communicators: dict[str, tuple[str, ...]] = {}
        self.digest = 0
        self.now = 0.0
        self._trace = trace
        self._instances = 0
        self._copies: dict[int, int] = defaultdict(int)
        """For each batch, the bits of all times that somebody trained on it."""
        self._forgotten = 0
        """Bits of commits that no survivor knew when a term began."""
        self._done: dict[str, set[int]] = defaultdict(set)
        """Strict: batches of the attempts that each member has applied, its mates' included."""
        self._in_values: dict[str, int] = {}
        """Strict: bits of all that is in what each member has applied last, whoever brought it."""
        self.recorded: set[int] = set()
        """Strict: batches of whose commit a launcher knew that did not coordinate."""

    @property
    def completed(self) -> bool:
        """Whether the job is done, as the record or a coordinator tells."""
        return self.ended_term > 0

    @property
    def final_assigned(self) -> bool:
        """Whether somebody was told of a final flush."""
        return self.final_seconds < math.inf

    @property
    def ended_term(self) -> int:
        """The term in which the job was done; 0 before."""
        return self.cell.ended_term or self.told_term

    # --- what happens -------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Put a line into the trace."""
        self.events += 1
        self.digest = zlib.crc32(text.encode(), zlib.crc32(struct.pack("d", self.now), self.digest))
        if self._trace is not None:
            self._trace(f"{self.now:.6f} {text}")

    def election(self, election: Election, event: b.Event) -> None:
        """Look at an event of an election before it is handled."""
        kind = type(event).__name__
        self.coverage.elections[election.phase.value, kind] += 1
        if kind not in ("Ticked", "Looked"):
            # The text of a set has another order in each process.
            what = f"ended {sorted(event.uids)}" if isinstance(event, b.ExitsSeen) else event
            self.note(f"{election.me.uid} {election.phase.value} {what}")

    def leads(self, uid: str, term: int) -> None:
        """A launcher begins to coordinate."""
        winner = self.cell.holders.get(term)
        require(winner == uid, f"{uid} leads term {term}, which {winner} has won")
        require(term not in self.monitors, f"term {term} begins a second time")
        former = max((each for each in self.cell.holders if each < term), default=0)
        holder = self.cell.holders.get(former, "")
        if holder not in self.hit and self.leads_on(holder):
            require(False, f"{uid} deposes {holder} in term {term}, which no fault has hit")

    def is_over(self, term: int) -> bool:
        """Tell whether a later term has been won."""
        return any(other > term for other in self.cell.since)

    def decides(self, term: int, *, holds: bool, what: str) -> None:
        """A coordinator freezes or commits a round."""
        require(not holds, f"the coordinator of {term} {what} without a look at the arbiter")
        later = [since for other, since in self.cell.since.items() if other > term]
        if later and not self.is_healing(self.cell.holders[term]):
            late = self.now - min(later)
            require(late <= DEPOSED_SECONDS, f"term {term} {what} {late:.1f} s after its end")

    def told_of_the_end(self, term: int, *, given_up: bool) -> None:
        """A coordinator tells that the job is done: the record says so, or cannot be written."""
        self.told_term = self.told_term or term
        recorded = self.cell.record.completed or given_up
        require(recorded, f"term {term} tells of an end that the record does not tell of")

    def goes_on(self, term: int) -> None:
        """A coordinator assigns something."""
        ended = self.cell.ended_term
        require(not 0 < ended < term, f"term {term} goes on with a job that term {ended} has ended")

    def begun(self, key: str, term: int, assign: m.Assign, values: Numbers) -> None:
        self.monitors[term].values.begun(key, assign, values)

    def committed(self, term: int, batches: tuple[int, ...]) -> None:
        """A member commits by itself what it has trained on."""
        self.applied_batches[term].update(batches)

    def applied(self, key: str, term: int, assign: m.Assign, result: tuple[Numbers, int]) -> None:
        """A member applies a result, in which some batches are."""
        self.applied_count += 1
        if assign.stages:
            self.summed.add(key)
        if assign.kind == "final":
            self.finalists.add(key)
        monitor = self.monitors[term]
        monitor.values.applied(key, assign, result[0])
        if monitor.is_strict:
            self._done[key].update(self.decided.get((key, term, assign.round, assign.attempt), ()))
            self._in_values[key] = result[1]
            if assign.kind != "train":
                self.check_batches(key, result[1])

    # --- batches ------------------------------------------------------------------------------

    def instance(self, batch: int) -> int:
        """Return the bit of one more training on a batch."""
        bit = 1 << self._instances
        self._instances += 1
        self._copies[batch] |= bit
        return bit

    def began(self, key: str) -> None:
        """A member begins anew, with another's values: what it knew and applied counts not."""
        self.finalists.discard(key)
        self._done.pop(key, None)
        self._in_values.pop(key, None)

    def restarted(self) -> None:
        """The data count anew."""
        self._done.clear()
        self._in_values.clear()
        self._forgotten = (1 << self._instances) - 1

    def adopted(self, key: str, committed: Set[int]) -> None:
        """A new term knows what it commits with a survivor."""
        known = self._in_values.get(key, 0) & ~self._forgotten
        brought = {batch for batch, bits in self._copies.items() if bits & known}
        # Of those a mate's launcher may have known as well, that was lost with the coordinator's.
        lost = (self._done[key] | (brought - self.recorded)) - committed
        require(not lost, f"batches {sorted(lost)}, which {key} applied, are not committed")

    def forget(self, committed: Set[int]) -> None:
        """A term begins, and what it does not count is trained on again."""
        for batch in self._copies.keys() - committed:
            self._forgotten |= self._copies[batch]

    def check_batches(self, key: str, support: int) -> None:
        """Strict: no batch is committed twice in what led to these values."""
        known = support & ~self._forgotten
        twice = [n for n, bits in self._copies.items() if (known & bits).bit_count() > 1]
        require(not twice, f"{key} holds values in which batches {twice} are twice")
