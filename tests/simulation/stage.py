"""A run whose faults a test places by hand: who reaches whom and who reaches the arbiter, when."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice

from simulation.pod import Pod
from simulation.profile import Profile
from simulation.run import Simulation

BATCHES = 5000
"""In an epoch: more than any run here trains on."""
EVERY_FAULT = frozenset(range(20))
STRICT, RELAXED = (Profile(each, members=1, commit=each) for each in ("strict", "relaxed"))


class Stage(Simulation):
    """A job that goes on and meets with nothing but what a test does to it."""

    def __init__(self, seed: int, profile: Profile = STRICT) -> None:
        super().__init__(seed, profile=profile, omitted=EVERY_FAULT)
        self.job.batches = (BATCHES, 1)

    def until(self, seconds: float) -> None:
        """Go on up to a moment.

        Raises:
            ViolationError: an invariant does not hold.
        """
        while self.scheduler.now < seconds:
            self.scheduler.step()
            self.observer.now = self.scheduler.now

    @property
    def chief(self) -> Pod:
        """The pod that coordinates, as the arbiter has it."""
        found = self.leader
        assert found is not None
        return found

    @property
    def others(self) -> list[Pod]:
        """The other pods that live, by slot."""
        return [pod for pod in self.live_pods if pod is not self.leader]

    def cut(self, near: Iterable[Pod], far: Iterable[Pod]) -> list[tuple[str, str]]:
        """End all ways between two sets of pods, and say which."""
        far = list(far)
        pairs = [(a.uid, b.uid) for a in near for b in far]
        ways = [way for a, b in pairs for way in ((a, b), (b, a))]
        self.faults.marks.hold(*self.live_pods)
        self.network.block(ways)
        return ways

    def lose_arbiter(self, *pods: Pod, back: bool = False) -> None:
        """Let the arbiter answer these pods no more, or again."""
        for pod in pods:
            self.cell.weather(pod.uid).outages += -1 if back else 1

    @property
    def won(self) -> list[tuple[int, str, float]]:
        """Terms, their coordinators, and when each was won."""
        cell = self.cell
        return [(term, cell.holders[term], cell.since[term]) for term in sorted(cell.since)]

    def committed(self, term: int) -> int:
        """Return how many batches the coordinator of a term counts."""
        return self.observer.monitors[term].coordinator.ledger.committed


def stages(pods: int, runs: int, profile: Profile = STRICT) -> Iterable[Stage]:
    """Return some jobs of so many pods, in which nothing but an operator proves an end."""
    made = (Stage(seed, profile) for seed in count())
    return islice((each for each in made if len(each.pods) == pods), runs)
