"""What goes wrong once the job is done, while somebody has yet to hear of it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.faults import Faults
    from simulation.pod import Pod

SECONDS = 12.0
"""For so long after the end faults strike: some longer than a coordinator stays for others."""
IMPORT_SECONDS = (0.0, 0.0, 0.5, 4.0, 14.0)
"""What the workers of a latecomer need before they enter."""
KINDS = ("join", "join", "join", "lose", "lose", "lose", "kill", "freeze", "cut off", "drain")


class Aftermath:
    """Latecomers, and faults that hit those who have not left.

    Args:
        faults: what it belongs to.
        random: of its own, so that a run is the same up to its end whatever follows.
    """

    def __init__(self, faults: Faults, random: Random) -> None:
        self._faults = faults
        self._random = random
        self._began = False
        self._plan = [
            # Most of those who hear of the end have left two seconds after it.
            (random.choice((random.uniform(0.0, 2.0), random.uniform(0.0, SECONDS))), kind)
            for kind in random.choices(KINDS, k=random.randint(0, 5))
        ]

    def look(self) -> None:
        """Plan everything as soon as the job is done."""
        if not self._began:
            self._began = True
            for seconds, kind in self._plan:
                self._faults.later(seconds, lambda kind=kind: self._strike(kind))

    def _strike(self, kind: str) -> None:
        world, random = self._faults.world, self._random
        pod = world.leader if kind == "lose" else None
        pod = pod or (random.choice(world.live_pods) if world.live_pods else None)
        if pod is None:
            return  # Everybody has left.
        self._faults.strikes(f"{kind} {'' if kind == 'join' else pod.uid} after the end")
        if kind == "join":
            world.add_pod(random.randint(1, 2), import_seconds=random.choice(IMPORT_SECONDS))
        elif kind == "freeze":
            self._faults.freeze(pod, random.choice((0.1, 1.0, 2.5, 6.0, 20.0)))
        elif kind == "cut off":
            self._faults.cut_off(pod, random.uniform(0.1, 14.0))
        elif kind == "drain":
            self._faults.drain(pod)
        else:
            self._kill(pod)

    def _kill(self, pod: Pod) -> None:
        """Let it die at once, or between two of the next things that it says."""
        if self._random.random() < 0.3:
            pod.fuse = self._random.randint(0, 6)
            self._faults.marks.lose(pod)
        else:
            self._faults.kill(pod)
