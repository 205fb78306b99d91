"""What survives the loss of what: the operator's rows of that table."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from dssync_operator.policies import failure
from ground.control_plane import ControlPlane
from ground.inprocess import harness
from ground.process import OperatorProcess
from ground.scene import Scene, condition_of, live, make_job

pytestmark = pytest.mark.usefixtures("quiet_lines")
CRD = Path(__file__).parents[2] / "crds" / "dssyncjob.yaml"


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


@pytest.mark.timeout(120)
def test_loss_of_the_operator_while_pods_fail_and_vanish_loses_no_count_and_no_verdict(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)

    def start() -> OperatorProcess:
        return OperatorProcess(
            quiet_plane.kubeconfig,
            tmp_path / "log",
            namespaces=scene.namespace,
            lease_name=scene.namespace,
            lease_seconds=2,
            renew_seconds=0.5,
        )

    with start() as first:
        scene.create(make_job(replicas=3))
        scene.create(make_job("done", replicas=1))
        scene.run_all(4)
        scene.status_until(lambda status: status.get("readyReplicas") == 3)
        scene.status_until(lambda status: status.get("readyReplicas") == 1, "done")
        first.stop(signal.SIGKILL)
    failed, vanished, _, finished = scene.pods()
    assert finished["metadata"]["name"] == "done-w0-0"
    scene.kubelet.end(failed, 3, "UserError")
    scene.kubelet.remove(vanished)
    scene.kubelet.end(finished)

    with start():
        scene.names("demo-w0-0", "demo-w0-1", "demo-w1-0", "demo-w2-0", "done-w0-0")
        scene.condition("Complete", name="done")
        status = scene.status_until(lambda status: status["restarts"]["total"] == 1)

    assert status["restarts"]["inWindow"] == 1
    told = json.loads(scene.lease_of("demo")["metadata"]["annotations"]["dssync.io/gone"])
    assert {failed["metadata"]["uid"], vanished["metadata"]["uid"]} <= set(told)


def test_loss_of_one_worker_pod_is_made_good_at_once(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    pods = scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)

    before = time.monotonic()
    scene.kubelet.end(pods[1], 137, None, "OOMKilled")
    scene.names("demo-w0-0", "demo-w1-0", "demo-w1-1")

    assert time.monotonic() - before < failure.FIRST_DELAY_SECONDS / 2


def test_loss_of_the_coordinator_pod_is_confirmed_before_its_replacement_exists(
    scene: Scene,
) -> None:
    scene.create(make_job(replicas=2))
    first, _ = scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)
    scene.say("launcher-of-slot-0", address="10.0.0.1:29400")

    scene.kubelet.remove(first)
    scene.live_pods(2)

    lease = scene.lease()
    assert first["metadata"]["uid"] in lease["metadata"]["annotations"]["dssync.io/gone"]
    assert lease["spec"]["holderIdentity"] == "launcher-of-slot-0"  # the launchers' to replace
    done = scene.requests()
    after = done[done.index(("delete", "pods")) :]
    assert after.index(("patch", "leases")) < after.index(("create", "pods"))


def test_loss_of_the_lease_by_hand_is_made_good_and_no_term_repeats(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)
    view = json.dumps({"term": 6, "sequence": 4, "pods": 2, "workers": 2})
    scene.say("launcher-7", view=view)
    scene.condition("Running")
    leases = scene.path("leases", "/apis/coordination.k8s.io/v1")

    scene.plane.request("DELETE", f"{leases}/{scene.lease()['metadata']['name']}")
    (made,) = scene.plane.until(leases, lambda found: len(found) == 1)

    assert made["spec"]["leaseTransitions"] == 6
    events = scene.plane.until(
        scene.path("events", "/apis/events.k8s.io/v1"),
        lambda found: any(event["reason"] == "LeaseRecreated" for event in found),
    )
    assert all(event["regarding"]["name"] == "demo" for event in events)


def test_lease_that_is_lost_while_the_job_is_suspended_comes_back_with_its_term(
    scene: Scene,
) -> None:
    scene.create(make_job(replicas=1))
    (pod,) = scene.run_all(1)
    scene.say("launcher-7", view=json.dumps({"term": 6, "sequence": 4, "pods": 1, "workers": 1}))
    scene.condition("Running")
    scene.patch("demo", {"suspend": True})
    scene.pods_until(lambda pods: "deletionTimestamp" in pods[0]["metadata"])
    scene.kubelet.remove(pod)
    scene.condition("Suspended")

    scene.delete_lease()

    assert scene.lease()["spec"]["leaseTransitions"] == 6


@pytest.mark.timeout(180)
def test_loss_of_etcds_recent_past_to_an_old_backup_is_lived_through(tmp_path: Path) -> None:
    plane = ControlPlane()
    try:
        plane.start()
        plane.define(CRD)
        scene = Scene(plane)
        settings = {"lease_seconds": 60, "log_format": "plain"}
        with OperatorProcess(plane.kubeconfig, tmp_path / "log", **settings) as operator:
            scene.create(make_job(replicas=2))
            scene.run_all(2)
            scene.status_until(lambda status: status.get("readyReplicas") == 2)
            backup = plane.save_etcd()
            scene.create(make_job("forgotten", replicas=3))
            scene.status_until(lambda status: status.get("replicas") == 3, "forgotten", 60)

            plane.restore_etcd(backup)
            scene.kubelet.remove(scene.pods()[0])
            scene.live_pods(2, seconds=90)

            scene.status_until(
                lambda status: status["replicas"] == 2 and status["readyReplicas"] == 1, seconds=30
            )
            found = plane.request("GET", scene.jobs)[1]["items"]
            assert [job["metadata"]["name"] for job in found] == ["demo"]
            assert operator.process.poll() is None
    finally:
        plane.stop()


ROWS = (
    "one_worker_pod",
    "the_coordinator_pod",
    "a_node",
    "the_operator",
    "the_api_server",
    "etcds_recent_past",
    "all_pods",
    "the_lease",
)
"""What may be lost, as far as the operator answers for it; a worker process is the launcher's."""


@pytest.mark.parametrize("row", ROWS)
def test_every_loss_has_a_test_of_its_name(row: str) -> None:
    here = Path(__file__).read_text()

    assert re.search(rf"^(?:async )?def test_loss_of_{row}_", here, re.M)


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
    accepted = condition_of(scene.job()["status"], "Accepted")
    assert accepted["message"] == "spec and template are valid"


def test_status_says_when_launchers_know_their_nodes_by_name_only(scene: Scene) -> None:
    told = make_job("told")
    (worker,) = told["spec"]["template"]["spec"]["containers"]
    worker["env"] = [{"name": "DSSYNC_TOPOLOGY", "value": "zone-a/rack-7"}]

    scene.create(make_job())
    scene.create(told)

    assert "by name only" in scene.condition("Accepted")["message"]
    assert "by name only" not in scene.condition("Accepted", name="told")["message"]


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


async def test_loss_of_the_token_by_hand_is_made_good_and_told(quiet_plane: ControlPlane) -> None:
    scene = Scene(quiet_plane)
    scene.create(make_job(replicas=2))
    key = (scene.namespace, "demo")
    async with harness(quiet_plane, time.time, resync_seconds=0.0) as operator:
        await operator.reconciler.look(key)
        await operator.reconciler.look(key)
        quiet = scene.reasons()
        (secret,) = scene.children("secrets")
        scene.plane.request("DELETE", f"{scene.path('secrets')}/{secret['metadata']['name']}")
        await operator.reconciler.look(key)

    assert len(scene.children("secrets")) == 1
    assert "TokenRecreated" not in quiet
    assert "TokenRecreated" in scene.reasons()


async def test_copy_of_a_pod_with_all_its_labels_takes_nobodys_place(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    scene.create(make_job(replicas=2))
    key = (scene.namespace, "demo")
    async with harness(quiet_plane, time.time) as operator:
        await operator.reconciler.look(key)
        original, *_ = scene.run_all(2)
        labels = original["metadata"]["labels"]
        copy = {"metadata": {"name": "a-copy", "labels": labels}, "spec": original["spec"]}
        assert scene.plane.request("POST", scene.path("pods"), copy)[0] == 201
        await operator.reconciler.look(key)

    assert len(live(scene.pods())) == 3  # nobody is surplus
    assert scene.job()["status"]["replicas"] == 2


def test_operator_of_many_namespaces_has_a_connection_for_each_watch(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)
    many = ",".join([scene.namespace, *(f"another-{number}" for number in range(60))])

    with OperatorProcess(
        quiet_plane.kubeconfig, tmp_path / "log", namespaces=many, lease_name="many"
    ) as operator:
        scene.create(make_job(replicas=2))
        scene.live_pods(2, seconds=30)
        assert operator.process.poll() is None
