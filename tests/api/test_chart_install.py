"""The chart on the real API server: its rights, and install, upgrade and uninstall."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.rendering import CHART, helm_program
from ground.control_plane import ControlPlane, Manifest
from ground.process import OperatorProcess
from ground.scene import Scene, make_job

OPTIONS = (
    "--set",
    "networkPolicy.jobs=true,topology.enabled=true,metrics.authentication=true",
)
MORE = ("nodes", "metrics")
"""Roles that come with these options."""
KINDS = "all,role,rolebinding,serviceaccount"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
WORKER = "dssync-worker"
NEVER_CALLED = {
    ("dssyncjobs/finalizers", "update"),  # checked by an admission plug-in of OpenShift
}


def helm(plane: ControlPlane, *arguments: str) -> str:
    path = helm_program()
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "HOME": str(plane.folder)}
    done = subprocess.run(
        [str(path), *arguments], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def grant_in_namespaces(plane: ControlPlane, roles: list[Manifest]) -> None:
    """Give the user ``namespaced`` what the chart gives its service account, role by role."""
    for role in roles:
        metadata = role["metadata"]
        place = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{metadata['namespace']}"
        assert plane.request("POST", f"{place}/roles", role)[0] == 201
        binding = {
            "metadata": {"name": metadata["name"]},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": metadata["name"],
            },
            "subjects": [{"kind": "User", "name": "namespaced"}],
        }
        assert plane.request("POST", f"{place}/rolebindings", binding)[0] == 201


def grant(plane: ControlPlane, roles: list[Manifest]) -> None:
    """Give the user ``operator`` what the chart gives its service account."""
    rbac = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    for role in roles:
        assert plane.request("POST", rbac, role)[0] == 201
        name = role["metadata"]["name"]
        binding = {
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": name,
            },
            "subjects": [{"kind": "User", "name": "operator"}],
        }
        assert plane.request("POST", f"{rbac[:-12]}clusterrolebindings", binding)[0] == 201


def granted(roles: list[Manifest]) -> set[tuple[str, str]]:
    return {
        (resource, verb)
        for role in roles
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def called(plane: ControlPlane, user: str = "operator") -> set[tuple[str, str]]:
    """Resource and verb of everything an operator asked for, from the audit log."""
    found = set()
    for entry in plane.audit_entries():
        reference = entry.get("objectRef", {})
        if entry["user"]["username"] != user or "resource" not in reference:
            continue
        parts = (reference["resource"], reference.get("subresource"))
        resource = "/".join(part for part in parts if part)
        assert entry["responseStatus"]["code"] != 403, entry
        found.add((resource, entry["verb"]))
        if entry["verb"] == "patch" and entry["responseStatus"]["code"] == 201:
            found.add((resource, "create"))  # apply makes what is missing, and needs that right
    return found


@pytest.mark.timeout(120)
def test_rights_of_the_chart_are_exactly_those_that_the_operator_uses(
    plane: ControlPlane, tmp_path: Path
) -> None:
    rendered = helm(plane, "template", "rights", str(CHART), *OPTIONS)
    roles = [
        part
        for part in yaml.safe_load_all(rendered)
        if part
        and part["kind"] == "ClusterRole"
        and part["metadata"]["name"] in ("rights-dssync", *(f"rights-dssync-{x}" for x in MORE))
    ]
    grant(plane, roles)
    scene = Scene(plane)
    settings = {
        "lease_namespace": scene.namespace,
        "lease_name": "rights",
        "network_policy": "true",
        "topology_keys": "zone",
        "metrics_authentication": "true",
        "resync_seconds": 1,
        "log_format": "plain",
    }
    quiet_operator = plane.kubeconfig_of("operator")
    with OperatorProcess(quiet_operator, tmp_path / "log", **settings) as running:
        live_through_everything(scene)
        token = plane.tokens["outsider"]
        assert running.get("/metrics", Authorization=f"Bearer {token}")[0] == 403

    assert called(plane) - granted(roles) == set()
    assert granted(roles) - called(plane) == NEVER_CALLED


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", ["PerJob", "Namespace", "None"])
def test_with_rights_in_one_namespace_the_operator_serves_it_and_asks_for_nothing_beyond(
    plane: ControlPlane, tmp_path: Path, workers: str
) -> None:
    home, scene = Scene(plane), Scene(plane)
    options = ("--namespace", home.namespace, "--set", "rbac.scope=Namespaced")
    watched = f"watchNamespaces={{{scene.namespace}}}"
    values = ("--set", f"workerRbac={workers}", "--set", watched)
    rendered = helm(plane, "template", "dssync", str(CHART), *options, *values)
    parts = [part for part in yaml.safe_load_all(rendered) if part]
    # What every account may ask, such as discovery, comes with the binding of a real cluster.
    assert not [part for part in parts if part["kind"] == "ClusterRoleBinding"]
    roles = [part for part in parts if part["kind"] == "Role"]
    grant_in_namespaces(plane, [role for role in roles if role["metadata"]["name"] != WORKER])
    for part in parts:
        if part["kind"] == "ServiceAccount" and part["metadata"]["name"] == WORKER:
            assert plane.request("POST", scene.path("serviceaccounts"), part)[0] == 201
    settings = {
        "namespaces": scene.namespace,
        "lease_namespace": home.namespace,
        "lease_name": "dssync",
        "worker_rbac": workers,
        "resync_seconds": 1,
        "log_format": "plain",
    }

    kubeconfig = plane.kubeconfig_of("namespaced")
    with OperatorProcess(kubeconfig, tmp_path / "log", **settings) as operator:
        rendezvous = {"mode": "Static" if workers == "None" else "Lease"}
        scene.create(make_job(replicas=2, rendezvous=rendezvous))
        pods = scene.run_all(2)
        for pod in pods:
            scene.kubelet.end(pod)
        scene.condition("Complete")
        if workers == "None":
            scene.create(make_job("leased"))
            scene.condition("Accepted", "False", "NotPermitted", name="leased")

        held = self_check(plane, parts, "namespaced", operator)
        bare = self_check(plane, parts, "outsider", operator)

    account = {pod["spec"]["serviceAccountName"] for pod in pods}
    made = {"Namespace": WORKER, "PerJob": f"demo-{scene.job()['metadata']['uid'][:8]}"}
    assert account == {made.get(workers, "default")}
    assert bool(scene.children("roles", RBAC)) is (workers == "PerJob")
    assert ("dssyncjobs", "watch") in called(plane, "namespaced")
    assert held.returncode == 0, held.stdout + held.stderr
    assert "no right is missing" in held.stdout
    assert bare.returncode == 1
    assert '"resource": "pods", "verb": "create"' in bare.stdout


@pytest.mark.timeout(120)
def test_account_that_the_workers_of_a_namespace_share_may_swap_its_leases(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    options = ("--namespace", scene.namespace, "--set", "rbac.scope=Namespaced")
    values = ("--set", "workerRbac=Namespace", "--show-only", "templates/rbac-workers.yaml")
    rendered = helm(quiet_plane, "template", "dssync", str(CHART), *options, *values)
    quiet_plane.kubectl("apply", "-f", "-", stdin=rendered)

    def can(verb: str, resource: str, group: str = "coordination.k8s.io") -> bool:
        wish = {"verb": verb, "resource": resource, "group": group, "namespace": scene.namespace}
        account = f"system:serviceaccount:{scene.namespace}:{WORKER}"
        spec = {"user": account, "resourceAttributes": wish}
        return bool(quiet_plane.request("POST", REVIEWS, {"spec": spec})[1]["status"]["allowed"])

    assert [can(verb, "leases") for verb in ("get", "watch", "update")] == [True] * 3
    assert [can(verb, "leases") for verb in ("create", "delete", "list")] == [False] * 3
    assert not can("get", "pods", "")


@pytest.mark.timeout(120)
def test_job_that_needs_rights_where_none_are_given_says_so(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)
    settings = {"lease_name": "none", "worker_rbac": "None", "namespaces": scene.namespace}

    with OperatorProcess(quiet_plane.kubeconfig, tmp_path / "log", **settings):
        scene.create(make_job())
        condition = scene.condition("Accepted", "False", "NotPermitted")

    assert "rendezvous.mode Static" in condition["message"]
    assert "quota" not in condition["message"]
    assert scene.pods() == []


def self_check(
    plane: ControlPlane, parts: list[Manifest], user: str, operator: OperatorProcess
) -> subprocess.CompletedProcess[str]:
    """Run what the pod of ``helm test`` runs."""
    (pod,) = [part for part in parts if part["kind"] == "Pod"]
    (container,) = pod["spec"]["containers"]
    url, *others = container["args"]
    assert url.endswith("/readyz")
    here = [f"http://127.0.0.1:{operator.port}/readyz", *others]
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig_of(user))}
    command = [sys.executable, *container["command"][1:], *here]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def live_through_everything(scene: Scene) -> None:
    """One life of a job in which each verb is needed once."""
    stranger: dict[str, Any] = {"metadata": {"name": "demo-w0-0"}, "spec": make_pod_spec()}
    assert scene.plane.request("POST", scene.path("pods"), stranger)[0] == 201
    scene.plane.request("POST", "/api/v1/nodes", {"metadata": {"name": "node-a"}})
    job = make_job(replicas=2, ttlSecondsAfterFinished=1, cleanPodPolicy="All")
    scene.create(job)
    pods = scene.pods_until(lambda pods: len(pods) == 3, seconds=40)
    ours = [pod for pod in pods if pod["metadata"]["name"] != "demo-w0-0"]
    for pod in ours:
        scene.kubelet.run(pod)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)
    scene.say("launcher", view=json.dumps({"term": 1, "sequence": 1, "pods": 2, "workers": 2}))
    scene.condition("Running")
    roles = scene.path("roles", "/apis/rbac.authorization.k8s.io/v1")
    (role,) = scene.children("roles", "/apis/rbac.authorization.k8s.io/v1")
    scene.plane.request("DELETE", f"{roles}/{role['metadata']['name']}")
    scene.plane.until(roles, lambda found: len(found) == 1)  # by a resync, which reads all children
    leases = scene.path("leases", "/apis/coordination.k8s.io/v1")
    scene.plane.request("DELETE", f"{leases}/{scene.lease()['metadata']['name']}")
    scene.plane.until(leases, lambda found: len(found) == 2)
    for pod in ours:
        scene.kubelet.end(pod, 0, "Done")
    scene.plane.until(scene.jobs, lambda jobs: not jobs, seconds=40)


def make_pod_spec() -> Manifest:
    return {"containers": [{"name": "other", "image": "x"}]}


@pytest.mark.timeout(120)
def test_chart_is_installed_upgraded_and_uninstalled_and_jobs_outlive_it(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/dssyncjobs.dssync.io"
    adopt = {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {
            "meta.helm.sh/release-name": "dssync",
            "meta.helm.sh/release-namespace": scene.namespace,
        },
    }
    quiet_plane.request(
        "PATCH", crd, {"metadata": adopt}, content_type="application/merge-patch+json"
    )
    release = ("dssync", str(CHART), "--namespace", scene.namespace, "--force-conflicts")

    said = helm(quiet_plane, "install", *release)
    scene.create(make_job())
    helm(quiet_plane, "upgrade", *release, "--set", "replicas=1")
    deployments = quiet_plane.request("GET", scene.path("deployments", "/apis/apps/v1"))[1]["items"]
    helm(quiet_plane, "uninstall", "dssync", "--namespace", scene.namespace)

    assert "kubectl explain dssyncjob.spec" in said
    assert [each["spec"]["replicas"] for each in deployments] == [1]
    assert scene.job()["metadata"]["name"] == "demo"
    assert quiet_plane.request("GET", crd)[0] == 200
    left = quiet_plane.kubectl(
        "get", "all,role,rolebinding,sa", "-n", scene.namespace, "-o", "name"
    )
    assert [line for line in left.splitlines() if "dssync" in line and "/demo" not in line] == []
