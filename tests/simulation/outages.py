"""Faults of those whom all depend on: the coordinator's launcher, the network, the arbiter.

Each tells whether it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING

from simulation.arbiter import Weather

if TYPE_CHECKING:
    from simulation.faults import Faults
    from simulation.pod import Pod

FEWEST_CANDIDATES = 2
"""One that dies, and one that is left."""


def _leader(faults: Faults) -> Pod | None:
    return faults.world.leader


# --- the coordinator's launcher ---------------------------------------------------------------


def kill_leader(faults: Faults) -> bool:
    """The coordinator's launcher dies, with its workers."""
    pod = _leader(faults)
    return pod is not None and faults.kill(pod)


def crash_leader(faults: Faults) -> bool:
    """It dies between two of its effects."""
    pod = _leader(faults)
    if pod is None:
        return False
    faults.marks.lose(pod)
    pod.fuse = faults.random.randint(0, 60)
    return True


def crash_candidates(faults: Faults) -> bool:
    """It dies, and one of its successors between two effects of the election."""
    pod = _leader(faults)
    others = [each for each in faults.world.live_pods if each is not pod and not each.frozen]
    if pod is None or len(others) < FEWEST_CANDIDATES:
        return False
    faults.kill(pod)
    successor = min(others, key=lambda each: each.spec.slot)
    faults.marks.lose(successor)
    successor.fuse = faults.random.randint(2, 60)
    return True


def freeze_leader(faults: Faults) -> bool:
    """It stands still for less or more than a lease, and comes back."""
    pod = _leader(faults)
    if pod is None:
        return False
    return faults.freeze(pod, faults.random.choice((0.3, 1.0, 3.0, 8.0, 25.0)))


def cut_leader(faults: Faults) -> bool:
    """All its connections are reset at once."""
    pod = _leader(faults)
    if pod is None:
        return False
    faults.marks.touch_all()
    return faults.world.network.reset(pod.uid)


def drain_leader(faults: Faults) -> bool:
    """It is told to leave."""
    pod = _leader(faults)
    return pod is not None and faults.drain(pod)


def jump_clock(faults: Faults) -> bool:
    """A launcher's clock jumps ahead."""
    pod = _leader(faults)
    if pod is None or faults.random.random() < 0.3:
        pod = faults.random.choice(faults.world.live_pods)
    faults.world.observer.hit.hit([pod.uid])
    pod.jump(faults.random.choice((0.3, 1.0, 6.0, 20.0)))
    return True


def isolate_leader(faults: Faults) -> bool:
    """Nobody reaches it, or it reaches nobody."""
    pod = _leader(faults)
    return pod is not None and _part(faults, [pod.uid], faults.random.random() < 0.5)


# --- the network ------------------------------------------------------------------------------


def part_network(faults: Faults) -> bool:
    """The network falls into two parts, or one part does not reach the other."""
    uids = [pod.uid for pod in faults.world.live_pods]
    faults.random.shuffle(uids)
    count = faults.random.randint(1, max(1, len(uids) - 1))
    return _part(faults, uids[:count], faults.random.random() < 0.4)


def _part(faults: Faults, side: list[str], takes_arbiter: bool) -> bool:
    network, random = faults.world.network, faults.random
    others = [pod.uid for pod in faults.world.live_pods if pod.uid not in side]
    out = [(near, far) for near in side for far in others]
    back = [(far, near) for near, far in out]
    ways = random.choice((out + back, out + back, out, back))
    over = faults.marks.hold_all()
    network.block(ways)
    seconds = random.choice((0.1, 0.5, 2.0, 5.0, 14.0, 30.0))
    weathers = [faults.world.cell.weather(uid) for uid in side] if takes_arbiter else []
    for weather in weathers:
        weather.outages += 1

    def heal() -> None:
        network.unblock(ways)
        for weather in weathers:
            weather.outages -= 1
        over()

    faults.later(seconds, heal)
    return bool(ways or weathers)


def tangle_network(faults: Faults) -> bool:
    """Some launchers lose sight of each other, though there are others whom both still see."""
    network, random = faults.world.network, faults.random
    links = list(combinations([pod.uid for pod in faults.world.live_pods], 2))
    if not links:
        return False
    lost = random.sample(links, random.randint(1, max(1, len(links) // 2)))
    ways = [way for one, other in lost for way in ((one, other), (other, one))]
    over = faults.marks.hold_all()
    network.block(ways)

    def heal() -> None:
        network.unblock(ways)
        over()

    faults.later(random.choice((0.5, 3.0, 8.0, 14.0, 30.0)), heal)
    return True


def flap_link(faults: Faults) -> bool:
    """The way between the coordinator and another launcher comes and goes."""
    leader, network, random = _leader(faults), faults.world.network, faults.random
    others = [pod for pod in faults.world.live_pods if pod is not leader]
    if leader is None or not others:
        return False
    other = random.choice(others)
    hit, flapping = faults.world.observer.hit, faults.flapping[leader.uid]
    flapping.add(other.uid)
    lost = [uid for uid in flapping if uid == other.uid or uid in hit]
    # A majority may lose it at the same time.
    is_most = 2 * len(lost) > len(faults.world.live_pods)
    ends = faults.marks.hold(other), hit.hold([leader.uid] if is_most else [])
    ways = [(leader.uid, other.uid), (other.uid, leader.uid)]
    times, resets = random.randint(2, 8), random.random() < 0.5

    def flap(left: int) -> None:
        network.block(ways)
        if resets:
            network.reset(other.uid)
        faults.later(random.uniform(0.05, 0.4), lambda: mend(left))

    def mend(left: int) -> None:
        network.unblock(ways)
        if left:
            faults.later(random.uniform(0.05, 0.4), lambda: flap(left - 1))
            return
        for end in ends:
            end()

    flap(times)
    return True


def slow_network(faults: Faults) -> bool:
    """Everything takes long to arrive."""
    pods, extra = faults.world.live_pods, faults.random.uniform(0.02, 0.5)
    over = faults.marks.hold_all()
    for pod in pods:
        pod.extra_latency_seconds += extra

    def end() -> None:
        for pod in pods:
            pod.extra_latency_seconds -= extra
        over()

    faults.later(faults.random.uniform(0.2, 6.0), end)
    return len(pods) > 1


# --- the arbiter ------------------------------------------------------------------------------


def _weather(faults: Faults) -> Weather:
    """Return that of everybody, or of one launcher."""
    world = faults.world
    if faults.random.random() < 0.6:
        return world.cell.sky
    leader = _leader(faults)
    pod = leader if leader is not None else faults.random.choice(world.live_pods)
    return world.cell.weather(pod.uid)


def _hold_all_elections(faults: Faults) -> Callable[[], None]:
    """Note that the arbiter is out of reach: whoever coordinates cannot answer there."""
    world = faults.world
    over = world.observer.hit.hold(pod.uid for pod in world.live_pods)

    def end() -> None:
        over()
        world.observer.hit.hit(pod.uid for pod in world.live_pods)  # Who has come meanwhile.

    return end


def lose_arbiter(faults: Faults) -> bool:
    """The arbiter does not answer; swaps may take effect all the same."""
    weather, over = _weather(faults), _hold_all_elections(faults)
    weather.outages += 1
    weather.takes_effect = faults.random.random() < 0.7

    def end() -> None:
        weather.outages -= 1
        over()

    faults.later(faults.random.choice((0.5, 3.0, 8.0, 20.0, 40.0)), end)
    return True


def slow_arbiter(faults: Faults) -> bool:
    """The arbiter takes long, sometimes longer than its callers wait."""
    weather, extra = _weather(faults), faults.random.choice((0.3, 1.0, 4.0))
    over = _hold_all_elections(faults)
    weather.extra_seconds += extra

    def end() -> None:
        weather.extra_seconds -= extra
        over()

    faults.later(faults.random.choice((2.0, 8.0, 20.0)), end)
    return True


LEADER_FAULTS = (
    kill_leader, kill_leader, kill_leader, crash_leader, crash_leader, crash_candidates,
    freeze_leader, freeze_leader, cut_leader, drain_leader, jump_clock, isolate_leader,
)  # fmt: skip
NETWORK_FAULTS = (part_network, part_network, part_network, isolate_leader, flap_link, slow_network)
TANGLE_FAULTS = (tangle_network,)
ARBITER_FAULTS = (lose_arbiter, lose_arbiter, slow_arbiter)
