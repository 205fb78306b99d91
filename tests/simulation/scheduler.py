"""Virtual time, and processes that can be frozen and killed and whose clocks are their own."""

import heapq
import math
import random
from collections.abc import Callable
from functools import partial
from itertools import count

Action = Callable[[], None]


class Scheduler:
    """Runs actions in the order of their virtual times; all randomness of a run comes from it."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self._queue: list[tuple[float, int, Action]] = []
        self._numbers = count()

    def later(self, seconds: float, action: Action) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._numbers), action))

    def at(self, moment: float, action: Action) -> None:
        """Run an action at a moment; those of one moment run in the order of these calls."""
        heapq.heappush(self._queue, (moment, next(self._numbers), action))

    def step(self) -> bool:
        """Run the next action; False if there is none."""
        if not self._queue:
            return False
        self.now, _, action = heapq.heappop(self._queue)
        action()
        return True


class Process:
    """Something that runs, may stand still for a while, and may die."""

    def __init__(self, scheduler: Scheduler, rate: float = 1.0) -> None:
        """Start a process.

        Args:
            scheduler: of the run.
            rate: seconds of its clock in a second.
        """
        self.scheduler = scheduler
        self.alive = True
        self.frozen = False
        self.thawed_seconds = -math.inf
        """When it went on last after it had stood still."""
        self._rate = rate
        self._jumped_seconds = 0.0
        self._held_back: list[Action] = []

    def clock(self) -> float:
        """Return what this process takes for the time; never the time of another one."""
        return self.scheduler.now * self._rate + self._jumped_seconds

    def jump(self, seconds: float) -> None:
        """Let its clock jump ahead."""
        self._jumped_seconds += seconds

    def later(self, seconds: float, action: Action) -> None:
        """Run an action of this process: after a freeze if it is frozen, never if it is dead."""
        self.scheduler.later(seconds, partial(self.run, action))

    def run(self, action: Action) -> None:
        if not self.alive:
            return
        if self.frozen:
            self._held_back.append(action)
        else:
            action()

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen, self.thawed_seconds = False, self.scheduler.now
        held, self._held_back = self._held_back, []
        for number, action in enumerate(held):
            if self.frozen:
                self._held_back.extend(held[number:])
                return
            self.run(action)

    def kill(self) -> None:
        self.alive = False
        self._held_back.clear()
