"""What survives the loss of what: the operator's rows of that table."""

import json
import signal
import time
from pathlib import Path

import pytest

from ground.control_plane import ControlPlane
from ground.inprocess import harness
from ground.process import OperatorProcess
from ground.scene import Scene, live, make_job


def test_loss_of_a_node_with_most_pods_replaces_them_without_waiting(scene: Scene) -> None:
    scene.create(make_job(replicas=4))
    pods = scene.live_pods(4)
    for pod in pods:
        scene.kubelet.run(pod, "node-a" if pod is pods[0] else "node-lost")
    scene.status_until(lambda status: status.get("readyReplicas") == 4)

    before = time.monotonic()
    for pod in pods[1:]:  # as the taint manager does; the lost kubelet never answers
        scene.plane.request("DELETE", f"{scene.path('pods')}/{pod['metadata']['name']}")
    found = scene.pods_until(lambda found: len(live(found)) == 4)

    assert time.monotonic() - before < 5.0
    assert len(found) == 7
    gone = json.loads(scene.lease()["metadata"]["annotations"]["dssync.io/gone"])
    assert set(gone) == {pod["metadata"]["uid"] for pod in pods[1:]}


def test_loss_of_all_pods_is_one_incident(scene: Scene) -> None:
    scene.create(make_job(replicas=5, failurePolicy={"backoffLimit": 1}))
    for pod in scene.run_all(5):
        scene.kubelet.end(pod, 137, None, "OOMKilled")

    scene.pods_until(lambda pods: len(live(pods)) == 5 and len(pods) == 10)
    status = scene.status_until(lambda status: status["restarts"]["total"] == 5)

    assert status["restarts"]["inWindow"] == 1
    assert status["state"] not in ("Failed", "Complete")


@pytest.mark.timeout(120)
def test_loss_of_the_api_server_costs_no_write_and_no_pod(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)
    with OperatorProcess(
        quiet_plane.kubeconfig,
        tmp_path / "log",
        namespaces=scene.namespace,
        lease_name=scene.namespace,
        lease_seconds=60,
    ) as operator:
        scene.create(make_job(replicas=3))
        scene.run_all(3)
        scene.status_until(lambda status: status.get("readyReplicas") == 3)
        before = scene.job()["metadata"]["resourceVersion"]
        pods = [pod["metadata"]["uid"] for pod in scene.pods()]

        quiet_plane.signal("kube-apiserver", signal.SIGSTOP)
        time.sleep(3.0)  # the length of the outage, not a wait for something
        quiet_plane.signal("kube-apiserver", signal.SIGCONT)
        scene.create(make_job("after"))
        scene.status_until(lambda status: status.get("replicas") == 1, "after", seconds=40)

        assert operator.process.poll() is None
        assert scene.job()["metadata"]["resourceVersion"] == before
        ours = [p for p in scene.pods() if p["metadata"]["name"].startswith("demo-")]
        assert [pod["metadata"]["uid"] for pod in ours] == pods


async def test_places_of_nodes_reach_the_launchers_through_the_lease(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    for name, labels in {"n1": {"zone": "a", "rack": "r1"}, "n2": {"zone": "b"}}.items():
        node = {"metadata": {"name": name, "labels": labels}}
        quiet_plane.request("POST", "/api/v1/nodes", node)
    scene.create(make_job(replicas=2))
    key = (scene.namespace, "demo")
    async with harness(quiet_plane, time.time, topology_keys=("zone", "rack")) as operator:
        await operator.reconciler.look(key)
        for pod, node in zip(scene.pods(), ("n1", "n2"), strict=True):
            scene.kubelet.run(pod, node)

        await operator.reconciler.look(key)

    written = scene.lease()["metadata"]["annotations"]["dssync.io/nodes"]
    assert json.loads(written) == {"n1": "a/r1", "n2": "b/-"}


async def test_configured_rate_of_pod_creations_is_kept_and_reached(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    scene.create(make_job(replicas=30))
    async with harness(quiet_plane, time.time, qps=20.0, burst=1) as operator:
        before = time.monotonic()
        await operator.reconciler.look((scene.namespace, "demo"))
        seconds = time.monotonic() - before

    assert 29 / 20.0 <= seconds < 3 * 30 / 20.0
    assert len(scene.pods()) == 30
