"""Kubernetes Events: what a person may want to know happened, told once.

A change of a condition is an event by itself; ``plan`` adds notes for what no condition shows.
Events are told only after the status that they announce was written, and the same reason about
the same job at most every thirty seconds, with a count of what was left out.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dssync_operator.job import JOB_TYPE, Job, Manifest, child, number, text
from dssync_operator.status import (
    ACCEPTED,
    COMPLETE,
    DEGRADED,
    FAILED,
    RUNNING,
    SUSPENDED,
    Status,
)

QUIET_SECONDS: Final = 30.0
WARNINGS: Final = frozenset(
    {
        "WorkerFailed",
        "WorkerLost",
        "NodeUnreachable",
        "BelowMinReplicas",
        "NoProgress",
        "LeaseRecreated",
        "TokenRecreated",
        "PodCreateFailed",
        "InvalidPodTemplate",
        "NotPermitted",
        "TemplateChangedWhileRunning",
        "BackoffLimitExceeded",
        "FailJobRuleMatched",
        "WorkerExited",
        "DeadlineExceeded",
        "StartupDeadlineExceeded",
        "BelowMinTimeout",
        "ImagePullFailed",
        "CannotStart",
    }
)


@dataclass(frozen=True)
class Note:
    """One event: its reason and a sentence."""

    reason: str
    message: str

    @property
    def kind(self) -> str:
        """``Warning`` where somebody may have to act, else ``Normal``."""
        return "Warning" if self.reason in WARNINGS else "Normal"


def announce(old: Status, new: Status) -> tuple[Note, ...]:
    """Events for the conditions and the membership that changed from one status to the next."""
    return (*_conditions(old, new), *_membership(old, new))


def _membership(old: Status, new: Status) -> tuple[Note, ...]:
    before, after = (child(status.display, "membership") for status in (old, new))
    if not after:
        return ()
    notes = []
    if any(before.get(key) != after.get(key) for key in ("term", "coordinator")):
        notes.append(_coordinator(old, before, after))
    if before.get("view") != after.get("view"):
        pods, workers = number(new.display, "activeReplicas", 0), number(after, "worldSize", 0)
        message = f"view {after.get('view')}: {pods} pods with {workers} workers"
        notes.append(Note("ViewCommitted", message))
        joined = pods - number(old.display, "activeReplicas", 0)
        if before and 0 < joined < pods:
            notes.append(Note("WorkerJoined", f"{joined} pods have joined: {pods} take part"))
    return tuple(notes)


def _coordinator(old: Status, before: Manifest, after: Manifest) -> Note:
    """One that follows another in a running world is a failover, which is told once."""
    term, uid = number(after, "term", 0), text(after, "coordinator")
    message = f"term {term}: the pod with uid {uid} coordinates"
    degraded = old.conditions.get(DEGRADED)
    told = degraded is not None and degraded.reason == "CoordinatorFailover"
    if told or not before.get("coordinator") or old.clock.world_formed is None:
        return Note("CoordinatorElected", message)
    return Note("CoordinatorFailover", f"{message}, after {before['coordinator']}")


def _conditions(old: Status, new: Status) -> tuple[Note, ...]:
    return tuple(
        Note(_told_as(kind, after.true, after.reason), after.message)
        for kind, after in sorted(new.conditions.items())
        if _worth_telling(kind, after.true)
        and (before := old.conditions.get(kind), after)
        and (before is None or (before.true, before.reason) != (after.true, after.reason))
        and not (before is None and kind == RUNNING and not after.true)
    )


def _worth_telling(kind: str, true: bool) -> bool:
    return {
        ACCEPTED: not true,
        SUSPENDED: True,
        RUNNING: True,
        DEGRADED: true,
        COMPLETE: true,
        FAILED: true,
    }.get(kind, False)


def _told_as(kind: str, true: bool, reason: str) -> str:
    if kind == COMPLETE:
        return "Completed"
    if kind == SUSPENDED and reason in ("JobSuspended", "JobResumed"):
        return "Suspended" if true else "Resumed"
    return reason


class Damper:
    """Lets the same reason about the same job through at most once in thirty seconds."""

    def __init__(self) -> None:
        self._heard: dict[str, dict[str, tuple[float, int]]] = {}
        """By uid of the job and reason: when it was told last, and how often it was not since."""

    def admit(self, uid: str, notes: Iterable[Note], now: float) -> tuple[Note, ...]:
        """Return the notes to post, each with the number of those held back before it."""
        admitted = []
        heard = self._heard.setdefault(uid, {})
        for note in notes:
            last, held = heard.get(note.reason, (-QUIET_SECONDS, 0))
            if now - last < QUIET_SECONDS:
                heard[note.reason] = (last, held + 1)
                continue
            more = f" (and {held} more)" if held else ""
            admitted.append(Note(note.reason, note.message + more))
            heard[note.reason] = (now, 0)
        return tuple(admitted)

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a job that is gone."""
        self._heard.pop(uid, None)


def manifest_of(job: Job, note: Note, now: float, instance: str) -> tuple[str, dict[str, object]]:
    """An Event about a job, and the collection it goes to."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    manifest: dict[str, object] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{job.name}.{secrets.token_hex(8)}",
            "namespace": job.namespace,
        },
        "eventTime": stamp,
        "type": note.kind,
        "reason": note.reason,
        "note": note.message[:1024],
        "action": note.reason,
        "reportingController": "dssync.io/operator",
        "reportingInstance": instance[:128],
        "regarding": {
            **JOB_TYPE,
            "name": job.name,
            "namespace": job.namespace,
            "uid": job.uid,
        },
    }
    return f"/apis/events.k8s.io/v1/namespaces/{job.namespace}/events", manifest
