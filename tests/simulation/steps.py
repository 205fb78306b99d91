"""What the training thread of a worker keeps: its steps, and the attempt that it is in."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from dssync.control import messages as m
from simulation.fabric import Numbers


@dataclass
class Attempt:
    """The attempt that the training thread is in."""

    assign: m.Assign
    term: int
    values: Numbers
    support: int
    stage: int = 0
    waits: bool = False
    """It has said that it waits for a build."""
    announced: bool = False
    """It has said that its operations run."""
    operating: bool = False
    confirmed: bool = False
    reported: bool = False
    bounded: bool = False
    """While nobody leads: it will be given up."""


@dataclass
class Training:
    """What the training thread keeps between rounds."""

    values: Numbers
    support: int = 0
    """The committed batches in ``values``; see ``observer``."""
    consumed: tuple[int, ...] = ()
    consumed_support: int = 0
    stepped: bool = False
    """It is inside ``sync.step()``."""
    step_round: int = -1
    idle: bool = False
    busy: bool = False
    registered: bool = False
    welcomed: bool = False
    counts: bool = False
    """Its values have weight in the next round."""
    ended: bool = False
    """It has applied the final flush, and waits for news of the end."""
    attempt: Attempt | None = None


@dataclass
class Slowness:
    """How long this worker takes."""

    train_seconds: float = 0.05
    extra_seconds: float = 0.0
    """Added once, to the next step: a straggler."""
    on_end: Callable[[], None] = lambda: None
    """Called once it straggles no more."""

    def straggle(self, seconds: float, on_end: Callable[[], None]) -> None:
        """Take longer for the next step."""
        self.on_end()
        self.extra_seconds, self.on_end = seconds, on_end

    def next_seconds(self, random: Random) -> float:
        """Return what the step takes that begins now."""
        seconds = self.train_seconds * random.uniform(0.8, 1.2) + self.extra_seconds
        self.extra_seconds = 0.0
        return seconds

    def stepped(self) -> None:
        """A step has ended, maybe one that had begun before it was to straggle."""
        if not self.extra_seconds:
            self.on_end()
            self.on_end = lambda: None
