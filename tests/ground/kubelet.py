"""Plays kubelet and scheduler by hand: binds pods, runs them, ends them, takes them away."""

import json
from datetime import UTC, datetime

from ground.control_plane import ControlPlane, Manifest

MERGE = "application/merge-patch+json"


class PodGoneError(Exception):
    """The pod was taken away by somebody else before the kubelet could tell of it."""


class Kubelet:
    """Sets what a real kubelet would report, for pods that a test picks."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def bind(self, pod: Manifest, node: str = "node-a") -> None:
        """Give a pod its node."""
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"metadata": {"name": pod["metadata"]["name"]}, "target": target}
        self._tell("POST", f"{path_of(pod)}/binding", body, "application/json")

    def run(self, pod: Manifest, node: str = "node-a") -> None:
        """Bind a pod and let it run and be ready."""
        self.bind(pod, node)
        state = {"running": {"startedAt": now()}}
        self._report(pod, {"phase": "Running", **_conditions(True), **_worker(state, True)})

    def wait(self, pod: Manifest, reason: str, message: str) -> None:
        """Let a bound pod's container be unable to start."""
        state = {"waiting": {"reason": reason, "message": message}}
        self._report(pod, {"phase": "Pending", **_worker(state, False)})

    def unschedulable(self, pod: Manifest, message: str) -> None:
        """Tell that no node fits."""
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": now(),
        }
        self._report(pod, {"phase": "Pending", "conditions": [condition]})

    def end(
        self,
        pod: Manifest,
        code: int = 0,
        verdict: str | None = "Done",
        reason: str = "",
        condition: str | None = None,
        finished_at: str | None = None,
    ) -> None:
        """End a pod's worker with an exit code and the launcher's verdict, if it gave one."""
        said = "" if verdict is None else json.dumps({"verdict": verdict, "exit_code": code})
        terminated = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": said,
            "finishedAt": finished_at or now(),
        }
        status = {
            "phase": "Succeeded" if code == 0 else "Failed",
            **_conditions(False),
            **_worker({"terminated": terminated}, False),
        }
        if condition is not None:
            status["conditions"].append(
                {"type": condition, "status": "True", "lastTransitionTime": now()}
            )
        self._report(pod, status)

    def remove(self, pod: Manifest) -> None:
        """Take a pod away at once, as at the end of its grace period or by force."""
        self._plane.request("DELETE", path_of(pod), {"gracePeriodSeconds": 0})

    def _report(self, pod: Manifest, status: Manifest) -> None:
        self._tell("PATCH", f"{path_of(pod)}/status", {"status": status}, MERGE)

    def _tell(self, method: str, path: str, body: Manifest, content_type: str) -> None:
        code, said = self._plane.request(method, path, body, content_type=content_type)
        if code in (404, 409):
            raise PodGoneError(said["message"])
        assert code in (200, 201), said


def path_of(pod: Manifest) -> str:
    """Path of a pod."""
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def now() -> str:
    """The time as a kubelet writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _worker(state: Manifest, ready: bool) -> Manifest:
    container = {
        "name": "worker",
        "image": "none",
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }
    return {"containerStatuses": [container]}


def _conditions(ready: bool) -> Manifest:
    each = {"status": str(ready), "lastTransitionTime": now()}
    return {"conditions": [{"type": "Ready", **each}]}
