"""What a checkpoint needs of the coordinator: the ledger, the last views, leave to be published.

A coordinator that was deposed without knowing it must not have a checkpoint published: its members
train on what another coordinator counts again. So leave is given on a look at the arbiter that
began after it was asked for; where the arbiter is out of reach, after a while without one, for the
same reason for which training goes on.
"""

from dssync.control import messages as m
from dssync.control.job import Job
from dssync.control.states import ViewLine

REACH_SECONDS = 5.0
"""How long the arbiter is waited for."""
LOOKS = 2
"""The next look may have begun before it was asked."""


def ledger_copy(job: Job, number: int) -> m.LedgerCopy:
    """Return what goes into a checkpoint of a round."""
    return m.LedgerCopy(number, job.ledger.state, job.term, tuple(job.views))


class Archive:
    """Keeps the last views, and gives leave to publish."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._asked: list[tuple[str, int, float, int]] = []
        """Member, round, time, and looks that had been seen."""
        self._looks = 0

    def note_view(self) -> None:
        """Keep a new view."""
        world, views = self._job.world, self._job.views
        if world is None or (views and views[-1].sequence == world.view.sequence):
            return
        view = world.view
        unweighted = tuple(sorted(view.unweighted))
        views.append(ViewLine(view.term, view.sequence, view.members, unweighted))

    def ask(self, key: str, message: m.AskLedger | m.AskPublish, now: float) -> None:
        """Answer a member that saves. Where nobody looks at an arbiter, it may publish at once."""
        if isinstance(message, m.AskLedger):
            self._job.outbox.tell(key, ledger_copy(self._job, message.round))
            return
        self._asked.append((key, message.round, now, self._looks))
        self.tick(now)

    def looked(self, now: float) -> None:
        """The arbiter was read, and it names this coordinator."""
        self._looks += 1
        self.tick(now)

    def tick(self, now: float) -> None:
        """Give leave to whom it is due."""
        due = [each for each in self._asked if self._is_due(each, now)]
        self._asked = [each for each in self._asked if each not in due]
        for key, number, _, _ in due:
            self._job.outbox.tell(key, m.MayPublish(number, self._job.term))

    def _is_due(self, asked: tuple[str, int, float, int], now: float) -> bool:
        _, _, since, looks = asked
        if not self._job.may_decide(now):
            return False  # It does not know whether it leads.
        if not self._looks or self._job.completed:
            return True
        return self._looks >= looks + LOOKS or now - since >= REACH_SECONDS
