"""When a job is over, by success or by the clock, and what remains of it then."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dssync_operator.job import Spec
from dssync_operator.pod import Pod
from dssync_operator.record import Record
from dssync_operator.status import COMPLETE, FAILED, Clock, Status

FAREWELL_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Verdict:
    """The end of a job: the condition that becomes true, its reason and its message."""

    condition: str
    reason: str
    message: str


def succeeded(
    spec: Spec, status: Status, pods: Iterable[Pod], record: Record | None
) -> Verdict | None:
    """Tell whether the job has ended well.

    Only verdict Done counts, or the coordinator's word in the Lease; a drained pod proves
    nothing. With ``All``, slots that were scaled away are not waited for. ``Coordinator`` asks
    for its word, or for slot 0 where it cannot move; that everybody is done says the same.
    """
    if record is not None and record.completed:
        return Verdict(COMPLETE, "SuccessPolicyMet", "the coordinator recorded the completion")
    done = status.tally.done
    if not done:
        return None
    if spec.lifecycle.success_policy == "Any":
        return Verdict(COMPLETE, "SuccessPolicyMet", f"slot {min(done)} ended with verdict Done")
    if spec.lifecycle.success_policy == "Coordinator" and spec.rendezvous.static and 0 in done:
        message = "slot 0, which hosts the coordinator, ended with verdict Done"
        return Verdict(COMPLETE, "SuccessPolicyMet", message)
    desired = spec.replicas if status.desired is None else status.desired
    if len(done) >= desired and not any(pod.live for pod in pods):
        return Verdict(
            COMPLETE, "SuccessPolicyMet", f"all {len(done)} pods ended with verdict Done"
        )
    return None


def deadlines(spec: Spec, clock: Clock) -> tuple[tuple[float, Verdict], ...]:
    """Moments at which the job fails unless something happens first, in seconds since 1970."""
    ends = []
    active, startup = (
        spec.lifecycle.active_deadline_seconds,
        spec.lifecycle.startup_deadline_seconds,
    )
    if clock.started is not None and active is not None:
        message = f"the job ran longer than activeDeadlineSeconds {active}"
        ends.append((clock.started + active, Verdict(FAILED, "DeadlineExceeded", message)))
    if clock.started is not None and clock.world_formed is None and startup is not None:
        message = f"no world formed within startupDeadlineSeconds {startup}"
        ends.append((clock.started + startup, Verdict(FAILED, "StartupDeadlineExceeded", message)))
    patience = spec.elastic.below_min_timeout_seconds if spec.elastic else None
    if clock.below_min is not None and patience is not None:
        message = (
            f"fewer than elastic.minReplicas {spec.min_replicas} pods ran for "
            f"elastic.belowMinTimeoutSeconds {patience}"
        )
        ends.append((clock.below_min + patience, Verdict(FAILED, "BelowMinTimeout", message)))
    return tuple(ends)


def stalls_at(spec: Spec, status: Status) -> float | None:
    """When a job that trains counts as stalled unless a step is made, in seconds since 1970.

    None where nobody tells of steps, or where the world is not formed or waits for pods.
    """
    formed, progress = status.clock.world_formed, status.progress
    if formed is None or progress is None or status.clock.below_min is not None:
        return None
    return max(formed, progress.since) + spec.hang_timeout_seconds


def stop_at(clock: Clock, record: Record | None) -> float:
    """When what still runs of a finished job may be stopped, in seconds since 1970.

    After a recorded completion launchers are still handing the final state to late joiners.
    """
    finished = clock.finished or 0.0
    completed = record is not None and record.completed
    return finished + (FAREWELL_SECONDS if completed else 0.0)


def leftovers(policy: str, pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """Pods of a finished job that ``cleanPodPolicy`` wants deleted; a sidecar keeps one running."""
    if policy == "None":
        return ()
    over = () if policy == "All" else ("Succeeded", "Failed")
    return tuple(pod for pod in pods if not pod.deleting and pod.phase not in over)


def expires_at(spec: Spec, clock: Clock, record: Record | None) -> float | None:
    """When a finished job is deleted, in seconds since 1970; None for never.

    Its pods go with it, so not before what still runs may be stopped.
    """
    ttl = spec.lifecycle.ttl_seconds_after_finished
    if ttl is None or clock.finished is None:
        return None
    return max(clock.finished + ttl, stop_at(clock, record))
