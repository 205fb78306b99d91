"""One namespace of the test ground with what a test wants to say about jobs in it."""

import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

from ground.api import PATIENCE_SECONDS, Manifest
from ground.control_plane import ControlPlane
from ground.kubelet import MERGE, Kubelet

JOBS = "/apis/dssync.io/v1alpha1"
APPLY = "application/apply-patch+yaml"
MADE_BY_US = "app.kubernetes.io/managed-by=dssync-operator"


def make_job(name: str = "demo", **spec: Any) -> Manifest:
    """A small valid job; keyword arguments are fields of its spec."""
    container = {"name": "worker", "image": "example/trainer", "command": ["dssync", "run", "t.py"]}
    template = {"spec": {"containers": [container]}}
    return {
        "apiVersion": "dssync.io/v1alpha1",
        "kind": "DSSyncJob",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


class Scene:
    """A fresh namespace; ``kubelet`` plays its nodes."""

    def __init__(self, plane: ControlPlane, **labels: str) -> None:
        self.plane = plane
        self.kubelet = Kubelet(plane)
        self.namespace = f"test-{secrets.token_hex(4)}"
        code, said = plane.request(
            "POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace, "labels": labels}}
        )
        assert code == 201, said
        # As a controller does it everywhere else; pods that name no account have this one.
        account = {"metadata": {"name": "default"}}
        code, said = plane.request("POST", self.path("serviceaccounts"), account)
        assert code == 201, said

    def path(self, plural: str, group: str = "/api/v1") -> str:
        """Path of a collection in the namespace."""
        return f"{group}/namespaces/{self.namespace}/{plural}"

    @property
    def jobs(self) -> str:
        """Path of the namespace's jobs."""
        return self.path("dssyncjobs", JOBS)

    def submit(self, job: Manifest) -> tuple[int, Manifest]:
        """Create a job and return the API server's answer."""
        return self.plane.request("POST", self.jobs, job)

    def create(self, job: Manifest) -> Manifest:
        """Create a job that must be accepted."""
        code, said = self.submit(job)
        assert code == 201, said
        return said

    def patch(self, name: str, spec: Manifest) -> tuple[int, Manifest]:
        """Merge a patch into a job's spec."""
        return self.plane.request(
            "PATCH", f"{self.jobs}/{name}", {"spec": spec}, content_type=MERGE
        )

    def delete_job(self, name: str = "demo") -> None:
        """Delete a job."""
        code, said = self.plane.request("DELETE", f"{self.jobs}/{name}")
        assert code == 200, said

    def job(self, name: str = "demo") -> Manifest:
        """Read a job."""
        return self.plane.request("GET", f"{self.jobs}/{name}")[1]

    def pods(self) -> list[Manifest]:
        """All pods of the namespace, by name."""
        items = self.plane.request("GET", self.path("pods"))[1]["items"]
        return sorted(items, key=lambda pod: pod["metadata"]["name"])

    def pods_until(
        self, holds: Callable[[list[Manifest]], bool], seconds: float = PATIENCE_SECONDS
    ) -> list[Manifest]:
        """Wait until something holds for the pods."""
        found = self.plane.until(self.path("pods"), holds, seconds)
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def live_pods(self, count: int, seconds: float = PATIENCE_SECONDS) -> list[Manifest]:
        """Wait for exactly so many pods that hold a slot, and return them."""
        found = self.pods_until(lambda pods: len(live(pods)) == count, seconds)
        return live(found)

    def version(self) -> str:
        """The version of the pods now."""
        return str(self.plane.request("GET", self.path("pods"))[1]["metadata"]["resourceVersion"])

    def history(self, since: str) -> list[Manifest]:
        """Everything that has happened to the pods since a version, as events."""
        return self.plane.history(self.path("pods"), since)

    def names(self, *names: str) -> list[Manifest]:
        """Wait until the pods are exactly these, and return them."""
        return self.pods_until(lambda pods: {p["metadata"]["name"] for p in pods} == set(names))

    def run_all(self, count: int) -> list[Manifest]:
        """Wait for so many pods and let each of them run."""
        pods = self.live_pods(count)
        for pod in pods:
            if not pod["spec"].get("nodeName"):
                self.kubelet.run(pod)
        return pods

    def status_until(
        self,
        holds: Callable[[Manifest], bool],
        name: str = "demo",
        seconds: float = PATIENCE_SECONDS,
    ) -> Manifest:
        """Wait until something holds for a job's status, and return it."""

        def has_come(jobs: list[Manifest]) -> bool:
            try:
                return holds(jobs[0]["status"])
            except LookupError:
                return False  # what is asked for is not there yet

        query = f"{self.jobs}?fieldSelector=metadata.name={name}"
        return self.plane.until(query, has_come, seconds)[0]["status"]

    def condition(
        self,
        kind: str,
        status: str = "True",
        reason: str | None = None,
        name: str = "demo",
        seconds: float = PATIENCE_SECONDS,
    ) -> Manifest:
        """Wait for a condition and return it."""

        def holds(job_status: Manifest) -> bool:
            found = condition_of(job_status, kind)
            return found.get("status") == status and reason in (None, found.get("reason"))

        return condition_of(self.status_until(holds, name, seconds), kind)

    def allow_all_pods(self) -> None:
        """Lift the namespace's pod security level."""
        label = {"pod-security.kubernetes.io/enforce": "privileged"}
        self.plane.request(
            "PATCH",
            f"/api/v1/namespaces/{self.namespace}",
            {"metadata": {"labels": label}},
            content_type=MERGE,
        )

    def children(self, plural: str, group: str = "/api/v1") -> list[Manifest]:
        """Objects of a collection that the operator made."""
        path = f"{self.path(plural, group)}?labelSelector={MADE_BY_US}"
        return self.plane.request("GET", path)[1]["items"]

    def requests(self) -> list[tuple[str, str]]:
        """Verb and resource of everything that was asked for here, in order, from the audit log."""
        ours = [
            entry
            for entry in self.plane.audit_entries()
            if entry.get("objectRef", {}).get("namespace") == self.namespace
        ]
        ours.sort(key=lambda entry: str(entry["requestReceivedTimestamp"]))
        return [(entry["verb"], entry["objectRef"]["resource"]) for entry in ours]

    def reasons(self) -> set[str]:
        """Reasons of all events here."""
        events = self.plane.request("GET", self.path("events", "/apis/events.k8s.io/v1"))[1]
        return {event["reason"] for event in events["items"]}

    def lease_of(self, name: str) -> Manifest:
        """The Lease of one of several jobs here."""
        found = self.children("leases", "/apis/coordination.k8s.io/v1")
        (own,) = [o for o in found if o["metadata"]["labels"]["dssync.io/job-name"] == name]
        return own

    def lease(self) -> Manifest:
        """The one Lease of the one job here, as soon as it is there."""
        path = self.path("leases", "/apis/coordination.k8s.io/v1")
        (found,) = self.plane.until(f"{path}?labelSelector={MADE_BY_US}", bool)
        return found

    def delete_lease(self) -> None:
        """Delete the one job's Lease, as a person does by mistake."""
        leases = self.path("leases", "/apis/coordination.k8s.io/v1")
        code, said = self.plane.request("DELETE", f"{leases}/{self.lease()['metadata']['name']}")
        assert code == 200, said

    def say(self, holder: str | None = None, **entries: str) -> None:
        """Write into the Lease as launchers do; keys are the last parts of the annotations."""
        lease = self.lease()
        path = f"{self.path('leases', '/apis/coordination.k8s.io/v1')}/{lease['metadata']['name']}"
        annotations = {f"dssync.io/{key}": value for key, value in entries.items()}
        body: Manifest = {"metadata": {"annotations": annotations}}
        if holder is not None:
            body["spec"] = {"holderIdentity": holder, "leaseTransitions": 1}
        code, said = self.plane.request("PATCH", path, body, content_type=MERGE)
        assert code == 200, said


def most_at_once(history: list[Manifest]) -> dict[int, int]:
    """For each slot, how many of its pods were live together, at the worst moment of a history."""
    present: dict[str, Manifest] = {}
    most = Counter[int]()
    for event in history:
        pod = event["object"]
        present.pop(pod["metadata"]["uid"], None)
        if event["type"] != "DELETED":
            present[pod["metadata"]["uid"]] = pod
        most |= Counter(slot_of(each) for each in live(list(present.values())))
    return dict(most)


def live(pods: list[Manifest]) -> list[Manifest]:
    """Pods that have not ended and are not being deleted."""
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and pod["status"].get("phase") in ("Pending", "Running")
    ]


def condition_of(status: Manifest, kind: str) -> Manifest:
    """A condition of a status, empty where there is none."""
    found = [c for c in status.get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def slot_of(pod: Manifest) -> int:
    """Slot of a pod."""
    return int(pod["metadata"]["labels"]["dssync.io/worker-index"])
