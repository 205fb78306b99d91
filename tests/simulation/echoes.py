"""Chains of faults by which what one coordinator did reaches the next one late, or not at all.

Drawn one by one, faults meet in this way once in some ten thousand seeds.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.faults import Faults
    from simulation.pod import Pod
    from simulation.worker import Worker


def lose_unheard(faults: Faults, victim: Worker) -> bool:
    """A pod is put out by a coordinator that it does not hear any more, and which then dies."""
    pod, leader = _apart_from_leader(faults, victim)
    if leader is None:
        return False
    network = faults.world.network
    ways = [(leader.uid, pod.uid), (pod.uid, leader.uid)]
    over = faults.marks.hold(pod, leader)
    network.block(ways)

    def end() -> None:
        network.reset(pod.uid)
        if leader.alive:
            faults.kill(leader)
        network.unblock(ways)
        over()

    faults.later(faults.random.uniform(2.1, 3.5), end)
    return True


def split_shortly(faults: Faults, victim: Worker) -> bool:
    """The coordinator goes on with one pod, the rest elects another, which dies after the split."""
    pod, leader = _apart_from_leader(faults, victim)
    if leader is None:
        return False
    network, side = faults.world.network, (leader.uid, pod.uid)
    others = [each.uid for each in faults.world.live_pods if each.uid not in side]
    ways = [way for near in side for far in others for way in ((near, far), (far, near))]
    over = faults.marks.hold_all()
    network.block(ways)

    def heal() -> None:
        network.unblock(ways)
        over()
        faults.later(faults.random.uniform(0.02, 0.6), lose_successor)

    def lose_successor() -> None:
        successor = faults.world.leader
        if successor is not None and successor is not leader:
            faults.kill(successor)

    faults.later(faults.random.uniform(0.6, 2.0), heal)
    return bool(ways)


class Ending:
    """A pod is out of reach while the job ends, and the coordinator dies as it ends it.

    Args:
        faults: what it belongs to.
        random: of its own, so that a run is the same up to its end whether or not this happens.
    """

    def __init__(self, faults: Faults, random: Random) -> None:
        self._faults = faults
        self._random = random
        self._cut = self._lost = False
        self._cuts, self._loses = random.random() < 0.5, random.random() < 0.7

    def look(self) -> None:
        """Strike if the time has come."""
        world = self._faults.world
        leader = world.leader
        if leader is None or leader.hub is None:
            return
        if self._cuts and not self._cut and world.observer.final_assigned:
            self._cut = True
            others = [pod for pod in world.live_pods if pod is not leader]
            if others:
                self._cut_off(self._random.choice(others))
        if self._loses and not self._lost and leader.hub.completed:
            self._lost = True
            self._lose(leader)

    def _cut_off(self, pod: Pod) -> None:
        self._faults.strikes(f"cut_off {pod.uid} at the end")
        self._faults.cut_off(pod, self._random.uniform(1.0, 12.0))

    def _lose(self, leader: Pod) -> None:
        """Let it die before, while or after it tells the others."""
        faults = self._faults
        faults.strikes(f"lose {leader.uid} at the end")
        faults.marks.lose(leader)
        if self._random.random() < 0.5:
            leader.fuse = self._random.randint(0, 12)
        else:
            faults.later(self._random.uniform(0.0, 2.0), lambda: faults.kill(leader))


def _apart_from_leader(faults: Faults, victim: Worker) -> tuple[Pod, Pod | None]:
    """Return the pod of a worker, and the coordinator's if that is another one."""
    pod = faults.pod_of(victim)
    leader = faults.world.leader
    return pod, None if leader is pod else leader


ECHOES = (lose_unheard, lose_unheard, split_shortly)
