"""What members ask for that no training needs: an early end, and what checkpoints need.

A run draws it from numbers of its own, so that whatever else it does is the same without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from dssync.control import messages as m
from simulation.profile import Profile

if TYPE_CHECKING:
    from simulation.faults import Faults
    from simulation.worker import Worker

EVERY = 10
"""Of the seeds of other profiles, one in so many asks."""
LAYOUT = "adam"
"""Of an optimizer's state, once it has taken a step."""
ROUNDS = 7
"""Between two checkpoints of one member alone."""
READ_SECONDS = 0.3
WRITE_SECONDS = 0.8


@dataclass(frozen=True)
class Asks:
    """What members of a run ask for."""

    saves: bool = False
    """They read and write checkpoints, and average the state of their optimizers."""
    averages: bool = False
    """In every round, not only at a flush."""
    stop_events: int = 0
    """Somebody asks for an early end after so many events; nobody if it is 0."""


def asks_of(seed: int, profile: Profile) -> Asks:
    """Return what members of a run ask for."""
    if not profile.asks and seed % EVERY:
        return Asks()
    random = Random(f"asks {seed}")
    averages, stops = random.random() < 0.5, random.random() < 0.5
    return Asks(True, averages, random.randint(500, 900) if stops else 0)


class Stop:
    """A member asks for an early end, once enough has gone wrong."""

    def __init__(self, faults: Faults, events: int, fewest_faults: int) -> None:
        self.asked = False
        self._faults = faults
        self._events = events
        self._fewest_faults = fewest_faults
        self._random = Random(events)

    def look(self) -> None:
        """Ask if the time has come."""
        world = self._faults.world
        is_due = 0 < self._events <= world.observer.events
        if not is_due or self._faults.injected < self._fewest_faults:
            return
        asking = [w for w in world.workers if w.state.started and w.exit_code is None]
        if asking:
            self._events, self.asked = 0, True
            worker = self._random.choice(asking)
            world.observer.note(f"{worker.key} asks for a stop")
            worker.say(m.AskStop())


class Saver:
    """A member's part in checkpoints: the first one of a view saves, whoever enters may read."""

    def __init__(self, worker: Worker, *, saves: bool) -> None:
        self._worker = worker
        self.saves = saves

    def stepped(self) -> None:
        """The optimizer has taken a step: say what of its state can be averaged."""
        state = self._worker.state
        if self.saves and state.moments != LAYOUT:
            state.moments = LAYOUT
            self._worker.say(m.Moments(LAYOUT))

    def read(self) -> None:
        """Look for a checkpoint, and find none."""
        worker = self._worker
        worker.state.resume, life = False, worker.state.generation

        def found() -> None:
            if worker.state.generation == life:
                worker.say(m.Resumed(None))

        worker.later(worker.scheduler.random.uniform(0.01, READ_SECONDS), found)

    def applied(self, assign: m.Assign) -> None:
        """A round is applied: save at each flush, and now and then without one."""
        is_due = assign.kind != "train" or assign.round % ROUNDS == 0
        if not (self.saves and is_due and assign.first == self._worker.key):
            return
        if assign.kind == "train":
            self._worker.say(m.AskLedger(assign.round))
        if assign.kind != "final":
            seconds = self._worker.scheduler.random.uniform(0.05, WRITE_SECONDS)
            self._worker.later(seconds, lambda: self._worker.say(m.AskPublish(assign.round)))
