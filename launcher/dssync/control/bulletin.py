"""What the coordinator tells all launchers of each other, in case it is lost."""

from dssync.control.job import Job
from dssync.control.pace import Pace
from dssync.control.takeover import Launcher, Launchers


class Bulletin:
    """Sends who the launchers are, some time after that has changed."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._connects = 0
        self._known: tuple[int, int, tuple[Launcher, ...]] = (0, 0, ())
        self._pace = Pace()
        self.launchers: tuple[Launcher, ...] = ()
        """The launchers of the current view, by slot, as they were told last."""
        self.missing: tuple[Launcher, ...] = ()
        """The launchers that were missing then, and not in the view."""

    def update(self, now: float) -> None:
        """Send what has changed."""
        pods = self._job.roster.pods
        current = (self._connects, len(pods), self._job.quorum.missing)
        if current == self._known or not self._pace.is_due(now, len(pods)):
            return
        self._known = current
        self.launchers = tuple(pods[slot].launcher for slot in sorted(pods))
        here = {pod.uid for pod in pods.values()}
        self.missing = tuple(each for each in current[2] if each.uid not in here)
        for slot in pods:
            self._job.outbox.send(slot, Launchers(self.launchers, self.missing))

    def tell(self, slot: int) -> None:
        """Send what there is to a launcher that begins a session."""
        self._connects += 1
        if self._job.ledger.total:
            self._job.outbox.send(slot, self._job.news())
