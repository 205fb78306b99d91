"""A DSSyncJob as the operator reads it: parsed once, typed, frozen.

The API server has validated the object and filled in its defaults, so nothing is checked here.
The pod template stays a plain mapping; only ``resources`` looks into it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from dssync import contract

Manifest = Mapping[str, object]
"""A Kubernetes object, or a part of one, as it is on the wire."""

JOB_TYPE: Final[Mapping[str, str]] = {
    "apiVersion": f"{contract.GROUP}/{contract.VERSION}",
    "kind": contract.KIND,
}
"""What a reference to a job, and a job itself, begin with."""

MANAGER: Final = "dssync.io/operator"
"""Value of ``spec.managedBy`` that names this operator."""

WORKER_ACCOUNT: Final = "dssync-worker"
"""Account that workers share where the operator may not make one for each job."""


class WorkerRbac(StrEnum):
    """Who gives the workers their right on the job's Lease."""

    PER_JOB = "PerJob"
    """The operator, on that one Lease."""
    NAMESPACE = "Namespace"
    """The chart, on all Leases of a namespace; the operator then needs no right to make rights."""
    NONE = "None"
    """Nobody; only jobs with a static rendezvous are served."""


@dataclass(frozen=True)
class ExitCodes:
    """Matches the exit code of a worker container."""

    negated: bool
    values: frozenset[int]

    def match(self, code: int | None) -> bool:
        """Tell whether a container that ended with ``code`` is meant; one without is not."""
        return code is not None and (code in self.values) != self.negated


@dataclass(frozen=True)
class Rule:
    """What to do with a failed pod that matches; exactly one of the two matchers is set."""

    name: str
    action: str
    exit_codes: ExitCodes | None
    conditions: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class FailurePolicy:
    """When failed pods end the job."""

    backoff_limit: int
    backoff_limit_per_index: int | None
    window_seconds: int
    rules: tuple[Rule, ...]

    @property
    def restart_codes(self) -> tuple[int, ...]:
        """Exit codes whose first rule lets the launcher start the worker again, ascending."""
        return tuple(code for code in range(1, 256) if self._first_action(code) == "RestartWorker")

    @property
    def restarts_in_pod(self) -> int | None:
        """How often a launcher may do so with each worker; None where no rule says so."""
        if not self.restart_codes:
            return None
        limit = self.backoff_limit_per_index
        return self.backoff_limit if limit is None else limit

    def _first_action(self, code: int) -> str:
        matching = (
            rule.action for rule in self.rules if rule.exit_codes and rule.exit_codes.match(code)
        )
        return next(matching, "")


@dataclass(frozen=True)
class Elastic:
    """The range in which a job may grow and shrink."""

    min_replicas: int
    max_replicas: int | None
    stabilization_seconds: int
    below_min_timeout_seconds: int | None


@dataclass(frozen=True)
class Sync:
    """How workers synchronise; handed on to the launcher."""

    backend: str
    group_size: int | None
    every: int
    mode: str
    commit: str
    seed: int
    average_optimizer_state: bool


@dataclass(frozen=True)
class Rendezvous:
    """How launchers find each other; handed on to the launcher."""

    static: bool
    port: int
    join_window_seconds: int
    heartbeat_milliseconds: int
    lease_milliseconds: int
    quorum: str


@dataclass(frozen=True)
class Checkpoint:
    """Where the launcher saves and finds checkpoints."""

    path: str
    interval_steps: int | None
    keep: int | None


@dataclass(frozen=True)
class Lifecycle:
    """When a job starts, ends and disappears."""

    suspend: bool
    active_deadline_seconds: int | None
    startup_deadline_seconds: int | None
    ttl_seconds_after_finished: int | None
    clean_pod_policy: str
    success_policy: str


@dataclass(frozen=True)
class Spec:
    """What the user asked for."""

    replicas: int
    elastic: Elastic | None
    nproc_per_node: int | None
    sync: Sync
    rendezvous: Rendezvous
    lifecycle: Lifecycle
    failure_policy: FailurePolicy
    unreachable_seconds: int
    hang_timeout_seconds: int
    topology_keys: tuple[str, ...]
    interface: str | None
    host_network: bool
    checkpoint: Checkpoint | None
    metrics_port: int
    managed_by: str | None
    template: Manifest

    @property
    def min_replicas(self) -> int:
        """Pods below which the world waits."""
        return self.elastic.min_replicas if self.elastic else self.replicas

    @property
    def max_replicas(self) -> int:
        """Pods above which the job never grows."""
        return (self.elastic.max_replicas if self.elastic else None) or self.replicas


@dataclass(frozen=True)
class Job:
    """One DSSyncJob; ``status`` is parsed by the module of that name.

    Attributes:
        worker_rbac: As the operator's settings say it.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool
    spec: Spec
    status: Manifest
    worker_rbac: WorkerRbac = WorkerRbac.PER_JOB

    @property
    def account(self) -> str:
        """The account of pods whose template names none; empty leaves it to the namespace."""
        if self.spec.rendezvous.static or self.worker_rbac is WorkerRbac.NONE:
            return ""
        return WORKER_ACCOUNT if self.worker_rbac is WorkerRbac.NAMESPACE else self.child_name

    @property
    def child_name(self) -> str:
        """Name of the job's Service, Lease, Secret, ServiceAccount, Role and RoleBinding.

        It holds a part of the uid, so that a job that is made anew under an old name never waits
        for, nor adopts, what its predecessor left.
        """
        return f"{self.name}-{self.uid[:8]}"


def parse_job(manifest: Manifest, worker_rbac: WorkerRbac = WorkerRbac.PER_JOB) -> Job:
    """Read a DSSyncJob as the API server returns it."""
    metadata = child(manifest, "metadata")
    return Job(
        namespace=text(metadata, "namespace"),
        name=text(metadata, "name"),
        uid=text(metadata, "uid"),
        generation=number(metadata, "generation", 1),
        deleting="deletionTimestamp" in metadata,
        spec=parse_spec(child(manifest, "spec")),
        status=child(manifest, "status"),
        worker_rbac=worker_rbac,
    )


def parse_spec(spec: Manifest) -> Spec:
    """Read the spec of a DSSyncJob whose defaults are filled in."""
    nproc = spec.get("nprocPerNode", "auto")
    network, topology = child(spec, "network"), child(spec, "topology")
    keys = topology.get("keys", ())
    managed_by = spec.get("managedBy")
    return Spec(
        replicas=number(spec, "replicas", 1),
        elastic=_elastic(child(spec, "elastic")) if "elastic" in spec else None,
        nproc_per_node=nproc if isinstance(nproc, int) else None,
        sync=_sync(child(spec, "sync")),
        rendezvous=_rendezvous(child(spec, "rendezvous")),
        lifecycle=_lifecycle(spec),
        failure_policy=_failure_policy(child(spec, "failurePolicy")),
        unreachable_seconds=number(child(spec, "nodeFailure"), "unreachableSeconds", 30),
        hang_timeout_seconds=number(child(spec, "health"), "hangTimeoutSeconds", 600),
        topology_keys=tuple(str(key) for key in keys) if isinstance(keys, list) else (),
        interface=text(network, "interface") or None,
        host_network=bool(network.get("hostNetwork", False)),
        checkpoint=_checkpoint(child(spec, "checkpoint")) if "checkpoint" in spec else None,
        metrics_port=number(child(spec, "metrics"), "port", 9400),
        managed_by=str(managed_by) if managed_by is not None else None,
        template=child(spec, "template"),
    )


def _elastic(part: Manifest) -> Elastic:
    return Elastic(
        number(part, "minReplicas", 1),
        optional(part, "maxReplicas"),
        number(part, "stabilizationSeconds", 60),
        optional(part, "belowMinTimeoutSeconds"),
    )


def _sync(part: Manifest) -> Sync:
    return Sync(
        backend=text(part, "backend") or "auto",
        group_size=optional(part, "groupSize"),
        every=number(part, "every", 1),
        mode=text(part, "mode") or "grid",
        commit=text(part, "commit") or "relaxed",
        seed=number(part, "seed", 0),
        average_optimizer_state=bool(part.get("averageOptimizerState", False)),
    )


def _rendezvous(part: Manifest) -> Rendezvous:
    return Rendezvous(
        static=part.get("mode") == "Static",
        port=number(part, "port", 29400),
        join_window_seconds=number(part, "joinWindowSeconds", 5),
        heartbeat_milliseconds=number(part, "heartbeatMilliseconds", 250),
        lease_milliseconds=number(part, "leaseMilliseconds", 2000),
        quorum=text(part, "quorum") or "majority",
    )


def _lifecycle(spec: Manifest) -> Lifecycle:
    return Lifecycle(
        suspend=bool(spec.get("suspend", False)),
        active_deadline_seconds=optional(spec, "activeDeadlineSeconds"),
        startup_deadline_seconds=optional(spec, "startupDeadlineSeconds"),
        ttl_seconds_after_finished=optional(spec, "ttlSecondsAfterFinished"),
        clean_pod_policy=text(spec, "cleanPodPolicy") or "Running",
        success_policy=text(spec, "successPolicy") or "All",
    )


def _checkpoint(part: Manifest) -> Checkpoint:
    return Checkpoint(text(part, "path"), optional(part, "intervalSteps"), optional(part, "keep"))


def _failure_policy(part: Manifest) -> FailurePolicy:
    return FailurePolicy(
        backoff_limit=number(part, "backoffLimit", 6),
        backoff_limit_per_index=optional(part, "backoffLimitPerIndex"),
        window_seconds=number(part, "windowSeconds", 3600),
        rules=tuple(_rule(rule) for rule in children(part, "rules")),
    )


def _rule(part: Manifest) -> Rule:
    codes = child(part, "onExitCodes")
    values = codes.get("values", ())
    return Rule(
        name=text(part, "name"),
        action=text(part, "action"),
        exit_codes=ExitCodes(
            codes.get("operator") == "NotIn",
            frozenset(value for value in values if isinstance(value, int)),
        )
        if isinstance(values, list)
        else None,
        conditions=frozenset(
            (text(condition, "type"), text(condition, "status") or "True")
            for condition in children(part, "onPodConditions")
        ),
    )


def child(manifest: Manifest, key: str) -> Manifest:
    """The mapping under ``key``, empty when there is none."""
    value = manifest.get(key)
    return value if isinstance(value, Mapping) else {}


def children(manifest: Manifest, key: str) -> tuple[Manifest, ...]:
    """The mappings of the list under ``key``."""
    value = manifest.get(key)
    items = value if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, Mapping))


def text(manifest: Manifest, key: str) -> str:
    """The string under ``key``, empty when there is none."""
    value = manifest.get(key)
    return value if isinstance(value, str) else ""


def optional(manifest: Manifest, key: str) -> int | None:
    """The integer under ``key``, or None."""
    value = manifest.get(key)
    return value if isinstance(value, int) else None


def number(manifest: Manifest, key: str, default: int) -> int:
    """The integer under ``key``, or the default."""
    value = optional(manifest, key)
    return default if value is None else value


def digest(value: object) -> str:
    """Short hash of anything that JSON can hold; equal values have equal hashes."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]


def parse_time(value: object) -> float | None:
    """Seconds since 1970 of a Kubernetes timestamp, or None when there is none."""
    if not isinstance(value, str) or not value:
        return None
    return datetime.fromisoformat(value).timestamp()


def format_time(seconds: float) -> str:
    """A Kubernetes timestamp, in whole seconds as the API server keeps them."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
