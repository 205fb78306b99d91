"""What a launcher keeps of the data, so that no coordinator's death loses a commit. Sans IO.

The coordinator's ledger is in one memory. From time to time it sends its state to every launcher
(``LedgerNews``); in between, each launcher keeps the *commit records* of its members: a strict
``Commit`` names the batches of the whole group, so every launcher of the group has them, and those
that members of the group bring along from commits that nobody else knows (``control.hearsay``); an
``Applied`` names those of a member that committed by itself. A record is dropped when a ledger
that covers it arrives. A new coordinator joins the newest ledger with everybody's records: batch
numbers are committed or not, so nothing is counted twice however often it is reported.

The launcher keeps them and not the worker, because a worker's death is the more frequent one.
"""

from collections.abc import Mapping
from typing import Final

from dssync.control import messages as m
from dssync.control.codec import tag_of
from dssync.control.ledger import committed_in
from dssync.control.share import Share
from dssync.control.takeover import Adopt

SAID: Final = frozenset({"Enter", "Confirm", "Abandoned", "Applied"})
TOLD: Final = frozenset({"Commit", "Leases", "Adopt", "Start", "Bench"})
"""Tags of the messages that matter here; launchers pass the others on unread."""


class CommitRecords:
    """The records of one launcher's members."""

    def __init__(self) -> None:
        self.ledger: m.LedgerState | None = None
        self._put_out: set[str] = set()
        """Members that the coordinator has put out and not let in again."""
        self._number = 0
        self._restarts = 0
        self._term = 0
        self._next_term = 0
        self._committed: set[int] = set()
        self._held: dict[str, set[int]] = {}
        self._alone: dict[str, set[int]] = {}
        """Of the committed ones, those that one member has committed by itself, and nobody else."""
        self._out: set[str] = set()
        """Members that were told that they are out, and have not entered again."""
        self._doubted: set[int] = set()
        """What they had committed by themselves before: the coordinator may have heard of it before
        it put them out or not, which the next ledger tells."""
        self._entering: dict[str, int] = {}
        """Members that are not let in yet, and how often they had entered before: what is leased
        to them was for their former life."""
        self._confirmed: dict[str, m.Confirm] = {}
        self._given_out: set[int] = set()
        self._unheard: set[int] = set()
        """Of the committed ones, those of which no coordinator has been told."""

    def give_out(self, key: str, take: m.Take, share: Share) -> m.Leases:
        """Answer a member in the coordinator's place while nobody leads."""
        batches: tuple[int, ...] = ()
        if self.ledger is not None:
            taken = self._committed.union(self._given_out, *self._held.values())
            batches = share.batches(self.ledger, take.track, take.count, taken)
        self._given_out.update(batches)
        self._held.setdefault(key, set()).update(batches)
        return m.Leases(take.track, batches)

    def link(self, term: int) -> None:
        """Note that the coordinator of a term is to hear of these records.

        What it then says is its own history, with what it took over from here. A record that is
        not in it belongs to a history that was given up.
        """
        self._next_term = term
        self._unheard.clear()

    def discard_unheard(self) -> None:
        """Forget what was committed while nobody led.

        The coordinator was only out of reach: it leases these batches again.
        """
        self._committed -= self._unheard
        self._alone = self._still_alone
        self._unheard.clear()

    def _settle(self) -> None:
        if self._term != self._next_term:
            self._term, self._put_out, self._number = self._next_term, set(), 0
            self._restarts = 0
            self._committed.clear()
            self._alone.clear()
            self._doubted.clear()
            self._given_out.clear()

    def said(self, key: str, body: str, *, heard: bool = True) -> None:
        """Note what a member says to the coordinator, which hears of it unless nobody leads."""
        if tag_of(body) not in SAID:
            return
        match m.MEMBER.decode(body):
            case m.Enter(generation=generation):
                self.gone(key)
                self._entering[key] = generation
            case m.Confirm() as confirm:
                self._confirmed[key] = confirm
            case m.Abandoned():
                self._confirmed.pop(key, None)
            case m.Applied() if key in self._out:
                pass  # It had not read yet that it is out. The coordinator does not count it.
            case m.Applied(_, _, batches):
                self._confirmed.pop(key, None)
                own = set(batches) - self._committed
                self._commit(key, batches)
                self._alone.setdefault(key, set()).update(own)
                if not heard:
                    self._unheard.update(batches)
            case _:
                pass

    def told(self, key: str, body: str) -> None:
        """Note what a member hears from the coordinator."""
        if tag_of(body) not in TOLD:
            return
        self._settle()
        match m.TO_MEMBER.decode(body):
            case m.Commit(_, _, batches, earlier):
                self._confirmed.pop(key, None)
                self._commit(key, batches + earlier)
            case m.Start(generation=generation):
                if self._entering.get(key) == generation:
                    del self._entering[key]
                    self._put_out.discard(key)
            case Adopt(commits=commits):
                # One that has entered again stays so: this answers what it reported before.
                self._confirmed.pop(key, None)
                for verdict in commits:
                    self._commit(key, verdict.batches)
            case m.Bench():
                self.benched(key)
            case m.Leases(_, batches) if key not in self._entering:
                self._held.setdefault(key, set()).update(batches)
            case _:
                pass

    def benched(self, key: str) -> None:
        """A member hears that it is out of the view, from the coordinator or from its launcher."""
        self._out.add(key)
        self._doubted.update(self._alone.get(key, ()))

    def gone(self, key: str) -> None:
        """A member's process has ended, or begins anew: it holds nothing any more."""
        self._held.pop(key, None)
        self._out.discard(key)
        self._entering.pop(key, None)
        self._confirmed.pop(key, None)

    def learn(self, news: m.LedgerNews) -> None:
        """Take a newer ledger; forget the records that it covers, and whose leases it counts."""
        self._settle()
        if news.restarts != self._restarts:
            self._restarts = news.restarts
            self._committed.clear()
        self.ledger = ledger = news.ledger
        self._put_out, self._number = {*news.put_out}, news.number
        self._given_out.clear()
        for key in news.put_out:
            # It was out before the coordinator heard of these, and others have them now.
            self._committed -= self._alone.pop(key, set())
        self._committed -= self._doubted
        self._doubted.clear()
        self._committed = {b for b in self._committed if not committed_in(ledger, b)}
        self._alone = self._still_alone

    @property
    def report(self) -> m.LedgerReport:
        """What a new coordinator needs of this launcher to rebuild the ledger."""
        return m.LedgerReport(
            self.ledger,
            tuple(sorted(self._committed)),
            _by_member(self._held),
            tuple(m.Confirmed(key, each) for key, each in self._confirmed.items()),
            tuple(sorted(self._given_out)),
            tuple(sorted(self._put_out)),
            self._number,
            self._term,
            self._restarts,
            _by_member(self._still_alone),
        )

    @property
    def _still_alone(self) -> dict[str, set[int]]:
        """What members applied by themselves and no ledger covers, without those who have none."""
        return {k: mine for k, own in self._alone.items() if (mine := own & self._committed)}

    def _commit(self, key: str, batches: tuple[int, ...]) -> None:
        self._held.setdefault(key, set()).difference_update(batches)
        self._committed.update(batches)
        self._doubted.difference_update(batches)
        for alone in self._alone.values():
            alone.difference_update(batches)


def _by_member(batches: Mapping[str, set[int]]) -> tuple[m.Held, ...]:
    return tuple(m.Held(key, tuple(sorted(each))) for key, each in batches.items())
