"""From create to gone, against the real API server."""

import json

from ground.control_plane import Manifest
from ground.scene import Scene, condition_of, make_job

RBAC = "/apis/rbac.authorization.k8s.io/v1"
COORDINATION = "/apis/coordination.k8s.io/v1"
KINDS = (
    ("services", "/api/v1"),
    ("secrets", "/api/v1"),
    ("serviceaccounts", "/api/v1"),
    ("leases", COORDINATION),
    ("roles", RBAC),
    ("rolebindings", RBAC),
)


def test_created_job_gets_pods_service_lease_secret_and_rights_that_it_owns(scene: Scene) -> None:
    job = scene.create(make_job(replicas=3))

    pods = scene.names("demo-w0-0", "demo-w1-0", "demo-w2-0")

    scene.status_until(lambda status: status.get("replicas") == 3)
    children = [child for kind in KINDS for child in scene.children(*kind)]
    assert len(children) == len(KINDS)
    for child in (*pods, *children):
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["uid"] == job["metadata"]["uid"]
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is True


def test_verdict_done_of_all_pods_completes_the_job(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    for pod in scene.run_all(2):
        scene.kubelet.end(pod, 0, "Done")

    condition = scene.condition("Complete")

    assert condition["reason"] == "SuccessPolicyMet"
    assert scene.job()["status"]["state"] == "Complete"
    assert condition_of(scene.job()["status"], "Failed") == {}


def test_a_written_status_takes_nothing_of_the_job_from_who_wrote_it(scene: Scene) -> None:
    labelled = make_job(replicas=1)
    labelled["metadata"] |= {"labels": {"team": "a"}, "annotations": {"why": "b"}}
    created = scene.create(labelled)

    scene.status_until(lambda status: status.get("replicas") == 1)

    job = scene.job()
    assert job["spec"] == created["spec"]
    for kept in ("labels", "annotations"):
        assert job["metadata"][kept] == created["metadata"][kept]
    (owned,) = created["metadata"]["managedFields"]
    assert owned in job["metadata"]["managedFields"]


def test_deleted_job_leaves_nothing(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    scene.live_pods(2)
    scene.status_until(lambda status: status.get("replicas") == 2)

    scene.delete_job()

    scene.pods_until(lambda pods: not pods)
    for plural, group in KINDS:
        scene.plane.until(
            scene.path(plural, group) + "?labelSelector=dssync.io/job-name", lambda items: not items
        )


def test_applying_the_same_manifest_again_writes_nothing(scene: Scene) -> None:
    manifest = json.dumps(make_job(replicas=2))
    apply = ("apply", "-n", scene.namespace, "-f", "-")
    scene.plane.kubectl(*apply, stdin=manifest)
    scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)
    before = versions(scene)

    said = scene.plane.kubectl(*apply, stdin=manifest)

    assert "unchanged" in said
    # A second job's whole start is proof that the operator has had time to act on the first.
    scene.create(make_job("other"))
    scene.status_until(lambda status: status.get("replicas") == 1, "other")
    after = versions(scene)
    assert {key: after[key] for key in before} == before


def versions(scene: Scene) -> dict[str, str]:
    paths = [scene.jobs, scene.path("pods"), *(scene.path(*kind) for kind in KINDS)]
    objects = [(path, o) for path in paths for o in scene.plane.request("GET", path)[1]["items"]]
    return {
        f"{path}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for path, o in objects
    }


def test_job_of_many_pods_costs_one_look(scene: Scene) -> None:
    def let_a_second_pass(name: str) -> None:
        scene.create(make_job(name, startupDeadlineSeconds=1, **static))
        scene.condition("Failed", name=name)

    static = {"rendezvous": {"mode": "Static"}}
    let_a_second_pass("first")  # in which an operator that has just started lists all jobs
    scene.create(make_job(replicas=20, **static))
    scene.status_until(lambda status: status.get("replicas") == 20)

    let_a_second_pass("last")  # in which the events of the pods would cause looks

    assert looks_at(scene, "demo") <= 1 + lists_that_name(scene, "demo")


def test_new_job_gets_its_children_without_a_question(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    scene.status_until(lambda status: status.get("replicas") == 2)

    assert ("patch", "services") in scene.requests()
    assert ("get", "services") not in scene.requests()


def looks_at(scene: Scene, name: str) -> int:
    """How often the operator has read a job, which is how a look begins."""
    return sum(
        entry["verb"] == "get" and told_apart(entry) == (scene.namespace, name)
        for entry in scene.plane.audit_entries()
    )


def lists_that_name(scene: Scene, name: str) -> int:
    """How many LISTs of all jobs there were since a job was made; each asks for a look at it."""
    entries = scene.plane.audit_entries()
    made = next(
        entry["requestReceivedTimestamp"]
        for entry in entries
        if entry["verb"] == "create" and told_apart(entry) == (scene.namespace, name)
    )
    return sum(
        entry["verb"] == "list"
        and told_apart(entry) == ("", "")
        and entry["stageTimestamp"] >= made
        for entry in entries
    )


def told_apart(entry: Manifest) -> tuple[str, str] | None:
    """Namespace and name in a request for jobs; None in any other."""
    named = entry.get("objectRef", {})
    if named.get("resource") != "dssyncjobs":
        return None
    return named.get("namespace", ""), named.get("name", "")
