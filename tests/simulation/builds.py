"""A member's communicators: built once all its mates have said how to reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dssync.control import messages as m
from simulation.violation import ViolationError

if TYPE_CHECKING:
    from simulation.worker import Worker

BUILD_TIMEOUT_SECONDS = 10.0


@dataclass
class Build:
    """A communicator at one member."""

    members: tuple[str, ...]
    ready: bool = False
    failed: bool = False


class Builds:
    """The communicators of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._open: dict[str, Build] = {}
        self._mailbox: dict[str, set[str]] = {}
        self._given_up: set[str] = set()
        self._given_up_alone: set[str] = set()
        """While nobody led."""

    def build(self, stage: m.Stage, *, provisional: bool = False) -> Build:
        """Return a communicator, which is built if it is new.

        Nobody has assigned a provisional round, and its communicator may have been given up; what
        this member has given up while nobody led, it may have been assigned before; and a
        coordinator may be lost when it has told this member of one round that ends with it only.
        """
        known = self._open.get(stage.communicator)
        if known is not None:
            return known
        worker, build = self._worker, Build(stage.members)
        alone = provisional or stage.communicator in self._given_up_alone or worker.state.leaderless
        if stage.communicator in self._given_up and alone:
            return Build(stage.members, failed=True)
        self._open[stage.communicator] = build
        if stage.communicator in self._given_up:
            raise ViolationError(f"{worker.key} is to build {stage.communicator} a second time")
        worker.send_blob(stage.communicator)
        worker.later(BUILD_TIMEOUT_SECONDS, lambda: self._time_out(build))
        self._finish(stage.communicator)
        return build

    def receive(self, blob: m.Blob) -> None:
        """Take in how to reach a mate."""
        self._mailbox.setdefault(blob.communicator, set()).add(blob.key)
        self._finish(blob.communicator)

    def retire(self, communicator: str) -> bool:
        """Destroy a communicator when its last operation is over."""
        self._given_up.add(communicator)
        self._mailbox.pop(communicator, None)
        return self._open.pop(communicator, None) is not None

    def give_up(self, communicator: str) -> None:
        """Release what is under way on a communicator."""
        if self.retire(communicator):
            self._worker.job.fabric.leave(communicator, self._worker.key)

    def give_up_alone(self, communicator: str) -> None:
        """Give a communicator up that a coordinator may have assigned for later rounds, too."""
        self._given_up_alone.add(communicator)
        self.give_up(communicator)

    def give_up_all(self) -> None:
        for communicator in list(self._open):
            self.give_up(communicator)

    def _time_out(self, build: Build) -> None:
        if not build.ready and not build.failed:
            build.failed = True
            self._worker.advance()

    def _finish(self, communicator: str) -> None:
        build = self._open.get(communicator)
        blobs = self._mailbox.get(communicator, set()) | {self._worker.key}
        if build is not None and not build.ready and blobs.issuperset(build.members):
            random = self._worker.scheduler.random
            self._worker.later(random.uniform(0.001, 0.1), lambda: self._built(build))

    def _built(self, build: Build) -> None:
        build.ready = not build.failed
        self._worker.advance()
