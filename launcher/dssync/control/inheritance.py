"""What a new coordinator makes of the copies of the ledger and the records that launchers kept.

Pure: from reports to the ledger that the new term begins with; who goes on is `adoption`'s matter.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.ledger import Ledger, committed_in
from dssync.control.takeover import Verdict


def put_out_by(ledgers: Sequence[m.LedgerReport]) -> frozenset[str]:
    """Return the members that were put out, as the latest copy of the ledger tells.

    A launcher that has the copy and does not name a member has heard since that it was let in.
    """
    latest = max(((each.term, each.number) for each in ledgers), default=None)
    named = [{*each.put_out} for each in ledgers if (each.term, each.number) == latest]
    return frozenset(set.intersection(*named)) if named else frozenset()


def without(ledger: m.LedgerReport, out: Container[str]) -> m.LedgerReport:
    """Return a report without what members committed by themselves when they were out already.

    The last coordinator had put them out, or had begun without them; it had not heard of it and
    leased the batches again. Their values are dropped.
    """
    void = {batch for each in ledger.alone if each.member in out for batch in each.batches}
    return replace(ledger, committed=tuple(b for b in ledger.committed if b not in void))


def newest_of(ledgers: Sequence[m.LedgerReport]) -> m.LedgerState | None:
    """Return the copy of the ledger in which most is done."""
    copies = [each.ledger for each in ledgers if each.ledger is not None]
    return max(copies, key=_done, default=None)


def _done(state: m.LedgerState) -> int:
    return sum(track.cursor - len(track.open) for track in state.tracks) + state.repeated


class Known:
    """The batches that are committed as far as any launcher knows."""

    def __init__(self, ledgers: Sequence[m.LedgerReport], newest: m.LedgerState | None) -> None:
        self._newest = newest
        self._records = {b for r in ledgers for b in {*r.committed} - {*r.provisional}}

    def __contains__(self, batch: object) -> bool:
        newest = self._newest
        counted = newest is not None and isinstance(batch, int) and committed_in(newest, batch)
        return counted or batch in self._records


def joined(
    ledgers: Sequence[m.LedgerReport],
    newest: m.LedgerState | None,
    adopted: Container[str],
    commits: Mapping[str, tuple[Verdict, ...]],
) -> Ledger:
    """Join the newest ledger with what launchers know beyond it and with this term's verdicts."""
    if newest is None:
        return Ledger()
    done = {batch for each in ledgers for batch in each.committed}
    done.update(batch for some in commits.values() for each in some for batch in each.batches)
    held = {
        each.member: [batch for batch in each.batches if batch not in done]
        for ledger in ledgers
        for each in ledger.held
        if each.member in adopted
    }
    restored = Ledger.restored(newest, done, held)
    restored.repeated += _repeated(ledgers, newest)
    return restored


def _repeated(ledgers: Sequence[m.LedgerReport], newest: m.LedgerState) -> int:
    """Return how many batches of provisional rounds somebody else has committed as well."""
    committers = Counter(batch for each in ledgers for batch in each.committed)
    again = [batch for each in ledgers for batch in {*each.committed} & {*each.provisional}]
    return sum(committers[batch] > 1 or committed_in(newest, batch) for batch in again)
