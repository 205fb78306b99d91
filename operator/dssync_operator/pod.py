"""A worker pod as far as decisions need it, trimmed from what the API server sends.

Only the container named ``worker`` speaks for the pod: sidecars neither block nor decide how it
ended. What the launcher wrote into the termination message outranks the exit code, because any
exit code may also come from the user's script.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from dssync import contract
from dssync_operator.job import Manifest, child, children, number, optional, parse_time, text


@dataclass(frozen=True)
class Ended:
    """How a pod ended.

    Attributes:
        at: Seconds since 1970.
        exit_code: Of the worker container; None when it never ran or nobody knows.
        verdict: What the launcher said, one of ``contract.VERDICT_*``; empty without a message.
        reason: The launcher's or the kubelet's reason.
        message: What the launcher or the kubelet said about it.
    """

    at: float
    exit_code: int | None
    verdict: str
    reason: str
    message: str


@dataclass(frozen=True)
class Pod:
    """One worker pod.

    Attributes:
        slot: Durable index in the job.
        incarnation: Counts the pods of a slot; only part of the name.
        deleting: Deletion was asked for; it may take for ever on a lost node.
        phase: The kubelet's, but Running as soon as the worker runs.
        doomed_since: When its grace period is over, in seconds since 1970, while deleting.
        vanishing: The API server is about to take it away: nothing is waited for any more.
        held: The worker has ended and a sidecar goes on, with all that the pod was given. The phase
            does not tell: the kubelet keeps it at Running until it has tidied up after the last.
        waiting: Why a container cannot start, the worker's before others, as (reason, message).
        conditions: (type, status) of the pod's conditions.
    """

    name: str
    uid: str
    slot: int
    incarnation: int
    template_hash: str
    phase: str
    node: str
    created: float
    ready: bool
    deleting: bool
    doomed_since: float | None
    vanishing: bool
    ended: Ended | None
    held: bool
    waiting: tuple[str, str] | None
    conditions: frozenset[tuple[str, str]]

    @property
    def live(self) -> bool:
        """Whether the pod holds its slot: it has not ended and nobody has asked it to."""
        return self.ended is None and not self.deleting


def is_pod_of(manifest: Manifest, job_uid: str) -> bool:
    """Whether a pod is a job's: owned by it, with labels that say where it belongs.

    A copy that somebody made, as ``kubectl debug --copy-to --keep-labels`` does, has no owner.
    """
    metadata = child(manifest, "metadata")
    owned = any(
        owner.get("controller") and owner.get("uid") == job_uid
        for owner in children(metadata, "ownerReferences")
    )
    labels = child(metadata, "labels")
    places = (text(labels, contract.LABEL_SLOT), text(labels, contract.LABEL_INCARNATION))
    return owned and all(place.isdecimal() for place in places)


def parse_pod(manifest: Manifest) -> Pod:
    """Trim a pod for which ``is_pod_of`` holds."""
    metadata, spec, status = (child(manifest, key) for key in ("metadata", "spec", "status"))
    labels = child(metadata, "labels")
    conditions = children(status, "conditions")
    worker = _worker_state(status)
    return Pod(
        name=text(metadata, "name"),
        uid=text(metadata, "uid"),
        slot=int(text(labels, contract.LABEL_SLOT)),
        incarnation=int(text(labels, contract.LABEL_INCARNATION)),
        template_hash=text(labels, contract.LABEL_TEMPLATE_HASH),
        phase=_phase(status, worker),
        node=text(spec, "nodeName"),
        created=parse_time(metadata.get("creationTimestamp")) or 0.0,
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions),
        deleting="deletionTimestamp" in metadata,
        doomed_since=parse_time(metadata.get("deletionTimestamp")),
        vanishing=metadata.get("deletionGracePeriodSeconds") == 0
        and not metadata.get("finalizers"),
        ended=_ended(status, worker),
        held="terminated" in worker and _sidecar_runs(status),
        waiting=_waiting(status, conditions),
        conditions=frozenset((text(c, "type"), text(c, "status")) for c in conditions),
    )


def fresh_pod(
    name: str, uid: str, place: tuple[int, int], template_hash: str, created: float
) -> Pod:
    """A pod as it is right after its creation; ``place`` is its slot and incarnation."""
    return Pod(
        name=name,
        uid=uid,
        slot=place[0],
        incarnation=place[1],
        template_hash=template_hash,
        phase="Pending",
        node="",
        created=created,
        ready=False,
        deleting=False,
        doomed_since=None,
        vanishing=False,
        ended=None,
        held=False,
        waiting=None,
        conditions=frozenset(),
    )


def _worker_state(status: Manifest) -> Manifest:
    return child(worker_of(children(status, "containerStatuses")), "state")


def _is_worker(container: Manifest) -> bool:
    return container.get("name") == contract.WORKER_CONTAINER


def _ended(status: Manifest, worker: Manifest) -> Ended | None:
    terminated = child(worker, "terminated")
    if not terminated and status.get("phase") not in ("Succeeded", "Failed"):
        return None
    said = _verdict(text(terminated, "message"))
    at = parse_time(terminated.get("finishedAt")) or _last_transition(status)
    return Ended(
        at=at,
        exit_code=optional(terminated, "exitCode"),
        verdict=text(said, "verdict"),
        reason=text(said, "reason") or text(status, "reason") or text(terminated, "reason"),
        # What a launcher said is in the other fields; anybody else's words are shown as they are.
        message=("" if said else text(terminated, "message")) or text(status, "message"),
    )


def _verdict(message: str) -> Manifest:
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _last_transition(status: Manifest) -> float:
    times = [parse_time(c.get("lastTransitionTime")) for c in children(status, "conditions")]
    return max((time for time in times if time is not None), default=0.0)


def _sidecar_runs(status: Manifest) -> bool:
    """One of the ordinary kind; the kubelet ends those among the init containers itself."""
    return any(
        "running" in child(container, "state")
        for container in children(status, "containerStatuses")
        if not _is_worker(container)
    )


def _phase(status: Manifest, worker: Manifest) -> str:
    """The pod's phase, but that of a pod whose worker runs while a sidecar cannot start."""
    phase = text(status, "phase") or "Pending"
    return "Running" if phase == "Pending" and "running" in worker else phase


def _waiting(status: Manifest, conditions: tuple[Manifest, ...]) -> tuple[str, str] | None:
    """What keeps the worker from starting, or else another container, or else a node."""
    containers = [
        *sorted(children(status, "containerStatuses"), key=lambda each: not _is_worker(each)),
        *children(status, "initContainerStatuses"),
    ]
    for container in containers:
        waiting = child(child(container, "state"), "waiting")
        if text(waiting, "reason") not in ("", "ContainerCreating", "PodInitializing"):
            named = "" if _is_worker(container) else f"container {text(container, 'name')}: "
            return text(waiting, "reason"), named + text(waiting, "message")
    for condition in conditions:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return text(condition, "reason"), text(condition, "message")
    return None


def worker_of(containers: Iterable[Manifest]) -> Manifest:
    """The worker among a pod's containers, or among what is told of them; empty without one."""
    return next(filter(_is_worker, containers), {})


def grace_seconds(template: Manifest) -> int:
    """Termination grace period of pods made from a template."""
    return number(child(template, "spec"), "terminationGracePeriodSeconds", 60)
