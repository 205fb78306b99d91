"""The workers of a launcher as it knows them: process, link, and how far each one is.

The launcher passes messages on unread; it looks at their tags only, which tell progress.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dssync.agent.link import WorkerLink
from dssync.agent.supervisor import WorkerProcess
from dssync.control import messages as m
from dssync.control.codec import tag_of
from dssync.control.takeover import Report


@dataclass
class Worker:
    """A worker and its link."""

    process: WorkerProcess
    link: WorkerLink
    key: str
    entered: bool = False
    """It said hello, so it drains by the protocol and not by a signal."""
    relaxed: bool = False
    """Its rounds commit without the coordinator, so it can go on while nobody leads."""
    admitted: bool = False
    """It has been in the view."""
    done: bool = False
    """It was told that the job is done, and has not entered again."""
    benched: bool = False
    """The coordinator has put it out of the view, and it has not come back."""
    round: int = -1
    """Last round that it applied."""
    round_seconds: float = 0.0
    """Between its last two rounds."""
    term: int = 0
    """In which it reported last; what it says belongs to it."""
    clock: Callable[[], float] = time.monotonic
    _heard_seconds: float = field(init=False)
    _applied_seconds: float | None = None

    def __post_init__(self) -> None:
        self._heard_seconds = self.clock()

    def says(self, body: str) -> None:
        """Note what a message of the worker tells."""
        self._heard_seconds = self.clock()
        tag = tag_of(body)
        if tag == "Enter":
            self.entered, self.benched, self._applied_seconds = True, False, None
            self.done = False
        if tag in ("Enter", "Applied", "Report"):
            self._note(m.MEMBER.decode(body))

    def is_told(self, body: str) -> None:
        """Note what a message to the worker means for it, and pass it on."""
        tag = tag_of(body)
        self.admitted = self.admitted or tag == "Start"
        self.done = self.done or tag == "Completed"
        if tag == "Bench":
            self.benched, self._heard_seconds = True, self.clock()
        self.link.control(body)

    @property
    def silent_seconds(self) -> float:
        """Time since it said anything."""
        return self.clock() - self._heard_seconds

    @property
    def progress(self) -> m.Progress:
        """How far it is, for the heartbeat."""
        return m.Progress(self.key, self.round, self.silent_seconds)

    def _note(self, message: object) -> None:
        match message:
            case Report(term):
                self.term = term
            case m.Enter():
                self.relaxed = message.sync.commit == "relaxed"
            case m.Applied(number):
                if self._applied_seconds is not None:
                    self.round_seconds = self._heard_seconds - self._applied_seconds
                self.round, self._applied_seconds = number, self._heard_seconds
            case _:
                pass
