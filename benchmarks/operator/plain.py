"""The design of most kopf operators: a create handler, a timer per object, the blocking client.

Run by kopf itself. It makes the same pods as the operator, so that only the design differs.
"""

from typing import Any

import kopf
import kubernetes

from dssync_operator import resources
from dssync_operator.job import parse_job
from dssync_operator.plan import NewPod

GROUP, VERSION, PLURAL = "dssync.io", "v1alpha1", "dssyncjobs"
CHECK_SECONDS = 10.0
JSON = dict[str, Any]


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    kubernetes.config.load_kube_config()
    settings.posting.enabled = False


@kopf.on.create(GROUP, VERSION, PLURAL)
def create(body: kopf.Body, **_: Any) -> None:
    ensure(dict(body), set())


@kopf.timer(GROUP, VERSION, PLURAL, interval=CHECK_SECONDS, initial_delay=CHECK_SECONDS)
def check(body: kopf.Body, name: str, namespace: str, patch: kopf.Patch, **_: Any) -> None:
    api = kubernetes.client.CoreV1Api()
    found = api.list_namespaced_pod(namespace, label_selector=f"dssync.io/job-name={name}").items
    ensure(dict(body), {pod.metadata.name for pod in found})
    if body.status.get("replicas") != len(found):
        patch.status["replicas"] = len(found)


def ensure(manifest: JSON, existing: set[str]) -> None:
    job = parse_job(manifest)
    api = kubernetes.client.CoreV1Api()
    for slot in range(job.spec.replicas):
        new = NewPod(slot, 0, "Start")
        if resources.pod_name(job, new) not in existing:
            api.create_namespaced_pod(job.namespace, resources.pod(job, job.spec.template, "", new))
