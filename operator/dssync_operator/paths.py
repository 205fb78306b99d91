"""Paths of the API server for what belongs to a job."""

from dssync import contract
from dssync_operator.job import Job, Manifest, child, text
from dssync_operator.queue import Key

JOBS = f"/apis/{contract.GROUP}/{contract.VERSION}"
_COLLECTIONS = {
    "Pod": ("/api/v1", "pods"),
    "Secret": ("/api/v1", "secrets"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
}


def collection(kind: str, namespace: str | None) -> str:
    """Path of all objects of a kind, in one namespace or in all."""
    group, plural = _COLLECTIONS[kind]
    return f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"


def collection_of(manifest: Manifest) -> str:
    """Path of the collection that an object belongs to."""
    return collection(text(manifest, "kind"), text(child(manifest, "metadata"), "namespace"))


def path_of(manifest: Manifest) -> str:
    """Path of an object."""
    return f"{collection_of(manifest)}/{text(child(manifest, 'metadata'), 'name')}"


def jobs_path(namespace: str | None) -> str:
    """Path of all jobs, in one namespace or in all."""
    return (
        f"{JOBS}/namespaces/{namespace}/{contract.PLURAL}"
        if namespace
        else f"{JOBS}/{contract.PLURAL}"
    )


def job_path(key: Key) -> str:
    """Path of a job."""
    return f"{jobs_path(key[0])}/{key[1]}"


def pods_path(namespace: str) -> str:
    """Path of a namespace's pods."""
    return collection("Pod", namespace)


def pod_path(job: Job, name: str) -> str:
    """Path of a pod of a job."""
    return f"{pods_path(job.namespace)}/{name}"


def lease_path(job: Job) -> str:
    """Path of a job's Lease."""
    return f"{collection('Lease', job.namespace)}/{job.child_name}"
