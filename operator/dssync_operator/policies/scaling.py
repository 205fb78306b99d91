"""Which slots should hold a pod: growing is immediate, shrinking waits and chooses."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from dssync_operator.job import Spec
from dssync_operator.pod import Pod
from dssync_operator.status import Status


def aim(status: Status, spec: Spec, now: float) -> Status:
    """Move ``desired`` to ``spec.replicas``, downward only after the stabilisation window.

    The window keeps a flapping autoscaler from draining pods that it asks for again a moment
    later. Any wish for as many pods as now, or more, starts it anew.
    """
    before = status.desired
    if before is None or spec.replicas >= before or spec.elastic is None:
        return _settled(status, spec)
    since = status.clock.scale_down
    if since is None:
        since = now
    if now - since >= spec.elastic.stabilization_seconds:
        return _settled(status, spec)
    return replace(status, clock=replace(status.clock, scale_down=since))


def _settled(status: Status, spec: Spec) -> Status:
    return replace(status, desired=spec.replicas, clock=replace(status.clock, scale_down=None))


@dataclass(frozen=True)
class Placement:
    """Slots without a pod that should have one, and pods that should go."""

    fill: tuple[int, ...]
    drain: tuple[Pod, ...]


def place(
    desired: int,
    pods: Iterable[Pod],
    done: Collection[int],
    keep_first: bool,
    idle: Collection[str] = (),
) -> Placement:
    """Compare what runs with what is wanted.

    Args:
        desired: Pods wanted.
        pods: All pods of the job.
        done: Slots whose work is finished; they are neither filled nor drained.
        keep_first: Whether slot 0 is to be drained last, as the static rendezvous lives there.
        idle: Uids of pods that take no part yet; they cost least to lose.
    """
    live = sorted((pod for pod in pods if pod.live), key=lambda pod: pod.incarnation)
    holders: dict[int, Pod] = {}
    surplus = []
    for pod in live:
        if pod.slot in holders or pod.slot in done:
            surplus.append(pod)
        else:
            holders[pod.slot] = pod
    taken = set(holders) | set(done)
    excess = max(0, len(taken) - desired)
    leaving = sorted(holders.values(), key=lambda pod: _drain_order(pod, idle, keep_first))[:excess]
    free = (slot for slot in range(desired + len(taken)) if slot not in taken)
    fill = tuple(slot for slot, _ in zip(free, range(desired - len(taken)), strict=False))
    return Placement(fill, (*surplus, *leaving))


def _drain_order(
    pod: Pod, idle: Collection[str], keep_first: bool
) -> tuple[bool, bool, bool, bool, int]:
    """Pending pods go first, then those that take no part, those not ready, the highest slot."""
    return (
        keep_first and pod.slot == 0,
        pod.phase != "Pending",
        pod.uid not in idle,
        pod.ready,
        -pod.slot,
    )
