"""The lessons that users of other operators paid for, each as a test of this one.

Of those that concern the training processes, this is the operator's part.
"""

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from dssync import contract
from dssync_operator import errors
from ground.control_plane import ControlPlane
from ground.inprocess import harness
from ground.kubelet import MERGE
from ground.process import OperatorProcess
from ground.scene import Scene, condition_of, live, make_job, slot_of

pytestmark = pytest.mark.usefixtures("quiet_lines")
ROOT = Path(__file__).parents[2]
LEASES = "/apis/coordination.k8s.io/v1"
VIEW = json.dumps({"term": 1, "sequence": 1, "pods": 2, "workers": 2})


def uids(pods: list) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def test_lesson_01_loss_of_one_pod_restarts_no_other(scene: Scene) -> None:
    scene.create(make_job(replicas=4))
    pods = scene.run_all(4)

    scene.kubelet.remove(pods[0])
    after = scene.pods_until(lambda found: len(live(found)) == 4)

    assert uids(pods[1:]) < uids(after)


def test_lesson_02_operator_never_holds_nor_clears_the_coordinatorship(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    pods = scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)
    scene.say("coordinator-incarnation", view=VIEW, address="10.0.0.1:29400")

    scene.kubelet.remove(pods[0])
    scene.live_pods(2)

    lease = scene.lease()
    assert lease["spec"]["holderIdentity"] == "coordinator-incarnation"
    assert lease["metadata"]["annotations"]["dssync.io/address"] == "10.0.0.1:29400"
    assert lease["metadata"]["annotations"]["dssync.io/view"] == VIEW


def test_lesson_03_launchers_are_told_how_to_notice_a_death_themselves(scene: Scene) -> None:
    scene.create(make_job(rendezvous={"heartbeatMilliseconds": 100, "leaseMilliseconds": 700}))

    (pod,) = scene.live_pods(1)

    (worker,) = pod["spec"]["containers"]
    told = contract.spread({entry["name"]: entry.get("value", "") for entry in worker["env"]})
    assert told["DSSYNC_HEARTBEAT_MILLISECONDS"] == "100"
    assert told["DSSYNC_LEASE_MILLISECONDS"] == "700"
    assert not [name for name in told if "TIMEOUT" in name and name.startswith(("GLOO", "NCCL"))]


def test_lesson_04_launchers_are_told_how_many_are_expected(scene: Scene) -> None:
    scene.create(make_job(replicas=3, elastic={"minReplicas": 2, "maxReplicas": 6}))
    scene.status_until(lambda status: status.get("replicas") == 3)

    (lease,) = scene.plane.until(scene.path("leases", LEASES), lambda found: len(found) == 1)

    told = lease["metadata"]["annotations"]
    assert [told[f"dssync.io/{key}"] for key in ("desired", "min", "max")] == ["3", "2", "6"]
    reason = scene.condition("Running", "False", "WaitingForMin")
    assert "0 pods run, at least 2 are needed" in reason["message"]


def test_lesson_05_pod_that_never_ends_is_replaced_at_once(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    stuck = scene.run_all(2)[1]

    scene.plane.request("DELETE", f"{scene.path('pods')}/{stuck['metadata']['name']}")
    pods = scene.names("demo-w0-0", "demo-w1-0", "demo-w1-1")

    assert "deletionTimestamp" in pods[1]["metadata"]
    gone = scene.lease()["metadata"]["annotations"]["dssync.io/gone"]
    assert stuck["metadata"]["uid"] in gone
    scene.status_until(lambda status: status["replicas"] == 2)


def test_lesson_06_terminal_state_is_for_ever(scene: Scene) -> None:
    scene.create(make_job())
    scene.kubelet.end(scene.run_all(1)[0])
    scene.condition("Complete")
    for pod in scene.pods():
        scene.kubelet.remove(pod)
    scene.plane.request(
        "DELETE", f"{scene.path('leases', LEASES)}/{scene.lease()['metadata']['name']}"
    )

    scene.patch("demo", {"activeDeadlineSeconds": 1})
    scene.status_until(lambda status: status["observedGeneration"] == 2)

    assert scene.job()["status"]["state"] == "Complete"
    assert scene.pods() == []


async def test_lesson_07_verdict_is_written_before_a_deletion_that_is_repeated_until_it_succeeds(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    scene.create(make_job(replicas=2, cleanPodPolicy="All"))
    key = (scene.namespace, "demo")
    async with harness(quiet_plane, time.time) as operator:
        await operator.reconciler.look(key)
        for pod in scene.pods():
            scene.kubelet.run(pod)
            scene.kubelet.end(pod)

        def refuse(verb: str, path: str) -> None:
            if verb == "DELETE":
                raise errors.UnavailableError("too many requests", 429)

        operator.cluster.before = refuse
        for _ in range(3):
            with pytest.raises(errors.UnavailableError):
                await operator.reconciler.look(key)
            assert condition_of(scene.job()["status"], "Complete")["status"] == "True"
            assert len(scene.pods()) == 2
        told = scene.reasons()
        operator.heal()
        await operator.reconciler.look(key)

    for pod in scene.pods():
        assert "deletionTimestamp" in pod["metadata"]
    # The look that wrote the verdict is the only one that knows of it.
    assert "Completed" in told


def test_lesson_08_creation_failure_is_visible(scene: Scene) -> None:
    strict = Scene(scene.plane, **{"pod-security.kubernetes.io/enforce": "restricted"})
    strict.create(make_job())

    strict.condition("Degraded", "True", "PodCreateFailed")

    events = strict.path("events", "/apis/events.k8s.io/v1")
    strict.plane.until(events, lambda found: any(e["reason"] == "PodCreateFailed" for e in found))


async def test_lesson_09_failures_count_wait_longer_and_end_the_job(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    scene.create(make_job(failurePolicy={"backoffLimit": 2}))
    key, later = (scene.namespace, "demo"), [0.0]
    async with harness(quiet_plane, lambda: time.time() + later[0]) as operator:

        async def fail_after(seconds: float) -> None:
            later[0] += seconds
            stamp = datetime.fromtimestamp(time.time() + later[0], UTC)
            (pod,) = live(scene.pods())
            scene.kubelet.end(pod, 1, "UserError", finished_at=stamp.strftime("%Y-%m-%dT%H:%M:%SZ"))
            await operator.reconciler.look(key)

        await operator.reconciler.look(key)
        await fail_after(20.0)
        at_once = len(live(scene.pods()))
        await fail_after(20.0)
        second = len(live(scene.pods()))
        later[0] += 11.0
        await operator.reconciler.look(key)
        after_the_wait = len(live(scene.pods()))
        await fail_after(20.0)

    assert (at_once, second, after_the_wait) == (1, 0, 1)
    status = scene.job()["status"]
    assert status["restarts"]["total"] == 3
    assert condition_of(status, "Failed")["reason"] == "BackoffLimitExceeded"
    assert live(scene.pods()) == []


def test_lesson_10_service_exists_before_the_first_pod(scene: Scene) -> None:
    scene.create(make_job())
    (pod,) = scene.live_pods(1)

    (service,) = scene.children("services")

    order = [int(o["metadata"]["resourceVersion"]) for o in (service, pod)]
    assert order == sorted(order)
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_lesson_11_change_of_size_goes_through_the_lease_and_never_through_a_mounted_file(
    scene: Scene,
) -> None:
    scene.create(make_job(replicas=2, elastic={"maxReplicas": 4}))
    before = scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)

    scene.patch("demo", {"replicas": 3})
    (lease,) = scene.plane.until(
        scene.path("leases", LEASES),
        lambda found: found[0]["metadata"]["annotations"]["dssync.io/desired"] == "3",
        seconds=5,
    )

    assert lease["metadata"]["labels"]["dssync.io/job-name"] == "demo"
    assert scene.children("configmaps") == []
    volumes = [volume for pod in before for volume in pod["spec"]["volumes"]]
    ours = [each for each in volumes if not each["name"].startswith("kube-api-access-")]
    kinds = {kind for volume in ours for kind in volume}
    assert kinds == {"name", "secret", "emptyDir"}


def test_lesson_12_scale_reports_a_selector_that_an_autoscaler_understands(scene: Scene) -> None:
    scene.create(make_job(replicas=2, elastic={"maxReplicas": 4}))
    scene.status_until(lambda status: status.get("replicas") == 2)

    _, scale = scene.plane.request("GET", f"{scene.jobs}/demo/scale")

    assert scale["status"]["replicas"] == 2
    selected = scene.plane.kubectl(
        "get", "pods", "-n", scene.namespace, "-o", "name", "-l", scale["status"]["selector"]
    )
    assert len(selected.splitlines()) == 2


def test_lesson_13_scaling_down_takes_pending_pods_first(scene: Scene) -> None:
    scene.create(make_job(replicas=3, elastic={"stabilizationSeconds": 0}))
    pods = scene.live_pods(3)
    for pod in pods[1:]:
        scene.kubelet.run(pod)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)

    scene.patch("demo", {"replicas": 2})

    assert {slot_of(pod) for pod in scene.live_pods(2)} == {1, 2}


def test_lesson_14_job_has_what_the_quota_admits_and_counts_no_more(scene: Scene) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/pods": "2"}}}
    quotas = scene.path("resourcequotas")
    scene.plane.request("POST", quotas, quota)
    admit(scene, 2, used=0)
    scene.create(make_job(replicas=4, elastic={"minReplicas": 2}))

    refused = scene.condition("Degraded", "True", "PodCreateFailed")

    assert "exceeded quota" in refused["message"]
    assert len(live(scene.pods())) == 2
    scene.status_until(lambda status: status.get("replicas") == 2)
    admit(scene, 4, used=2)
    scene.live_pods(4)
    scene.status_until(lambda status: status.get("replicas") == 4)


def admit(scene: Scene, count: int, used: int) -> None:
    """Write a quota's status, as its controller does."""
    for part in ("", "/status"):
        body = {"spec": {"hard": {"count/pods": str(count)}}}
        if part:
            body = {
                "status": {"hard": {"count/pods": str(count)}, "used": {"count/pods": str(used)}}
            }
        code, said = scene.plane.request(
            "PATCH", f"{scene.path('resourcequotas')}/few{part}", body, content_type=MERGE
        )
        assert code == 200, said


def test_lesson_15_operator_watches_only_what_it_made(scene: Scene) -> None:
    watched = {
        entry["requestURI"]
        for entry in scene.plane.audit_entries()
        if entry["verb"] == "watch"
        and "/pods" in entry["requestURI"]
        and entry["userAgent"].startswith("Python")
    }

    agents = {uri for uri in watched if "fieldSelector" not in uri and "/namespaces/" not in uri}
    assert agents
    assert all("labelSelector=" in uri for uri in agents)


def test_lesson_16_small_job_does_not_wait_for_a_giant(scene: Scene) -> None:
    scene.create(make_job("giant", replicas=1000))
    scene.plane.until(scene.path("pods"), lambda pods: len(pods) > 0)

    scene.create(make_job("small", replicas=2))
    query = f"{scene.path('pods')}?labelSelector=dssync.io/job-name=small"
    scene.plane.until(query, lambda pods: len(pods) == 2)
    giant = f"{scene.path('pods')}?labelSelector=dssync.io/job-name=giant"

    assert len(scene.plane.request("GET", giant)[1]["items"]) < 1000
    scene.plane.until(giant, lambda pods: len(pods) == 1000)


def test_lesson_17_nothing_registers_a_webhook(scene: Scene) -> None:
    for kind in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        path = f"/apis/admissionregistration.k8s.io/v1/{kind}"
        assert scene.plane.request("GET", path)[1]["items"] == []


def test_lesson_18_and_19_no_finalizer_and_no_annotation_is_put_on_anything(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    pods = scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)

    for found in (scene.job(), *pods, *scene.children("services"), scene.lease()):
        assert "finalizers" not in found["metadata"]
        assert not any("kopf" in key for key in found["metadata"].get("annotations", {}))
    assert "annotations" not in scene.job()["metadata"]


def test_lesson_19_folder_called_operator_does_not_shadow_the_standard_library() -> None:
    code = "import collections, dssync_operator"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_lesson_20_resource_is_small_and_the_chart_does_not_hide_it_in_crds() -> None:
    assert (ROOT / "crds" / "dssyncjob.yaml").stat().st_size < 64 * 1024
    assert not (ROOT / "charts" / "dssync" / "crds").exists()
    assert yaml.safe_load((ROOT / "crds" / "dssyncjob.yaml").read_text())


def test_operator_exports_every_series_it_promises(scene: Scene, operator: OperatorProcess) -> None:
    scene.create(make_job())
    scene.live_pods(1)

    said = operator.get("/metrics")[1]

    promised = (
        "reconcile_seconds queue_depth queue_wait_seconds api_requests_total "
        "api_throttle_seconds_total watch_restarts_total watch_age_seconds jobs "
        "pod_create_seconds replacement_seconds time_to_running_seconds leader"
    )
    helped = set(re.findall(r"^# HELP dssync_operator_(\w+)", said, re.M))
    assert {name.removesuffix("_total") for name in promised.split()} <= {
        name.removesuffix("_total") for name in helped
    }
    assert "dssync_operator_leader 1.0" in said
    assert operator.get("/healthz") == (200, "ok")


def test_every_lesson_has_a_test_of_its_name() -> None:
    names = re.findall(r"^(?:async )?def test_lesson_(\w+)\(", Path(__file__).read_text(), re.M)

    told = {int(number) for name in names for number in re.findall(r"(?:^|and_)(\d\d)_", name)}

    assert told == set(range(1, 21))
