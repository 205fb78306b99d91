"""Builders of everything that the operator makes for a job; plain manifests out, no calls."""

import copy
import json
import secrets
from collections.abc import Mapping
from typing import Final

from dssync import contract
from dssync_operator.job import JOB_TYPE, Job, Manifest, child, children, text
from dssync_operator.plan import NewPod
from dssync_operator.pod import grace_seconds, worker_of
from dssync_operator.policies import nodes
from dssync_operator.record import Wanted

GPU: Final = "nvidia.com/gpu"
TOKEN_KEY: Final = "token"
TOKEN_FOLDER: Final = "/var/run/secrets/dssync.io"
ANNOTATION_CHILDREN: Final = f"{contract.GROUP}/children-hash"
ANNOTATION_TEMPLATE: Final = f"{contract.GROUP}/template"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
POD_SELECTOR: Final = f"{MANAGED_BY}=dssync-operator,{contract.LABEL_JOB_UID}"
"""Label selector of everything that this operator made for jobs."""
Object = dict[str, object]
_DOWNWARD: Final[Mapping[str, str]] = {
    contract.ENV_POD_UID: "metadata.uid",
    contract.ENV_POD_IP: "status.podIP",
    contract.ENV_NODE_NAME: "spec.nodeName",
}
_NO_MESH: Final = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}


def owner(job: Job) -> Object:
    """The reference by which the garbage collector ends a child with its job."""
    return {
        **JOB_TYPE,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def labels(job: Job) -> dict[str, str]:
    """Labels of all children of a job."""
    return {
        "app.kubernetes.io/name": "dssync",
        "app.kubernetes.io/instance": job.name,
        MANAGED_BY: "dssync-operator",
        contract.LABEL_JOB_NAME: job.name,
        contract.LABEL_JOB_UID: job.uid,
    }


def _object(job: Job, api_version: str, kind: str, annotations: Manifest | None = None) -> Object:
    metadata: Object = {
        "name": job.child_name,
        "namespace": job.namespace,
        "labels": labels(job),
        "ownerReferences": [owner(job)],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def secret(job: Job) -> Object:
    """The token that launchers of one job show each other; made once and never read back."""
    return {
        **_object(job, "v1", "Secret"),
        "type": "Opaque",
        "stringData": {TOKEN_KEY: secrets.token_hex(32)},
    }


def applied(job: Job, template: Manifest, network_policy: bool) -> tuple[Object, ...]:
    """The children beside Lease and Service; ``template`` is the one that pods are made from."""
    made: list[Object] = []
    if job.account == job.child_name:
        given = _given_account(template)
        made += [] if given else [_service_account(job)]
        made += [_role(job), _role_binding(job, given or job.child_name)]
    if network_policy:
        made.append(_network_policy(job))
    return tuple(made)


def _given_account(template: Manifest) -> str:
    """The account that the user chose, perhaps for its rights on storage; it is kept."""
    spec = child(template, "spec")
    return text(spec, "serviceAccountName") or text(spec, "serviceAccount")


def _service_account(job: Job) -> Object:
    return _object(job, "v1", "ServiceAccount")


def role_rules(lease_name: str) -> list[Object]:
    """What a pod may do: read and swap its job's record."""
    rule: Object = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [lease_name],
        "verbs": ["get", "watch", "update"],
    }
    return [rule]


def _role(job: Job) -> Object:
    rules = role_rules(job.child_name)
    return {**_object(job, "rbac.authorization.k8s.io/v1", "Role"), "rules": rules}


def _role_binding(job: Job, account_name: str) -> Object:
    account = {"kind": "ServiceAccount", "name": account_name, "namespace": job.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": job.child_name}
    binding = _object(job, "rbac.authorization.k8s.io/v1", "RoleBinding")
    return {**binding, "subjects": [account], "roleRef": role}


def _network_policy(job: Job) -> Object:
    """Only pods of the same job reach its data sockets, which carry no token; metrics stay open."""
    mates = {"podSelector": {"matchLabels": {contract.LABEL_JOB_UID: job.uid}}}
    metrics = {"ports": [{"protocol": "TCP", "port": job.spec.metrics_port}]}
    return {
        **_object(job, "networking.k8s.io/v1", "NetworkPolicy"),
        "spec": {
            "podSelector": {"matchLabels": {contract.LABEL_JOB_UID: job.uid}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [mates]}, metrics],
        },
    }


def service(job: Job, template: Manifest, children_hash: str) -> Object:
    """The headless Service by which launchers find each other.

    It is applied last, so its hash says that the other children were; and it keeps the template
    that pods are made from, in case the job's own is edited while it runs.
    """
    annotations = {
        ANNOTATION_CHILDREN: children_hash,
        ANNOTATION_TEMPLATE: canonical(template),
    }
    return {
        **_object(job, "v1", "Service", annotations),
        "spec": {
            "clusterIP": "None",
            "ipFamilyPolicy": "PreferDualStack",
            "publishNotReadyAddresses": True,
            "selector": {contract.LABEL_JOB_UID: job.uid},
            "ports": [{"name": "control", "protocol": "TCP", "port": job.spec.rendezvous.port}],
        },
    }


def lease(job: Job, wanted: Wanted) -> Object:
    """The arbiter's cell with the operator's part of the record; holder and term are not ours."""
    return {
        **_object(job, "coordination.k8s.io/v1", "Lease", wanted.annotations()),
        "spec": {},
    }


def pod_name(job: Job, new: NewPod) -> str:
    """Name of a pod; the same for the same slot and incarnation, so making it twice is harmless."""
    return f"{job.name}-w{new.slot}-{new.incarnation}"


def pod(job: Job, template: Manifest, template_hash: str, new: NewPod) -> Object:
    """The pod of one slot: the user's template with the project's part added."""
    spec = copy.deepcopy(dict(child(template, "spec")))
    spec["restartPolicy"] = "Never"
    spec.setdefault("terminationGracePeriodSeconds", grace_seconds(template))
    spec["hostname"], spec["subdomain"] = f"{job.name}-w{new.slot}", job.child_name
    spec["tolerations"] = [
        *children(spec, "tolerations"),
        *nodes.tolerations(job.spec.unreachable_seconds),
    ]
    if job.account and not _given_account(template):
        spec["serviceAccountName"] = job.account
    if job.spec.host_network:
        spec["hostNetwork"], spec["dnsPolicy"] = True, "ClusterFirstWithHostNet"
    _avoid(spec, new.shunned)
    _equip(job, template, new, spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _pod_metadata(job, template, template_hash, new),
        "spec": spec,
    }


def _pod_metadata(job: Job, template: Manifest, template_hash: str, new: NewPod) -> Object:
    given = child(template, "metadata")
    own = {
        **labels(job),
        "app.kubernetes.io/component": "worker",
        contract.LABEL_SLOT: str(new.slot),
        contract.LABEL_INCARNATION: str(new.incarnation),
        contract.LABEL_TEMPLATE_HASH: template_hash,
    }
    # A mesh proxy breaks connections between pods that address each other by IP.
    annotations = {**_NO_MESH, **child(given, "annotations")}
    annotations[contract.ANNOTATION_CREATED_FOR] = new.created_for
    return {
        "name": pod_name(job, new),
        "namespace": job.namespace,
        "labels": {**child(given, "labels"), **own},
        "annotations": annotations,
        "ownerReferences": [owner(job)],
    }


def _avoid(spec: Object, shunned: tuple[str, ...]) -> None:
    """Rule nodes out in every term of the pod's node selector, since terms are alternatives."""
    if not shunned:
        return
    affinity = dict(child(spec, "affinity"))
    node = dict(child(affinity, "nodeAffinity"))
    required = child(node, "requiredDuringSchedulingIgnoredDuringExecution")
    # A requirement on metadata.name takes exactly one value.
    ruled_out = [
        {"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in shunned
    ]
    terms = [
        {**term, "matchFields": [*children(term, "matchFields"), *ruled_out]}
        for term in children(required, "nodeSelectorTerms") or ({},)
    ]
    node["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    spec["affinity"] = {**affinity, "nodeAffinity": node}


def _equip(job: Job, template: Manifest, new: NewPod, spec: Object) -> None:
    """Give the worker container its variables, its token and shared memory."""
    containers = [dict(container) for container in children(spec, "containers")]
    worker = next(c for c in containers if c.get("name") == contract.WORKER_CONTAINER)
    ours = variables(job, template, new)
    named = {*ours, *_DOWNWARD, contract.ENV_SETTINGS}
    given = [entry for entry in children(worker, "env") if entry.get("name") not in named]
    worker["env"] = [*_entries(ours), *given]
    volumes = [*children(spec, "volumes"), _token_volume(job)]
    mounts = [
        *children(worker, "volumeMounts"),
        {"name": "dssync-token", "mountPath": TOKEN_FOLDER, "readOnly": True},
    ]
    if not any(mount.get("mountPath") == "/dev/shm" for mount in mounts):
        volumes.append({"name": "dssync-shm", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "dssync-shm", "mountPath": "/dev/shm"})
    worker["volumeMounts"], spec["volumes"], spec["containers"] = mounts, volumes, containers
    if not job.spec.host_network:
        worker["ports"] = _ports(job, worker)


def _ports(job: Job, worker: Manifest) -> list[Manifest]:
    given = [*children(worker, "ports")]
    taken = {port.get("name") for port in given} | {port.get("containerPort") for port in given}
    ours: tuple[tuple[str, int], ...] = (
        ("control", job.spec.rendezvous.port),
        ("metrics", job.spec.metrics_port),
    )
    new = [
        {"name": name, "containerPort": number, "protocol": "TCP"}
        for name, number in ours
        if name not in taken and number not in taken
    ]
    return [*given, *new]


def _token_volume(job: Job) -> Object:
    """The file belongs to root, and workers run as whoever their image says."""
    return {
        "name": "dssync-token",
        "secret": {"secretName": job.child_name, "defaultMode": 0o444},
    }


def gpus(template: Manifest) -> int:
    """Number of ``nvidia.com/gpu`` that the worker container asks for."""
    resources = child(_worker(template), "resources")
    limits, requests = child(resources, "limits"), child(resources, "requests")
    asked = limits.get(GPU, requests.get(GPU, 0))
    return int(asked) if isinstance(asked, int | str) and str(asked).isdigit() else 0


def termination_log(template: Manifest) -> str:
    """Where the kubelet looks for what the launcher says at its end."""
    return text(_worker(template), "terminationMessagePath") or contract.TERMINATION_LOG


def _worker(template: Manifest) -> Manifest:
    return worker_of(children(child(template, "spec"), "containers"))


def variables(job: Job, template: Manifest, new: NewPod) -> dict[str, str]:
    """What a pod is told, by the names of ``dssync.contract``, but for the kubelet's part."""
    values = _values(job, template, new)
    return {name: str(value) for name, value in values.items() if value is not None}


def _entries(values: Mapping[str, str]) -> list[Object]:
    """The same in the worker container; settings last, so that they may speak of the others."""
    downward: list[Object] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in _DOWNWARD.items()
    ]
    *identity, settings = (
        Object(name=name, value=value) for name, value in contract.gathered(values).items()
    )
    return [*identity, *downward, settings]


def _values(job: Job, template: Manifest, new: NewPod) -> dict[str, object]:
    spec, sync, meeting = job.spec, job.spec.sync, job.spec.rendezvous
    count = gpus(template)
    domain = f"{job.child_name}.{job.namespace}.svc"
    port = 0 if spec.host_network and not meeting.static else meeting.port
    checkpoint, policy = spec.checkpoint, spec.failure_policy
    return {
        contract.ENV_JOB_NAME: job.name,
        contract.ENV_JOB_NAMESPACE: job.namespace,
        contract.ENV_JOB_UID: job.uid,
        contract.ENV_SLOT: new.slot,
        contract.ENV_DESIRED: spec.replicas,
        contract.ENV_MIN: spec.min_replicas,
        contract.ENV_MAX: spec.max_replicas,
        contract.ENV_NPROC_PER_NODE: spec.nproc_per_node or count or 1,
        contract.ENV_GROUP_SIZE: sync.group_size,
        contract.ENV_EVERY: sync.every,
        contract.ENV_MODE: sync.mode,
        contract.ENV_COMMIT: sync.commit,
        contract.ENV_SEED: sync.seed,
        contract.ENV_BACKEND: _backend(sync.backend, count),
        contract.ENV_AVERAGE_OPTIMIZER_STATE: int(sync.average_optimizer_state),
        contract.ENV_ARBITER: f"static:{job.name}-w0.{domain}:{meeting.port}"
        if meeting.static
        else f"lease:{job.child_name}",
        contract.ENV_RENDEZVOUS_PORT: port,
        contract.ENV_JOIN_WINDOW_SECONDS: meeting.join_window_seconds,
        contract.ENV_HEARTBEAT_MILLISECONDS: meeting.heartbeat_milliseconds,
        contract.ENV_LEASE_MILLISECONDS: meeting.lease_milliseconds,
        contract.ENV_QUORUM: meeting.quorum,
        contract.ENV_HANG_TIMEOUT_SECONDS: spec.hang_timeout_seconds,
        contract.ENV_DRAIN_TIMEOUT_SECONDS: grace_seconds(template),
        contract.ENV_METRICS_PORT: 0 if spec.host_network else spec.metrics_port,
        contract.ENV_TOKEN_FILE: f"{TOKEN_FOLDER}/{TOKEN_KEY}",
        contract.ENV_TERMINATION_LOG: termination_log(template),
        contract.ENV_RESTART_CODES: ",".join(map(str, policy.restart_codes)) or None,
        contract.ENV_MAX_RESTARTS: policy.restarts_in_pod,
        contract.ENV_CHECKPOINT_PATH: checkpoint.path if checkpoint else None,
        contract.ENV_CHECKPOINT_INTERVAL_STEPS: checkpoint.interval_steps if checkpoint else None,
        contract.ENV_CHECKPOINT_KEEP: checkpoint.keep if checkpoint else None,
        contract.ENV_INTERFACE: spec.interface,
        "GLOO_SOCKET_IFNAME": spec.interface,
        "NCCL_SOCKET_IFNAME": spec.interface,
    }


def _backend(asked: str, gpu_count: int) -> str:
    if asked != "auto":
        return asked
    return "nccl" if gpu_count else "gloo"


def template_of(service_manifest: Manifest) -> Manifest | None:
    """The template that a job's Service keeps, or None."""
    kept = text(child(child(service_manifest, "metadata"), "annotations"), ANNOTATION_TEMPLATE)
    return json.loads(kept) if kept else None


def canonical(template: Manifest) -> str:
    """A template as the job's Service keeps it."""
    return json.dumps(template, sort_keys=True, separators=(",", ":"))
