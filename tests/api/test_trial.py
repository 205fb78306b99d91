"""What ``helm test`` runs beside the rights, on the real API server; a test plays the nodes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import yaml

from api.test_chart_install import CHART, called, granted, helm
from ground.control_plane import ControlPlane, Manifest
from ground.process import OperatorProcess
from ground.scene import Scene

RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Trial:
    """The chart's trial as a process, with the rights that the chart gives it."""

    def __init__(self, scene: Scene, *options: str) -> None:
        self._scene = scene
        where = ("--namespace", scene.namespace, "--set", "test.image=example/trainer")
        template = ("--show-only", "templates/tests/job.yaml")
        rendered = helm(scene.plane, "template", "dssync", str(CHART), *where, *template, *options)
        self.parts = {part["kind"]: part for part in yaml.safe_load_all(rendered) if part}
        for kind, group, plural in [
            ("ServiceAccount", "/api/v1", "serviceaccounts"),
            ("Role", RBAC, "roles"),
            ("RoleBinding", RBAC, "rolebindings"),
            ("ConfigMap", "/api/v1", "configmaps"),
        ]:
            path = scene.path(plural, group)
            assert scene.plane.request("POST", path, self.parts[kind])[0] == 201, kind

    def start(self) -> subprocess.Popen[str]:
        return start(self._scene, self.parts["Pod"])


def start(scene: Scene, pod: Manifest) -> subprocess.Popen[str]:
    """Run what the trial's pod runs, as its account."""
    (container,) = pod["spec"]["containers"]
    account = (scene.namespace, pod["spec"]["serviceAccountName"])
    kubeconfig = scene.plane.kubeconfig_of_account(*account)
    return subprocess.Popen(
        [sys.executable, *container["command"][1:], *container["args"]],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def take_away(scene: Scene, pods: list[Manifest]) -> None:
    """End the grace period of pods that are being deleted, as their kubelets would."""
    uids = {pod["metadata"]["uid"] for pod in pods}
    scene.pods_until(
        lambda found: all(
            "deletionTimestamp" in pod["metadata"]
            for pod in found
            if pod["metadata"]["uid"] in uids
        )
    )
    for pod in pods:
        scene.kubelet.remove(pod)


def test_trial_makes_a_job_of_two_workers_waits_for_its_end_and_removes_it(scene: Scene) -> None:
    started = Trial(scene)
    with started.start() as trial:
        pods = scene.run_all(2)
        scene.say("launcher", view='{"term":1,"sequence":1,"pods":2,"workers":2}')
        for pod in pods:
            scene.kubelet.end(pod)
        take_away(scene, pods)
        said, _ = trial.communicate(timeout=60)

    assert trial.returncode == 0, said
    assert "has trained to its end and is gone" in said
    user = f"system:serviceaccount:{scene.namespace}:dssync-test-job"
    assert called(scene.plane, user) == granted([started.parts["Role"]])
    assert scene.plane.request("GET", scene.jobs)[1]["items"] == []
    assert scene.pods() == []


def test_trial_whose_workers_fail_says_why_and_leaves_nothing(scene: Scene) -> None:
    with Trial(scene).start() as trial:
        pods = scene.run_all(2)
        for pod in pods:
            scene.kubelet.end(pod, 93, "DoNotRestart")
        take_away(scene, pods)
        said, _ = trial.communicate(timeout=60)

    assert trial.returncode == 1
    assert "the job has failed" in said
    assert "93" in said
    assert scene.plane.request("GET", scene.jobs)[1]["items"] == []


def test_trial_that_nobody_serves_gives_up(empty_scene: Scene) -> None:
    with Trial(empty_scene, "--set", "test.seconds=2").start() as trial:
        said, _ = trial.communicate(timeout=60)

    assert trial.returncode == 1
    assert "not complete after 2 s" in said


def test_helm_test_of_a_release_runs_both_checks_and_leaves_nothing_of_them(scene: Scene) -> None:
    plane, where = scene.plane, ("--namespace", scene.namespace)
    values = ("--set", "test.image=example/trainer,crds.enabled=false")
    helm(plane, "install", "dssync", str(CHART), *where, *values)

    with ThreadPoolExecutor(1) as executor:
        testing = executor.submit(helm, plane, "test", "dssync", *where)
        (pod,) = scene.names("dssync-test-job")
        with start(scene, pod) as trial:
            found = scene.live_pods(3)
            workers = [each for each in found if "ownerReferences" in each["metadata"]]
            for worker in workers:
                scene.kubelet.run(worker)
            for worker in workers:
                scene.kubelet.end(worker)
            take_away(scene, workers)
            said, _ = trial.communicate(timeout=60)
        scene.kubelet.end(pod)
        ready = scene.pods_until(lambda pods: any("ready" in p["metadata"]["name"] for p in pods))
        scene.kubelet.end(ready[-1])
        told = testing.result(timeout=60)

    assert trial.returncode == 0, said
    assert told.count("Phase:          Succeeded") >= 2
    assert scene.pods() == []
    for plural, group in (
        ("serviceaccounts", "/api/v1"),
        ("roles", RBAC),
        ("configmaps", "/api/v1"),
    ):
        left = plane.request("GET", scene.path(plural, group))[1]["items"]
        assert [each for each in left if "test-job" in each["metadata"]["name"]] == []


def test_pods_of_the_trial_fit_the_restricted_level(
    plane: ControlPlane, operator: OperatorProcess
) -> None:
    scene = Scene(plane, **{"pod-security.kubernetes.io/enforce": "restricted"})
    with Trial(scene).start() as trial:
        pods = scene.live_pods(2)
        trial.terminate()
        trial.communicate(timeout=60)

    (container,) = pods[0]["spec"]["containers"]
    assert container["image"] == "example/trainer"
