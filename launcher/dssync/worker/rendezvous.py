"""What the link's thread does for the communicators: build ahead, give up, deliver addresses."""

import os

import torch

from dssync.contract import EXIT_REJOIN
from dssync.control import messages as m
from dssync.worker.communicator import Communicator, Communicators
from dssync.worker.link import Link
from dssync.worker.measure import Measure
from dssync.worker.reaper import Reaper
from dssync.worker.store import Mailbox
from dssync.worker.transport import make_backend
from dssync.worker.word import tell

REAP_SECONDS = 2.0


class Rendezvous:
    """The communicators of this member, and what keeps them in step with its assignments."""

    def __init__(self, link: Link, device: torch.device, measure: Measure) -> None:
        reaper = Reaper()
        self._measure = measure
        self._mailbox = Mailbox(link.send_blob)
        backend = make_backend(link.setup, device, reaper, self._rejoin)
        self.communicators = Communicators(backend, self._mailbox, reaper)
        link.listen(self)

    def on_assign(self, assign: m.Assign) -> None:
        """Build the communicators of an assignment ahead; drop those that no round uses."""
        for communicator in assign.retire:
            self.communicators.retire(communicator)
        for stage in assign.stages:
            if len(stage.members) > 1:
                self.communicators.prepare(Communicator(stage.communicator, stage.members))

    def on_abandon(self, assign: m.Assign) -> None:
        """Release what an attempt has under way."""
        for stage in assign.stages:
            self.communicators.abandon(stage.communicator)

    def on_adopt(self) -> None:
        """Give up every communicator of the term that is over."""
        self.release()

    def on_blob(self, communicator: str, key: str, value: bytes) -> None:
        """Take a mate's rendezvous data."""
        self._mailbox.deliver(communicator, key, value)

    def measure(self) -> None:
        """Feed the series of communicators."""
        measure = self._measure
        counts = self.communicators.counts()
        measure.total("dssync_communicator_builds_total", counts.builds_succeeded, result="built")
        measure.total("dssync_communicator_builds_total", counts.builds_failed, result="failed")
        measure.total(
            "dssync_communicator_builds_total", counts.builds_cancelled, result="cancelled"
        )
        measure.total("dssync_operations_abandoned_total", counts.operations_abandoned)
        measure.set("dssync_communicators", counts.cached)
        measure.set("dssync_reaper_pending", counts.reaper_pending)

    def release(self) -> None:
        """Give every communicator up without waiting."""
        self.communicators.close_all(0.0)

    def close(self) -> None:
        """Give every communicator up; an operation that fails in a dying process aborts it."""
        self.communicators.close_all(REAP_SECONDS)

    def _rejoin(self, communicator: str) -> None:
        """End the process, which nothing else would free, and come back as a newcomer."""
        self._measure.increment("dssync_aborts_hung_total")
        self._measure.push()
        tell(f"the abort of communicator {communicator} hangs: this worker starts anew")
        os._exit(EXIT_REJOIN)
