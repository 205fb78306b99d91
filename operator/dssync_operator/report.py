"""What a status shows of the present: counts, conditions and the state word.

Computed anew at each look from what exists, after acting, so it never tells of yesterday. The
state word follows from the conditions by a fixed order of precedence.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from dssync import contract
from dssync_operator.job import Job, Manifest, child, format_time, number
from dssync_operator.plan import view_name
from dssync_operator.pod import Pod
from dssync_operator.policies import lifecycle, nodes, scaling
from dssync_operator.record import Progress, Record, View
from dssync_operator.status import (
    ACCEPTED,
    COMPLETE,
    DEGRADED,
    FAILED,
    RESIZING,
    RUNNING,
    SCHEDULED,
    SUSPENDED,
    Condition,
    Status,
)

MAX_PROBLEMS: Final = 16
LAST_CHANGE: Final = ("lastChangeTime", "lastChangeReason")
_IMAGE_REASONS: Final = (
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
)


def report(
    job: Job,
    status: Status,
    pods: Iterable[Pod],
    record: Record | None,
    trouble: str | None,
    now: float,
) -> Status:
    """Return the status with everything that is computed anew.

    Args:
        job: The job.
        status: As ``plan`` left it: counters, times, verdict.
        pods: What exists after acting.
        record: The job's Lease.
        trouble: Why pods could not be made, None when they could.
        now: Seconds since 1970.
    """
    pods = tuple(pods)
    live = tuple(pod for pod in pods if pod.live)
    if not status.finished:
        status = _scheduled(job, status, live, now)
        status = _running(job, status, live, record, now)
        status = _resizing(status, pods, record, now)
        status = _degraded(status, pods, record, trouble, now)
    else:
        for kind in (RUNNING, RESIZING, DEGRADED):
            if status.is_true(kind):
                status = status.with_condition(kind, False, "JobFinished", "the job is over", now)
    return replace(status, display=_display(job, status, pods, record, now))


def not_permitted(before: Status, status: Status, why: str, now: float) -> Status:
    """Return the status of a job beside whose pods something may not be made.

    Args:
        before: As it was read; its condition keeps its time while nothing changes.
        status: What this look would have written.
        why: A sentence with what to do.
        now: Seconds since 1970.
    """
    known = before.conditions.get(ACCEPTED)
    if known is not None:
        status = replace(status, conditions={**status.conditions, ACCEPTED: known})
    status = status.with_condition(ACCEPTED, False, "NotPermitted", why, now)
    return replace(status, display={**status.display, "state": state_word(status)})


def _display(
    job: Job, status: Status, pods: tuple[Pod, ...], record: Record | None, now: float
) -> dict[str, object]:
    live = tuple(pod for pod in pods if pod.live)
    display: dict[str, object] = {
        "state": state_word(status),
        "replicas": len(live),
        "readyReplicas": sum(pod.ready for pod in live),
        "updatedReplicas": sum(pod.template_hash == status.template_hash for pod in live),
        "selector": f"{contract.LABEL_JOB_UID}={job.uid}",
        "workers": _workers(pods, status, record, now),
    }
    view, progress = (record.view, record.progress) if record else (None, None)
    if record is not None and view is not None:
        display["activeReplicas"] = 0 if status.is_true(SUSPENDED) else view.pods
        display["membership"] = {
            "view": view_name(record),
            "term": view.term,
            "worldSize": view.workers,
            "coordinator": record.holder,
            **_last_change(status, view_name(record), view, now),
        }
    if progress is not None:
        display["progress"] = _progress(progress, status)
    return display


def _last_change(status: Status, name: str, view: View, now: float) -> dict[str, object]:
    """When the view was first seen and what it changed; what the status says already stays."""
    before = child(status.display, "membership")
    if before.get("view") == name:
        return {key: before[key] for key in LAST_CHANGE if key in before}
    return dict(zip(LAST_CHANGE, (format_time(now), _change(before, view)), strict=True))


def _change(before: Manifest, view: View) -> str:
    """What distinguishes a view from the one that was seen before it."""
    size = number(before, "worldSize", 0)
    if size == 0:
        return "WorldFormed"
    if number(before, "term", 0) != view.term:
        return "CoordinatorChanged"
    if view.workers == size:
        return "WorkersReplaced"
    return "WorkersJoined" if view.workers > size else "WorkersLeft"


def _progress(progress: Progress, status: Status) -> dict[str, object]:
    shown: dict[str, object] = {"step": progress.step}
    if progress.total_steps:
        shown["totalSteps"] = progress.total_steps
        shown["percent"] = min(100, 100 * progress.step // progress.total_steps)
    if status.progress is not None:
        shown["lastUpdateTime"] = format_time(status.progress.since)
    return shown


def _workers(
    pods: tuple[Pod, ...], status: Status, record: Record | None, now: float
) -> dict[str, object]:
    live = tuple(pod for pod in pods if pod.live)
    stuck = nodes.unreachable(pods, now)
    workers: dict[str, object] = {
        "pending": sum(pod.phase == "Pending" for pod in live),
        "running": sum(pod.phase == "Running" for pod in live),
        "draining": sum(pod.deleting and pod.ended is None for pod in pods) - len(stuck),
        "succeeded": len(status.tally.done),
        "lost": len(stuck) + _vanished(pods, status, record),
    }
    if record is not None and not status.finished:
        workers["joining"] = _joining(live, record)
    problems = [
        {
            "index": pod.slot,
            "pod": pod.name,
            "reason": pod.waiting[0],
            "message": pod.waiting[1][:256],
        }
        for pod in sorted(live, key=lambda pod: pod.slot)
        if pod.waiting is not None
    ]
    if problems:
        workers["problems"] = problems[:MAX_PROBLEMS]
    return workers


def _joining(live: tuple[Pod, ...], record: Record) -> int:
    """Pods that run and are not in the view yet; by number where the record lists not all."""
    running = [pod.uid for pod in live if pod.phase == "Running"]
    in_view = record.view.pods if record.view else 0
    if len(record.launchers) < in_view:
        return max(0, len(running) - in_view)
    return len(set(running) - set(record.launchers))


def _vanished(pods: tuple[Pod, ...], status: Status, record: Record | None) -> int:
    """Pods that the view still holds and that do not exist any more."""
    if record is None or status.finished or status.clock.world_formed is None:
        return 0
    return len(set(record.launchers) - {pod.uid for pod in pods})


def _scheduled(job: Job, status: Status, live: tuple[Pod, ...], now: float) -> Status:
    if not live:
        return status.with_condition(SCHEDULED, False, "NoPods", "there is no pod to schedule", now)
    bound = sum(bool(pod.node) for pod in live)
    if bound >= job.spec.min_replicas:
        message = f"at least {job.spec.min_replicas} pods have a node"
        return status.with_condition(SCHEDULED, True, "Bound", message, now)
    why = [pod.waiting[1] for pod in live if pod.waiting and pod.waiting[0] == "Unschedulable"]
    message = f"{bound} of the {job.spec.min_replicas} pods needed have a node"
    if why:
        return status.with_condition(SCHEDULED, False, "Unschedulable", f"{message}: {why[0]}", now)
    return status.with_condition(SCHEDULED, False, "WaitingForNodes", message, now)


def _running(
    job: Job, status: Status, live: tuple[Pod, ...], record: Record | None, now: float
) -> Status:
    minimum = job.spec.min_replicas
    running = sum(pod.phase == "Running" for pod in live)
    if status.is_true(SUSPENDED) or job.spec.lifecycle.suspend:
        return status.with_condition(RUNNING, False, "JobSuspended", "the job is suspended", now)
    if status.clock.world_formed is None:
        message = f"no world yet: {running} pods run, at least {minimum} are needed"
        reason = "WaitingForMin" if running < minimum else "WaitingForWorld"
        return status.with_condition(RUNNING, False, reason, message, now)
    if status.clock.below_min is not None:
        message = f"fewer than minReplicas {minimum} pods run: the world waits with its state"
        return status.with_condition(RUNNING, False, "BelowMinReplicas", message, now)
    stalls = lifecycle.stalls_at(job.spec, status)
    if stalls is not None and stalls <= now and status.progress is not None:
        message = (
            f"step {status.progress.step} has been the last one for longer than "
            f"health.hangTimeoutSeconds {job.spec.hang_timeout_seconds}"
        )
        return status.with_condition(RUNNING, False, "NoProgress", message, now)
    return status.with_condition(RUNNING, True, "WorldFormed", "a view is committed", now)


def _resizing(status: Status, pods: tuple[Pod, ...], record: Record | None, now: float) -> Status:
    """Resizing means that who trains differs from who should; a failed pod is Degraded instead."""
    if status.desired is None or status.clock.world_formed is None:
        return status.with_condition(RESIZING, False, "NotRunning", "there is no world yet", now)
    if status.clock.scale_down is not None:
        message = "fewer pods are wanted; waiting for elastic.stabilizationSeconds to pass"
        return status.with_condition(RESIZING, True, "Stabilizing", message, now)
    running = sum(pod.live and pod.phase == "Running" for pod in pods)
    active = record.view.pods if record and record.view else running
    active += len(status.tally.done)
    message = f"{active} pods take part, {status.desired} are wanted"
    if active > status.desired:
        return status.with_condition(RESIZING, True, "ScalingDown", message, now)
    if active + len(_gaps(status, pods, record)) < status.desired:
        return status.with_condition(RESIZING, True, "ScalingUp", message, now)
    reason = "AsWanted" if active == status.desired else "ReplacingWorker"
    return status.with_condition(RESIZING, False, reason, message, now)


def _gaps(status: Status, pods: tuple[Pod, ...], record: Record | None) -> frozenset[int]:
    """Slots that have failed within the window and whose next pod takes no part yet."""
    absent = set(scaling.place(status.desired or 0, pods, status.tally.done, False).fill)
    if status.clock.world_formed is not None:
        idle = record.idle(pod.uid for pod in pods) if record else frozenset()
        absent |= {
            pod.slot for pod in pods if pod.live and (pod.phase != "Running" or pod.uid in idle)
        }
    failed = {slot for incident in status.tally.incidents for slot in incident.slots}
    return frozenset((failed & absent) - status.tally.done)


def _degraded(
    status: Status,
    pods: tuple[Pod, ...],
    record: Record | None,
    trouble: str | None,
    now: float,
) -> Status:
    reason, message = _worst(status, pods, record, trouble, now)
    if reason in ("AsWanted", "ReplacingWorker") and _leaderless(status, pods, record):
        reason, message = "CoordinatorFailover", "the coordinator is gone: launchers choose another"
    return status.with_condition(DEGRADED, reason != "AsWanted", reason, message, now)


def _worst(
    status: Status,
    pods: tuple[Pod, ...],
    record: Record | None,
    trouble: str | None,
    now: float,
) -> tuple[str, str]:
    """Return the reason that explains most, as (reason, sentence)."""
    if trouble is not None:
        return "PodCreateFailed", trouble
    lost = nodes.unreachable(pods, now)
    if lost:
        names = ", ".join(pod.name for pod in lost[:3])
        return "NodeUnreachable", f"pods {names} do not end: their node does not answer"
    stuck = [pod for pod in pods if pod.live and pod.waiting and pod.waiting[0] != "Unschedulable"]
    if stuck and stuck[0].waiting:
        why, what = stuck[0].waiting
        reason = "ImagePullFailed" if why in _IMAGE_REASONS else "CannotStart"
        return reason, f"pod {stuck[0].name} cannot start ({why}): {what}"
    gaps = _gaps(status, pods, record)
    if gaps:
        waits = (pod.waiting for pod in pods if pod.live and pod.slot in gaps)
        why = next((f" ({waiting[1]})" for waiting in waits if waiting), "")
        return "ReplacingWorker", (
            f"{len(gaps)} pods are not replaced yet{why}; "
            f"first failure: {status.termination_message}"
        )
    return "AsWanted", "no pod is in trouble"


def _leaderless(status: Status, pods: tuple[Pod, ...], record: Record | None) -> bool:
    """Whether the pod that coordinates this world has ended or is gone."""
    if record is None or status.clock.world_formed is None:
        return False
    there = {pod.uid for pod in pods if pod.ended is None}
    return record.holder in record.launchers and record.holder not in there


def _stalled(running: Condition | None) -> bool:
    return running is not None and running.reason == "NoProgress"


def state_word(status: Status) -> str:
    """One word for the conditions; the first that applies."""
    conditions = status.conditions
    accepted = conditions.get(ACCEPTED)
    running = conditions.get(RUNNING)
    precedence = (
        (FAILED, status.is_true(FAILED)),
        (COMPLETE, status.is_true(COMPLETE)),
        (SUSPENDED, status.is_true(SUSPENDED)),
        ("Invalid", accepted is not None and accepted.reason == "InvalidPodTemplate"),
        ("Pending", not status.is_true(SCHEDULED)),
        ("Starting", status.clock.world_formed is None),
        ("BelowMin", running is not None and running.reason == "BelowMinReplicas"),
        ("Resizing", status.is_true(RESIZING)),
        ("Degraded", status.is_true(DEGRADED) or _stalled(running)),
    )
    return next((word for word, applies in precedence if applies), "Running")
