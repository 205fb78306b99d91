"""Templates that only the API server can judge: shown in the status, and nobody else is hurt."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ground.api import PATIENCE_SECONDS
from ground.control_plane import ControlPlane
from ground.inprocess import harness
from ground.kubelet import MERGE
from ground.scene import Scene, condition_of, live, make_job

pytestmark = pytest.mark.usefixtures("quiet_lines")
GREEDY = {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}
MOUNT = {"name": "data", "mountPath": "/d"}
WORKER = {"name": "worker", "image": "example/trainer"}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no image", {"image": None}, "spec.containers[0].image: Required value"),
    (
        "port out of range",
        {"ports": [{"containerPort": 70000}]},
        "containerPort: Invalid value: 70000",
    ),
    ("text for a port", {"ports": [{"containerPort": "http"}]}, "containerPort"),
    ("image of the wrong type", {"image": 7}, "image"),
    ("no such field", {"resorces": {}}, 'unknown field "spec.containers[0].resorces"'),
    ("unknown pull policy", {"imagePullPolicy": "Often"}, "imagePullPolicy: Unsupported value"),
    (
        "memory without number",
        {"resources": {"limits": {"memory": "much"}}},
        "must match",
    ),
    (
        "request above limit",
        {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
        "must be less than or equal to cpu limit",
    ),
    (
        "mount without volume",
        {"volumeMounts": [{"name": "data", "mountPath": "/d"}]},
        'Not found: "data"',
    ),
    ("variable with a space", {"env": [{"name": "", "value": "x"}]}, "env"),
    (
        "negative user",
        {"securityContext": {"runAsUser": -1}},
        "runAsUser: Invalid value",
    ),
]


@pytest.mark.parametrize(
    ("fields", "sentence"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_template_is_shown_with_its_path(
    scene: Scene, fields: dict[str, Any], sentence: str
) -> None:
    job = make_job()
    job["spec"]["template"]["spec"]["containers"][0].update(fields)
    scene.create(job)

    condition = scene.condition("Accepted", "False", "InvalidPodTemplate")

    assert sentence in condition["message"]
    assert scene.job()["status"]["state"] == "Invalid"
    assert scene.pods() == []


def test_mended_template_is_accepted_and_runs(scene: Scene) -> None:
    job = make_job()
    job["spec"]["template"]["spec"]["containers"][0]["image"] = None
    scene.create(job)
    scene.condition("Accepted", "False")

    scene.patch("demo", {"template": make_job()["spec"]["template"]})

    scene.condition("Accepted", "True")
    scene.names("demo-w0-0")


def test_changed_template_of_a_running_job_is_ignored_until_it_is_suspended(scene: Scene) -> None:
    scene.create(make_job(replicas=2, elastic={"maxReplicas": 3}))
    scene.run_all(2)
    container = {"name": "worker", "image": "example/new"}

    scene.patch("demo", {"template": {"spec": {"containers": [container]}}})
    scene.condition("Accepted", "False", "TemplateChangedWhileRunning")
    scene.patch("demo", {"replicas": 3})
    grown = scene.run_all(3)
    scene.patch("demo", {"suspend": True})
    scene.pods_until(lambda pods: all("deletionTimestamp" in p["metadata"] for p in pods))
    for pod in scene.pods():
        scene.kubelet.remove(pod)
    scene.condition("Suspended")
    scene.patch("demo", {"suspend": False})
    renewed = scene.live_pods(3)

    assert {images(pod) for pod in grown} == {"example/trainer"}
    assert {images(pod) for pod in renewed} == {"example/new"}
    scene.condition("Accepted", "True")


def test_edit_that_nobody_checked_makes_no_pod_when_the_job_resumes_in_haste(scene: Scene) -> None:
    scene.create(make_job())
    (pod,) = scene.run_all(1)
    scene.patch("demo", {"template": {"spec": {"containers": [{"name": "worker"}]}}})
    scene.condition("Accepted", "False", "TemplateChangedWhileRunning")
    scene.patch("demo", {"suspend": True})
    scene.condition("Suspended", "False", "Draining")

    scene.patch("demo", {"suspend": False})
    scene.condition("Suspended", "False", "JobResumed")
    scene.kubelet.remove(pod)

    (renewed,) = scene.pods_until(lambda pods: [p for p in live(pods) if not same(p, pod)] != [])
    assert images(renewed) == "example/trainer"


def test_edit_waits_where_the_template_of_the_pods_that_run_was_deleted(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    pods = scene.run_all(2)
    container = {"name": "worker", "image": "example/new"}
    scene.patch("demo", {"template": {"spec": {"containers": [container]}}})
    scene.condition("Accepted", "False", "TemplateChangedWhileRunning")
    (service,) = scene.children("services")
    scene.plane.request("DELETE", f"{scene.path('services')}/{service['metadata']['name']}")

    scene.kubelet.remove(pods[0])

    scene.status_until(
        lambda status: "no pod is made" in condition_of(status, "Accepted")["message"]
    )
    assert [p["metadata"]["uid"] for p in scene.pods()] == [pods[1]["metadata"]["uid"]]
    scene.patch("demo", {"template": make_job()["spec"]["template"]})
    assert {images(each) for each in scene.live_pods(2)} == {"example/trainer"}


def same(pod: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(pod["metadata"]["uid"] == other["metadata"]["uid"])


def test_edit_that_is_ignored_takes_no_right_from_the_pods_that_run(scene: Scene) -> None:
    scene.create(make_job())
    (pod,) = scene.run_all(1)
    template = make_job()["spec"]["template"]
    template["spec"]["serviceAccountName"] = "storage"

    scene.patch("demo", {"template": template})
    scene.condition("Accepted", "False", "TemplateChangedWhileRunning")

    (binding,) = scene.children("rolebindings", "/apis/rbac.authorization.k8s.io/v1")
    holders = [subject["name"] for subject in binding["subjects"]]
    assert holders == [pod["spec"]["serviceAccountName"]]


def images(pod: dict[str, Any]) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def test_refused_pod_is_a_message_and_no_verdict_on_the_template(scene: Scene) -> None:
    strict = Scene(scene.plane, **{"pod-security.kubernetes.io/enforce": "restricted"})
    strict.create(make_job())

    condition = strict.condition("Degraded", "True", "PodCreateFailed")

    assert "violates PodSecurity" in condition["message"]
    strict.condition("Accepted", "True")
    strict.allow_all_pods()
    strict.live_pods(1)
    strict.condition("Degraded", "False")


async def test_template_that_a_policy_refused_is_checked_anew_once_the_policy_is_gone(
    quiet_plane: ControlPlane,
) -> None:
    scene = Scene(quiet_plane)
    key = (scene.namespace, "demo")
    scene.create(make_job())
    with forbidding_pods(scene):
        async with harness(quiet_plane, time.time) as operator:
            await operator.reconciler.look(key)
            refused = condition_of(scene.job()["status"], "Accepted")

    async with harness(quiet_plane, time.time) as operator:
        await operator.reconciler.look(key)

    assert "no pods here" in refused["message"]
    assert condition_of(scene.job()["status"], "Accepted")["status"] == "True"
    assert len(scene.pods()) == 1


@contextmanager
def forbidding_pods(scene: Scene) -> Iterator[None]:
    """Let a policy refuse all pods of the namespace, with the code of an invalid object."""
    name = {"metadata": {"name": scene.namespace}}
    only = {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}
    policy = {
        "matchConstraints": {"resourceRules": [pods]},
        "validations": [{"expression": "false", "message": "no pods here"}],
    }
    binding = {
        "policyName": scene.namespace,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": only},
    }
    group = "/apis/admissionregistration.k8s.io/v1"
    made = {"validatingadmissionpolicies": policy, "validatingadmissionpolicybindings": binding}
    for plural, spec in made.items():
        code, said = scene.plane.request("POST", f"{group}/{plural}", {**name, "spec": spec})
        assert code == 201, said
    wait_until(lambda: dry_run(scene) == 422)
    yield
    for plural in made:
        scene.plane.request("DELETE", f"{group}/{plural}/{scene.namespace}")
    wait_until(lambda: dry_run(scene) == 201)


def dry_run(scene: Scene) -> int:
    """What the API server says to a pod; nothing else tells when it has taken a policy in."""
    pod = {"metadata": {"name": "probe"}, "spec": {"containers": [WORKER]}}
    return int(scene.plane.request("POST", f"{scene.path('pods')}?dryRun=All", pod)[0])


def wait_until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_template_that_is_too_large_to_be_kept_is_refused_with_its_size(scene: Scene) -> None:
    job = make_job()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": f"TABLE_{number}", "value": "x" * 10_000} for number in range(30)]
    scene.create(job)

    condition = scene.condition("Accepted", "False", "InvalidPodTemplate")

    assert "has 293 KiB; at most 200" in condition["message"]
    assert scene.pods() == []


def test_what_may_not_be_made_beside_the_pods_is_shown_until_it_may(scene: Scene) -> None:
    quotas = scene.path("resourcequotas")
    hard = {"hard": {"count/services": "0"}}
    scene.plane.request("POST", quotas, {"metadata": {"name": "none"}, "spec": hard})
    code, said = scene.plane.request(
        "PATCH",
        f"{quotas}/none/status",
        {"status": {**hard, "used": {"count/services": "0"}}},
        content_type=MERGE,
    )
    assert code == 200, said
    scene.create(make_job())

    condition = scene.condition("Accepted", "False", "NotPermitted")

    assert "exceeded quota" in condition["message"]
    assert scene.pods() == []
    scene.plane.until(
        scene.path("events", "/apis/events.k8s.io/v1"),
        lambda found: any(event["reason"] == "NotPermitted" for event in found),
    )
    scene.plane.request("DELETE", f"{quotas}/none")
    scene.live_pods(1, seconds=40)
    scene.condition("Accepted", "True")


def test_jobs_that_cannot_be_served_block_no_other(scene: Scene) -> None:
    strict = Scene(scene.plane, **{"pod-security.kubernetes.io/enforce": "restricted"})
    for number in range(20):  # more than there are workers
        strict.create(make_job(f"refused-{number}"))
    poisoned = scene.create(make_job("poisoned"))["metadata"]["uid"]
    labels = {
        "app.kubernetes.io/managed-by": "dssync-operator",
        "dssync.io/job-name": "poisoned",
        "dssync.io/job-uid": poisoned,
        "dssync.io/worker-index": "none",
    }
    stray = {"metadata": {"name": "stray", "labels": labels}, "spec": {"containers": [WORKER]}}
    assert scene.plane.request("POST", scene.path("pods"), stray)[0] == 201
    strict.condition("Degraded", "True", "PodCreateFailed", "refused-19")

    scene.create(make_job("good", replicas=3))

    scene.status_until(lambda status: status.get("replicas") == 3, "good", seconds=10)
